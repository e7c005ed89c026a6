"""MetaCLIP: captions and metadata entries enter, pairs balanced over the entries leave."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np

from clipcov_assets.core.draws import hashes, joint_uniform
from clipcov_assets.core.metadata_entries import chunks, count_words, default_entries, spaced
from clipcov_assets.core.pool import Array, Pool
from clipcov_assets.core.ranking import Ranking, check_budget, ranking_from_scores


def rank_by_metaclip(
    pool: Pool,
    budget: int,
    *,
    seed: int = 0,
    entries: Iterable[str] | None = None,
    counts: Mapping[str, int] | None = None,
) -> Ranking:
    """Rank pairs so that each prefix is a MetaCLIP subset: rare entries are kept, frequent ones are thinned.

    MetaCLIP keeps a caption if a uniform draw of one of its entries is below t / max(count, t), which is to
    say if the smallest draw times count of its entries is below t. So the captions are sorted by that
    product, and every threshold t is a prefix.

    Args:
        pool: Reads `captions`.
        budget: Pairs to rank, 1 <= budget <= n.
        seed: Of the draws; a draw depends on the seed, the uid and the entry alone.
        entries: Metadata; by default WordNet's names and the captions' own words and word pairs. Repeated
            and blank entries count once and not at all. An entry with one of , . ; : ? ! ` inside a word
            matches nothing, because captions are spaced around these marks and entries are not.
        counts: Instead of `entries`: the metadata with the number of captions that hold each entry, as
            `count_entries` returns it and added over all crawls of the pool. By default the pool's own.

    Returns:
        `budget` pool rows; gains are minus the smallest product. The reason `entry` is the entry with that
        product, the one that sorts first among equals. Pairs without a match come last, by uid, with the
        entry "" and a gain of -(m + 1), m being n or the largest count.

    Raises:
        ValueError: `budget` out of range, a missing column, no entries, both entries and counts, or counts
            below the pool's own.

    Source: Xu et al. 2023, arXiv:2309.16671.
    """
    check_budget(budget, len(pool))
    (captions,) = pool.require("captions", method="metaclip")
    if counts is not None and entries is not None:
        raise ValueError("metaclip takes entries or counts, not both: counts name their entries")
    if counts is not None:
        entries = counts
    elif entries is None:
        entries = default_entries(count_words(captions))
    names = sorted(set(entries))
    matches = list(match_entries(captions, names))
    found = held_by(matches, len(names))
    totals = found if counts is None else np.array([counts[name] for name in names], np.int64)
    if (totals < found).any():
        short = int(np.argmax(totals < found))
        raise ValueError(
            f"counts: {found[short]} captions of the pool hold {names[short]!r}, more than the {totals[short]} "
            "counted: add the counts of every crawl of the pool"
        )
    products, entry = smallest_products(matches, totals, names, pool.uid, seed=seed)
    products = np.where(entry < 0, max(len(pool), totals.max()) + 1.0, products)
    reason = np.array([*names, ""], object)[entry]
    return ranking_from_scores(pool.uid_rank, -products, budget, reasons={"entry": reason})


def implied_t(gain: float) -> float:
    """Return the t above which MetaCLIP keeps a ranking's prefix, from the gain of the prefix's last pick."""
    return -float(gain)


def count_entries(captions: Iterable[str], entries: Iterable[str]) -> Counter[str]:
    """Return how many captions hold each entry; entries that none holds are left out.

    Additive: with the same entries, the counts of two crawls add up (`+`) to the counts of both. A pair that both
    deliver counts twice, unless the caller leaves it out of one.

    Raises:
        ValueError: no entries but blank ones.
    """
    names = sorted(set(entries))
    found = held_by(match_entries(captions, names), len(names))
    return Counter({names[place]: int(found[place]) for place in np.flatnonzero(found)})


def smallest_products(
    matches: Iterable[tuple[Array, Array]], counts: Array, entries: Sequence[str], uid: Array, *, seed: int
) -> tuple[Array, Array]:
    """Return the smallest draw times count of each caption's entries, and that entry.

    Args:
        matches: What `match_entries` yields.
        counts: (e,) captions that hold each entry.
        entries: e distinct strings, sorted; the first of equal products is taken.
        uid: (n,) uids of the captions.
        seed: Of the draws.

    Returns:
        (n,) float64, and (n,) int64 places of entries, -1 without a match.
    """
    uid_hashes, entry_hashes = hashes(uid), hashes(entries)
    smallest, entry = np.full(len(uid), np.inf), np.full(len(uid), -1)
    for rows, places in matches:
        products = joint_uniform(seed, uid_hashes[rows], entry_hashes[places]) * counts[places]
        starts = firsts(rows)
        least = np.minimum.reduceat(products, starts)
        smallest[rows[starts]] = least
        equal = np.flatnonzero(products == np.repeat(least, np.diff(starts, append=len(rows))))
        winners = equal[firsts(rows[equal])]
        entry[rows[winners]] = places[winners]
    return smallest, entry


def held_by(matches: Iterable[tuple[Array, Array]], n_entries: int) -> Array:
    """Return (n_entries,) int64, how many captions hold each entry."""
    found = np.zeros(n_entries, np.int64)
    for _, places in matches:
        found += np.bincount(places, minlength=n_entries)
    return found


def match_entries(captions: Iterable[str], entries: Sequence[str]) -> Iterator[tuple[Array, Array]]:
    """Find every entry in every caption, as whole words after spacing, in the letters' own case.

    Args:
        captions: n strings.
        entries: Distinct strings.

    Yields:
        For some captions at a time, (m,) int32 rows of captions and (m,) int32 places of entries, once for each
        entry that a caption holds, sorted.

    Raises:
        ValueError: no entries but blank ones.
    """
    import ahocorasick

    automaton = ahocorasick.Automaton()
    for place, entry in enumerate(entries):
        if entry.strip() and "\n" not in entry:
            automaton.add_word(f" {entry} ", place)
    if not len(automaton):
        raise ValueError("entries is empty: metaclip needs at least one entry that is not blank")
    automaton.make_automaton()
    row = 0
    for chunk in chunks(captions):
        texts = [f" {spaced(caption)} " for caption in chunk]
        # One search through all of them: a line end stands between two captions, and in none of them.
        found = np.fromiter(chain.from_iterable(automaton.iter("\n".join(texts))), np.int64).reshape(-1, 2)
        ends = np.cumsum([len(text) + 1 for text in texts])
        matched = np.sort(np.searchsorted(ends, found[:, 0], side="right") << 32 | found[:, 1])
        matched = matched[firsts(matched)]
        yield (row + (matched >> 32)).astype(np.int32), (matched & (2**32 - 1)).astype(np.int32)
        row += len(chunk)


def firsts(numbers: Array) -> Array:
    """Return where each new number begins among sorted ones, which are at least 0."""
    return np.flatnonzero(np.diff(numbers, prepend=-1))
