"""From orders inside latent classes to one order of the pool: pairs enter class by class, a ranking leaves.

Source: arXiv:2403.12267, Algorithm 1, lines 6-10.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipcov_assets.core.objective import TERMS, check_options, linear_weights, resolve_alpha
from clipcov_assets.core.paper import paper_order
from clipcov_assets.core.pool import Array, Pool, as_uids, rows_by_class
from clipcov_assets.core.ranking import Ranking, check_budget
from clipcov_assets.core.released import released_order
from clipcov_assets.core.similarity import gather_pairs
from clipcov_assets.core.statistics import CLIPCOV_COLUMNS, ClassStatistics

VARIANTS = ("paper", "released")


@dataclass(frozen=True, eq=False)
class ClassRankings:
    """The complete order of one or more latent classes, one class after the other.

    Args:
        uid: (m,) in the order of picks inside each class.
        latent_class: (m,) int64; the rows of a class are adjacent.
        gains: (m,) float64. Store them as float64: rounded gains tie where exact ones do not.
    """

    uid: Array
    latent_class: NDArray[np.int64]
    gains: NDArray[np.float64]


def rank_within_classes(
    pool_part: Pool,
    statistics: ClassStatistics,
    *,
    alpha: float | str = 0.5,
    inter: str = "mean",
    terms: Iterable[str] = TERMS,
    variant: str = "paper",
) -> ClassRankings:
    """Rank every pair of every class in `pool_part`. Classes do not interact, so each is ranked on its own.

    Args:
        pool_part: All pairs of some classes. Reads `image_embeddings`, `text_embeddings`, `latent_class`,
            `class_embeddings`.
        statistics: Of the whole pool.
        alpha: Weight of the label term, or "auto".
        inter: "mean" or "sum" over the other classes.
        terms: Which terms of Eq. (16) count.
        variant: "paper" for greedy by exact gains, "released" for the authors' notebook (see
            `released_order`).

    Raises:
        ValueError: a missing column, an unknown option, or statistics of other classes than those of
            `pool_part`.
    """
    images, texts, latent_class, class_embeddings = pool_part.require(*CLIPCOV_COLUMNS, method="clipcov")
    terms = check_options(alpha=alpha, inter=inter, terms=terms)
    check_variant(variant, inter)
    # Large classes first, so that none of them is left to one core at the end.
    classes = sorted(rows_by_class(pool_part), key=lambda k_rows: -len(k_rows[1]))
    check_statistics(classes, statistics, class_embeddings.shape)
    alpha = resolve_alpha(alpha, statistics)
    linear = terms if variant == "paper" else terms & {"inter"}
    weights = linear_weights(statistics, class_embeddings, alpha=alpha, inter=inter, terms=linear)

    def rank(k: int, rows: Array) -> tuple[Array, Array]:
        pairs = gather_pairs(images, texts, rows)
        if variant == "paper":
            order, gains = paper_order(pairs, weights[k], terms)
        else:
            order, gains = released_order(pairs, weights[k], alpha * class_embeddings[k].astype(np.float64), terms)
        return rows[order], gains

    with ThreadPoolExecutor(os.cpu_count()) as executor:
        ranked = list(executor.map(rank, *zip(*classes, strict=True)))
    rows = np.concatenate([rows for rows, _ in ranked])
    gains = np.concatenate([gains for _, gains in ranked])
    return ClassRankings(pool_part.uid[rows], latent_class[rows], gains)


def merge_class_rankings(class_rankings: Sequence[ClassRankings], budget: int, *, uid: Array) -> Ranking:
    """Take the best head of all class rankings again and again: the greedy order of the whole pool.

    A pair is taken as soon as it and all before it in its class have come up, so heads are taken in the
    order of the running worst (gain, uid) of each class, which a sort finds without a queue.

    Args:
        class_rankings: Parts that together hold each pair of the pool once, and each class in one part.
        budget: Pairs to rank, 1 <= budget <= n.
        uid: (n,) the pool's uids; the ranking holds rows of this array.

    Raises:
        ValueError: `budget` out of range, or the parts do not hold exactly these uids.
    """
    uid = as_uids(uid)
    check_budget(budget, len(uid))
    ranked_uid = as_uids(np.concatenate([part.uid for part in class_rankings]))
    latent_class = np.concatenate([part.latent_class for part in class_rankings])
    gains = np.concatenate([part.gains for part in class_rankings]).astype(np.float64)
    by_uid, ranked_by_uid = np.argsort(uid, kind="stable"), np.argsort(ranked_uid, kind="stable")
    if not np.array_equal(uid[by_uid], ranked_uid[ranked_by_uid]):
        raise ValueError("the class rankings do not hold exactly the pool's uids: rank all classes of this pool")
    n = len(uid)
    uid_rank, rows, place = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    uid_rank[ranked_by_uid] = np.arange(n)
    rows[ranked_by_uid] = by_uid
    place[np.lexsort((uid_rank, -gains))] = np.arange(n)
    starts = np.flatnonzero(np.diff(latent_class, prepend=latent_class[0] - 1))
    if len(starts) != len(np.unique(latent_class)):
        raise ValueError("a latent class is split over the class rankings: keep the rows of a class together")
    run = np.repeat(np.arange(len(starts)), np.diff(starts, append=n)) * n
    worst = np.maximum.accumulate(run + place) - run
    taken = np.argsort(worst, kind="stable")[:budget]
    return Ranking(rows[taken], gains[taken].astype(np.float32))


def check_variant(variant: str, inter: str) -> None:
    """Raises: ValueError: an unknown variant, or one that does not know this `inter`."""
    if variant not in VARIANTS:
        raise ValueError(f"variant is {variant!r}: choose one of {', '.join(VARIANTS)}")
    if variant == "released" and inter != "mean":
        raise ValueError(f'inter is {inter!r}: the released variant knows only inter="mean"')


def check_statistics(classes: Sequence[tuple[int, Array]], statistics: ClassStatistics, shape: tuple[int, int]) -> None:
    """Raises: ValueError: the statistics are of other classes, or these are not all pairs of a class."""
    if statistics.image_sums.shape != shape:
        raise ValueError(
            f"statistics have {statistics.image_sums.shape} classes and width, class_embeddings {shape}: "
            "use one proxy model and one list of classes"
        )
    for k, rows in classes:
        if len(rows) != statistics.counts[k]:
            raise ValueError(
                f"class {k} has {len(rows)} pairs here and {statistics.counts[k]} in the statistics: "
                "rank whole classes, with the statistics of the whole pool"
            )
