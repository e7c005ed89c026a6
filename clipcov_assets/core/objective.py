"""F_ClipCov as a linear weight and a quadratic penalty a class: class statistics enter, values of sets leave.

For a class of n_k pairs with x_e = (image, text) of pair e, X_S the sum of x_e over S_k, V_S and L_S its
    halves: F_k(S) = <X_S, w_k> + [self] sum over S_k of sim(e, e) - [class] <V_S, L_S> / n_k
because sim is bilinear; w_k collects every term that is linear in S.

Source: arXiv:2403.12267, Eq. (16) and the unnumbered definitions above it.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from clipcov_assets.core.class_pairs import class_loader, on_all_cores
from clipcov_assets.core.pool import Array, Pool
from clipcov_assets.core.statistics import CLIPCOV_COLUMNS, ClassStatistics, class_statistics

TERMS = ("class", "self", "label", "class_reg", "inter")
INTER = ("mean", "sum")
ALPHA = 0.5


def objective(
    pool: Pool,
    order: Array,
    *,
    alpha: float | str = ALPHA,
    inter: str = "mean",
    terms: Iterable[str] = TERMS,
) -> float:
    """Return F_ClipCov of the set of rows `order`; the sum of the greedy gains equals it.

    Args:
        pool: Reads `image_embeddings`, `text_embeddings`, `latent_class`, `class_embeddings`.
        order: (m,) distinct rows of the pool, in any order.
        alpha: Weight of the label term, or "auto" (see `resolve_alpha`).
        inter: "mean" or "sum" over the other classes (see `linear_weights`).
        terms: Which terms of Eq. (16) count.

    Raises:
        ValueError: a missing column, an unknown option, or `order` repeats or leaves the pool.
    """
    terms = check_options(alpha=alpha, inter=inter, terms=terms)
    chosen = membership(pool, order)
    statistics = class_statistics(pool)
    *_, class_embeddings = pool.require(*CLIPCOV_COLUMNS, method="objective")
    weights = linear_weights(statistics, class_embeddings, alpha=alpha, inter=inter, terms=terms)
    runs, load = class_loader(pool, chosen)

    def values(run: Sequence[int]) -> list[float]:
        counts = statistics.counts
        return [
            class_objective(one.pairs, weights[one.latent_class], int(counts[one.latent_class]), terms)
            for one in load(run)
        ]

    return math.fsum(chain.from_iterable(on_all_cores(values, runs)))  # exact, as the classes come in any order


def class_objective(pairs: Array, weight: Array, count: int, terms: frozenset[str]) -> float:
    """Return F_k of pairs of one class.

    Args:
        pairs: (m, 2d) float16 or float32, the pairs of the subset.
        weight: (2d,) float64 row of `linear_weights`.
        count: n_k, the pairs of the class in the pool.
        terms: Which terms of Eq. (16) count.
    """
    from clipcov_assets.core import kernels

    pairs = kernels.readable(pairs)
    total = kernels.row_sum(pairs)
    image_sum, text_sum = np.split(total, 2)
    value = float(total @ weight)
    if "self" in terms:
        value += float(kernels.first_look(pairs, weight[None])[1].sum())
    if "class" in terms:
        value -= float(image_sum @ text_sum) / count
    return value


def linear_weights(
    statistics: ClassStatistics,
    class_embeddings: Array,
    *,
    alpha: float | str,
    inter: str,
    terms: frozenset[str],
) -> NDArray[np.float64]:
    """Return (K, 2d) w_k: <x_e, w_k> is what pair e of class k adds, but for sim(e, e) and the penalty.

    F_inter divides by nothing in the paper, although its text speaks of an average; over hundreds of
    classes that sum drowns every other term. "mean" divides it by the number of other classes, "sum" is the
    literal reading. Classes without pairs have no mean and do not count.
    """
    alpha = resolve_alpha(alpha, statistics)
    counts = np.maximum(statistics.counts, 1)[:, None]
    # <x_e, means[k]> is the mean similarity of e to class k
    means = np.concatenate([statistics.text_sums, statistics.image_sums], axis=1) / counts
    weights = np.zeros_like(means)
    if "class" in terms:
        weights += means
    if "class_reg" in terms:
        weights -= means / counts
    if "label" in terms:
        weights[:, means.shape[1] // 2 :] += alpha * (1 - 1 / counts) * class_embeddings.astype(np.float64)
    if "inter" in terms:
        others = max(np.count_nonzero(statistics.counts) - 1, 1) if inter == "mean" else 1
        weights -= (means.sum(axis=0) - means) / others
    return weights


def resolve_alpha(alpha: float | str, statistics: ClassStatistics) -> float:
    """Return `alpha` as a number; "auto" is the average cross-modal over the average text similarity.

    The paper does not say over which pairs it averages, nor whether the cross-modal similarity is one
    cosine or the two of Definition 4.1, and reports about 1/2. Here both averages run over all (i, j), i =
    j included, and the cross-modal similarity is sim(i, j), the sum of both cosines.

    Raises:
        ValueError: "auto", and the captions' average similarity is 0.
    """
    if alpha != "auto":
        return float(alpha)
    image_sum, text_sum = statistics.image_sums.sum(axis=0), statistics.text_sums.sum(axis=0)
    text_similarity = float(text_sum @ text_sum)
    if text_similarity == 0:
        raise ValueError('alpha="auto" divides by the average text similarity, which is 0: pass a number')
    return 2 * float(image_sum @ text_sum) / text_similarity


def check_options(*, alpha: float | str, inter: str, terms: Iterable[str]) -> frozenset[str]:
    """Check the options of F_ClipCov, and return the terms as a set.

    Raises:
        ValueError: `alpha` is neither a finite number nor "auto", `inter` is unknown, or `terms` is empty or
            has one that Eq. (16) does not have.
    """
    if alpha != "auto" and (isinstance(alpha, bool) or not isinstance(alpha, Real) or not np.isfinite(alpha)):
        raise ValueError(f'alpha is {alpha!r}: pass a finite number or "auto"')
    if inter not in INTER:
        raise ValueError(f"inter is {inter!r}: choose one of {', '.join(INTER)}")
    chosen = frozenset([terms] if isinstance(terms, str) else terms)
    unknown = sorted(map(str, chosen.difference(TERMS)))
    if unknown or not chosen:
        found = f"unknown {', '.join(unknown)}" if unknown else "empty"
        raise ValueError(f"terms: {found}; choose any of {', '.join(TERMS)}")
    return chosen


def membership(pool: Pool, order: Array) -> NDArray[np.bool_]:
    """Return (n,) whether each row of the pool is in `order`.

    Raises:
        ValueError: `order` is not a row of distinct rows of the pool.
    """
    order = np.asarray(order)
    if order.ndim != 1 or (order.dtype.kind not in "iu" and order.size):
        raise ValueError(f"order must be a row of integers, not {order.dtype} {order.shape}")
    outside = order[(order < 0) | (order >= len(pool))]
    if outside.size:
        raise ValueError(f"order: row {outside[0]} is outside the pool of {len(pool)} pairs")
    chosen = np.zeros(len(pool), bool)
    chosen[order.astype(np.int64)] = True
    if chosen.sum() != len(order):
        raise ValueError("order repeats a row: a subset holds each pair once")
    return chosen
