"""MetaCLIP: captions and metadata entries enter, pairs balanced over the entries leave."""

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

from clipcov_assets.core.draws import hashes, joint_uniform
from clipcov_assets.core.metadata_entries import default_entries, spaced
from clipcov_assets.core.pool import Array, Pool
from clipcov_assets.core.ranking import Ranking, check_budget, ranking_from_scores


def rank_by_metaclip(pool: Pool, budget: int, *, seed: int = 0, entries: Iterable[str] | None = None) -> Ranking:
    """Rank pairs so that each prefix is a MetaCLIP subset: rare entries are kept, frequent ones are thinned.

    MetaCLIP keeps a caption if a uniform draw of one of its entries is below t / max(count, t), which is to
    say if the smallest draw times count of its entries is below t. So the captions are sorted by that
    product, and every threshold t is a prefix.

    Args:
        pool: Reads `captions`.
        budget: Pairs to rank, 1 <= budget <= n.
        seed: Of the draws; a draw depends on the seed, the uid and the entry alone.
        entries: Metadata; by default WordNet's names and the captions' own words and word pairs. Repeated
            and blank entries count once and not at all. An entry with one of , . ; : ? ! ` matches nothing,
            because captions are spaced around these marks and entries are not.

    Returns:
        `budget` pool rows; gains are minus the smallest product, and -(n + 1) without a match, by uid.

    Raises:
        ValueError: `budget` out of range, a missing column, or no entries.

    Source: Xu et al. 2023, arXiv:2309.16671.
    """
    check_budget(budget, len(pool))
    (captions,) = pool.require("captions", method="metaclip")
    entries = tuple(dict.fromkeys(default_entries(captions) if entries is None else entries))
    rows, matched = match_entries(captions, entries)
    counts = np.bincount(matched, minlength=len(entries))
    draws = joint_uniform(seed, hashes(pool.uid)[rows], hashes(np.asarray(entries))[matched])
    threshold = np.full(len(pool), len(pool) + 1.0)
    np.minimum.at(threshold, rows, draws * counts[matched])
    return ranking_from_scores(pool.uid_rank, -threshold, budget)


def implied_t(gain: float) -> float:
    """Return the t above which MetaCLIP keeps a ranking's prefix, from the gain of the prefix's last pick."""
    return -float(gain)


def match_entries(captions: Sequence[str], entries: Sequence[str]) -> tuple[Array, Array]:
    """Find every entry in every caption, as whole words after spacing, in the letters' own case.

    Args:
        captions: n strings.
        entries: Distinct strings.

    Returns:
        (m,) row of the caption and (m,) place of the entry, once for each entry that a caption holds.

    Raises:
        ValueError: no entries but blank ones.
    """
    import ahocorasick

    automaton = ahocorasick.Automaton()
    for place, entry in enumerate(entries):
        if entry.strip():
            automaton.add_word(f" {entry} ", place)
    if not len(automaton):
        raise ValueError("entries is empty: metaclip needs at least one entry that is not blank")
    automaton.make_automaton()
    found = [{place for _, place in automaton.iter(f" {spaced(caption)} ")} for caption in captions]
    rows = np.repeat(np.arange(len(captions)), [len(places) for places in found])
    return rows, np.fromiter(chain.from_iterable(found), np.int64, len(rows))
