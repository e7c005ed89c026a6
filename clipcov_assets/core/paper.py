"""Algorithm 1 inside latent classes: pairs enter, their greedy order or what double greedy keeps leaves.

Source: arXiv:2403.12267, Algorithm 1.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from clipcov_assets.core.class_pairs import class_loader, on_all_cores
from clipcov_assets.core.objective import TERMS, check_options, linear_weights, membership
from clipcov_assets.core.pool import Array, Pool
from clipcov_assets.core.similarity import swap_halves
from clipcov_assets.core.statistics import CLIPCOV_COLUMNS, class_statistics

FLOOR_MARGIN = 1e-9  # above the rounding of every float64 number that it stands next to


def paper_order(pairs: Array, weight: Array, terms: frozenset[str], budget: int | None = None) -> tuple[Array, Array]:
    """Return the greedy order of one class and its float64 gains; ties go to the earlier row.

    Args:
        pairs: (n, 2d) float16 or float32, all pairs of the class.
        weight: (2d,) float64 row of `linear_weights`.
        terms: Which terms of Eq. (16) count.
        budget: Picks wanted; the whole class where None or more than that.
    """
    from clipcov_assets.core import kernels

    pairs = kernels.readable(pairs)
    mean = kernels.row_sum(pairs) / len(pairs)
    products, similarity, squares = kernels.first_look(pairs, np.stack([weight, swap_halves(mean), mean]))
    penalty = ("class" in terms) / len(pairs)
    base = products[0] + ("self" in terms) * similarity - penalty * similarity / 2
    floors = similarity_floors(mean, products[1], products[2], squares)
    order = np.argsort(-base, kind="stable")
    twins = np.flatnonzero(kernels.equal_to_next(pairs, order))
    twin = np.full(len(pairs), -1)
    twin[order[twins]] = order[twins + 1]
    heap = np.delete(order, twins + 1)
    wanted = len(pairs) if budget is None else min(budget, len(pairs))
    picks: tuple[Array, Array] = kernels.lazy_greedy(pairs, base, penalty, floors, heap, twin, wanted)
    return picks


def class_terms(pairs: Array, weight: Array, count: int, terms: frozenset[str]) -> tuple[Array, Array, float]:
    """Return what each pair adds to F without the quadratic term, its sim(e, e), and that term's factor."""
    from clipcov_assets.core import kernels

    products, similarity, _ = kernels.first_look(pairs, weight[None])
    return products[0] + ("self" in terms) * similarity, similarity, ("class" in terms) / count


def similarity_floors(mean: Array, to_swapped: Array, to_mean: Array, squares: Array) -> NDArray[np.float64]:
    """Return (n,) numbers below every sim(e, s) of each row s, without looking at pairs of rows.

    With m the mean row and m' its halves swapped,
    sim(e, s) = <x_e, m'> + <x_s, m'> - <m, m'> + <x_e - m, x'_s - m'>, and the last product is at least
    minus the product of the two distances. Close classes get high floors, and signed similarities need no
    road of their own.

    Args:
        mean: (2d,) m.
        to_swapped: (n,) <x_e, m'>.
        to_mean: (n,) <x_e, m>.
        squares: (n,) <x_e, x_e>.
    """
    distances = np.sqrt(np.maximum(squares - 2 * to_mean + mean @ mean, 0) + FLOOR_MARGIN)
    floors: Array = to_swapped + to_swapped.min() - mean @ swap_halves(mean) - distances.max() * distances
    return floors - FLOOR_MARGIN


def double_greedy(
    pool: Pool,
    order: Array,
    *,
    alpha: float | str = 0.5,
    inter: str = "mean",
    terms: Iterable[str] = TERMS,
) -> tuple[NDArray[np.int64], int]:
    """Walk over a subset and drop the pairs that it is better off without.

    The paper's text and its Algorithm 1 differ in b: here it is F(S_2 without e) - F(S_2), as in line 14.

    Args:
        pool: Reads `image_embeddings`, `text_embeddings`, `latent_class`, `class_embeddings`.
        order: (m,) distinct rows of the pool, walked in this order.
        alpha: Weight of the label term, or "auto".
        inter: "mean" or "sum" over the other classes.
        terms: Which terms of Eq. (16) count.

    Returns:
        The rows that stay, in their order, and how many were removed.

    Raises:
        ValueError: a missing column, an unknown option, or `order` repeats or leaves the pool.

    Source: arXiv:2403.12267, Algorithm 1, lines 11-20.
    """
    terms = check_options(alpha=alpha, inter=inter, terms=terms)
    chosen = membership(pool, order)
    order = np.asarray(order, np.int64)
    statistics = class_statistics(pool)
    *_, class_embeddings = pool.require(*CLIPCOV_COLUMNS, method="double_greedy")
    weights = linear_weights(statistics, class_embeddings, alpha=alpha, inter=inter, terms=terms)
    step = np.empty(len(pool), np.int64)
    step[order] = np.arange(len(order))
    runs, load = class_loader(pool, chosen)
    stays = np.ones(len(order), bool)

    def walk(run: Sequence[int]) -> None:
        for one in load(run):
            k, steps = one.latent_class, step[pool.by_uid[one.uid]]
            walked = np.argsort(steps)
            stays[steps[walked]] = walk_class(one.pairs[walked], weights[k], int(statistics.counts[k]), terms)

    list(on_all_cores(walk, runs))
    return order[stays], int(len(order) - stays.sum())


def walk_class(pairs: Array, weight: Array, count: int, terms: frozenset[str]) -> NDArray[np.bool_]:
    """Return (m,) whether each pair of a class's subset stays, for pairs in the order of the walk."""
    from clipcov_assets.core import kernels

    pairs = kernels.readable(pairs)
    stays: Array = kernels.double_greedy(pairs, *class_terms(pairs, weight, count, terms))
    return stays
