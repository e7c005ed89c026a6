"""From orders inside latent classes to one order of the pool: pairs enter class by class, a ranking leaves.

Source: arXiv:2403.12267, Algorithm 1, lines 6-10.
"""

import ctypes
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from clipcov_assets.core.class_pairs import ClassPairs, LoadClasses, on_all_cores
from clipcov_assets.core.objective import TERMS, check_options, linear_weights, resolve_alpha
from clipcov_assets.core.paper import paper_order
from clipcov_assets.core.pool import Array, as_uids
from clipcov_assets.core.ranking import Ranking, check_budget
from clipcov_assets.core.released import released_order
from clipcov_assets.core.statistics import ClassStatistics

VARIANTS = ("paper", "released")


@dataclass(frozen=True, eq=False)
class ClassRankings:
    """The order of one or more latent classes or its head, one class after the other.

    Args:
        uid: (m,) in the order of picks inside each class.
        latent_class: (m,) int64; the rows of a class are adjacent.
        gains: (m,) float64. Store them as float64: rounded gains tie where exact ones do not.
    """

    uid: Array
    latent_class: NDArray[np.int64]
    gains: NDArray[np.float64]


def rank_classes(
    runs: Iterable[Sequence[int]],
    load: LoadClasses,
    statistics: ClassStatistics,
    class_embeddings: Array,
    *,
    alpha: float | str = 0.5,
    inter: str = "mean",
    terms: Iterable[str] = TERMS,
    variant: str = "paper",
    device: str | None = None,
    budget: int | None = None,
) -> ClassRankings:
    """Rank every pair of some latent classes. Classes do not interact, so each is ranked on its own.

    A core holds one run at a time, the largest first, so memory grows with the largest classes and not with the
    pool. A GPU holds as many classes as fit.

    Args:
        runs: Latent classes, those together that are read together; each has at least one pair.
        load: Reads all pairs of the classes of a run.
        statistics: Of the whole pool.
        class_embeddings: (K, d) unit rows.
        alpha: Weight of the label term, or "auto".
        inter: "mean" or "sum" over the other classes.
        terms: Which terms of Eq. (16) count.
        variant: "paper" for greedy by exact gains, "released" for the authors' notebook (see
            `released_order`), which runs on the cores only.
        device: The torch device that ranks, such as "cuda"; the cores where None.
        budget: Picks wanted of the whole pool, and so at most of a class; every pair where None.

    Raises:
        ValueError: an unknown option, no classes, or statistics of other classes than those that are loaded.
    """
    terms = check_options(alpha=alpha, inter=inter, terms=terms)
    check_variant(variant, inter)
    # Large runs first, so that none of them is left to one core at the end.
    runs = sorted(runs, key=lambda run: (-statistics.counts[list(run)].sum(), *run))
    if not runs:
        raise ValueError("runs is empty: name at least one class that has pairs")
    check_statistics(statistics, class_embeddings)
    alpha = resolve_alpha(alpha, statistics)
    linear = terms if variant == "paper" else terms & {"inter"}
    weights = linear_weights(statistics, class_embeddings, alpha=alpha, inter=inter, terms=linear)

    def load_whole(run: Sequence[int]) -> Iterator[ClassPairs]:
        for loaded in load(run):
            check_whole(loaded, statistics)
            yield loaded

    if device is not None and variant == "paper":
        loaded = chain.from_iterable(on_all_cores(lambda run: list(load_whole(run)), runs))
        return joined(device_rankings(loaded, weights, terms, device))

    def rank(loaded: ClassPairs) -> ClassRankings:
        k = loaded.latent_class
        if variant == "paper":
            order, gains = paper_order(loaded.pairs, weights[k], terms, budget)
        else:
            label = alpha * class_embeddings[k].astype(np.float64)
            order, gains = released_order(loaded.pairs, weights[k], label, terms)
        return ClassRankings(loaded.uid[order], np.full(len(order), k), gains)

    ranked = on_all_cores(lambda run: [rank(loaded) for loaded in load_whole(run)], runs)
    return joined(chain.from_iterable(ranked))


def device_rankings(
    loaded: Iterable[ClassPairs], weights: Array, terms: frozenset[str], device: str
) -> Iterator[ClassRankings]:
    """Yield the order of each class, ranked on a torch device."""
    from clipcov_assets.core.device_greedy import device_orders

    uid: dict[int, Array] = {}

    def classes() -> Iterator[tuple[int, Array, Array]]:
        for one in loaded:
            uid[one.latent_class] = one.uid
            yield one.latent_class, one.pairs, weights[one.latent_class]

    for k, order, gains in device_orders(classes(), terms, device=device):
        yield ClassRankings(uid.pop(k)[order], np.full(len(order), k), gains)


