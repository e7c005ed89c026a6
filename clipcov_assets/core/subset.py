"""What a subset keeps of its pool: latent classes enter one at a time, additive sums and F_ClipCov leave."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipcov_assets.core.class_pairs import LoadClass, on_all_cores
from clipcov_assets.core.covariance import cross_products
from clipcov_assets.core.objective import TERMS, check_options, class_objective, linear_weights
from clipcov_assets.core.pool import Array
from clipcov_assets.core.statistics import ClassStatistics, no_statistics, sums_by_class


@dataclass(frozen=True, eq=False)
class SubsetSums:
    """Sums over the pairs of a subset.

    Args:
        objective: F_ClipCov of the subset in its pool.
        statistics: Counts and sums of its pairs in each class.
        products: (d, d) cross products of its pairs.
    """

    objective: float
    statistics: ClassStatistics
    products: NDArray[np.float64]


def subset_sums(
    latent_classes: Iterable[int],
    load: LoadClass,
    chosen: Callable[[int], Array],
    statistics: ClassStatistics,
    class_embeddings: Array,
    *,
    alpha: float | str = 0.5,
    inter: str = "mean",
    terms: Iterable[str] = TERMS,
) -> SubsetSums:
    """Add up a subset class by class; a core holds one class at a time.

    Args:
        latent_classes: Those that have pairs in the pool.
        load: Reads all pairs of one of them.
        chosen: Tells which of a class's pairs, in their order, are in the subset: (n_k,) bool.
        statistics: Of the whole pool.
        class_embeddings: (K, d) unit rows.
        alpha: Weight of the label term, or "auto".
        inter: "mean" or "sum" over the other classes.
        terms: Which terms of Eq. (16) count.

    Raises:
        ValueError: an unknown option.
    """
    terms = check_options(alpha=alpha, inter=inter, terms=terms)
    weights = linear_weights(statistics, class_embeddings, alpha=alpha, inter=inter, terms=terms)
    classes, width = class_embeddings.shape

    def add_up(k: int) -> SubsetSums:
        pairs = load(k).pairs[chosen(k)]
        images, texts = np.split(pairs, 2, axis=1)
        return SubsetSums(
            class_objective(pairs, weights[k], int(statistics.counts[k]), terms),
            sums_by_class(images, texts, np.full(len(pairs), k), classes),
            cross_products(images, texts),
        )

    values, total, products = [], no_statistics((classes, width)), np.zeros((width, width))
    for one in on_all_cores(add_up, latent_classes):
        values.append(one.objective)
        total += one.statistics
        products += one.products
    return SubsetSums(math.fsum(values), total, products)