@cache
def accelerator() -> str | None:
    """Return "cuda" where there is a GPU. Without a driver nobody waits for torch, which takes seconds to load."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    import torch

    return "cuda" if torch.cuda.is_available() else None


def joined(parts: Iterable[ClassRankings]) -> ClassRankings:
    """Return the rankings of several classes as one, in the order of the classes."""
    parts = sorted(parts, key=lambda part: part.latent_class[0])
    return ClassRankings(
        np.concatenate([part.uid for part in parts]),
        np.concatenate([part.latent_class for part in parts]),
        np.concatenate([part.gains for part in parts]),
    )


def merge_class_rankings(class_rankings: Sequence[ClassRankings], budget: int, *, uid: Array) -> Ranking:
    """Take the best head of all class rankings again and again: the greedy order of the whole pool.

    A pair is taken as soon as it and all before it in its class have come up, so heads are taken in the
    order of the running worst (gain, uid) of each class, which a sort finds without a queue.

    Args:
        class_rankings: Parts that hold each class once, complete or with at least its first `budget` picks.
        budget: Pairs to rank, 1 <= budget <= n.
        uid: (n,) the pool's uids; the ranking holds rows of this array.

    Raises:
        ValueError: `budget` out of range, or the parts hold fewer pairs, a pair twice, or one of another pool.
    """
    uid = as_uids(uid)
    check_budget(budget, len(uid))
    ranked_uid = as_uids(np.concatenate([part.uid for part in class_rankings]))
    latent_class = np.concatenate([part.latent_class for part in class_rankings])
    gains = np.concatenate([part.gains for part in class_rankings]).astype(np.float64)
    uid_rank, rows = places_in_pool(ranked_uid, uid, budget)
    n = len(ranked_uid)
    place = np.empty(n, np.int64)
    place[np.lexsort((uid_rank, -gains))] = np.arange(n)
    starts = np.flatnonzero(np.diff(latent_class, prepend=latent_class[0] - 1))
    if len(starts) != len(np.unique(latent_class)):
        raise ValueError("a latent class is split over the class rankings: keep the rows of a class together")
    run = np.repeat(np.arange(len(starts)), np.diff(starts, append=n)) * n
    worst = np.maximum.accumulate(run + place) - run
    taken = np.argsort(worst, kind="stable")[:budget]
    return Ranking(rows[taken], gains[taken].astype(np.float32))


def places_in_pool(ranked: Array, uid: Array, budget: int) -> tuple[Array, Array]:
    """Return place among the ascending uids, and row, of each ranked uid.

    Raises:
        ValueError: there are fewer than `budget`, one is ranked twice, or one is not the pool's.
    """
    if len(ranked) < budget:
        raise ValueError(f"the class rankings hold {len(ranked)} pairs, not {budget}: rank all classes of this pool")
    by_uid, by_ranked = np.argsort(uid, kind="stable"), np.argsort(ranked, kind="stable")
    places = np.empty(len(ranked), np.int64)
    places[by_ranked] = np.minimum(np.searchsorted(uid[by_uid], ranked[by_ranked]), len(uid) - 1)
    rows: Array = by_uid[places]
    strange = np.flatnonzero(uid[rows] != ranked)
    if strange.size:
        raise ValueError(f"the class rankings hold uid {ranked[strange[0]].item()!r}, which the pool does not")
    if np.bincount(places, minlength=1).max() > 1:
        raise ValueError("the class rankings hold a pair twice: pass each class once")
    return places, rows


def check_variant(variant: str, inter: str) -> None:
    """Raises: ValueError: an unknown variant, or one that does not know this `inter`."""
    if variant not in VARIANTS:
        raise ValueError(f"variant is {variant!r}: choose one of {', '.join(VARIANTS)}")
    if variant == "released" and inter != "mean":
        raise ValueError(f'inter is {inter!r}: the released variant knows only inter="mean"')


def check_statistics(statistics: ClassStatistics, class_embeddings: Array) -> None:
    """Raises: ValueError: the statistics are of other classes."""
    if statistics.image_sums.shape != class_embeddings.shape:
        raise ValueError(
            f"statistics have {statistics.image_sums.shape} classes and width, class_embeddings "
            f"{class_embeddings.shape}: use one proxy model and one list of classes"
        )


def check_whole(loaded: ClassPairs, statistics: ClassStatistics) -> None:
    """Raises: ValueError: these are not all pairs of their class, or they are of another width."""
    k, width = loaded.latent_class, 2 * statistics.image_sums.shape[1]
    if len(loaded) != statistics.counts[k]:
        raise ValueError(
            f"class {k} has {len(loaded)} pairs here and {statistics.counts[k]} in the statistics: "
            "rank whole classes, with the statistics of the whole pool"
        )
    if loaded.pairs.shape[1] != width:
        raise ValueError(
            f"class {k} has pairs of width {loaded.pairs.shape[1]}, the statistics are of {width}: "
            "use one proxy model for all of them"
        )
