"""What a subset keeps of its pool: latent classes enter one at a time, additive sums and F_ClipCov leave."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipcov_assets.core.class_pairs import LoadClasses, on_all_cores
from clipcov_assets.core.covariance import cross_products
from clipcov_assets.core.objective import ALPHA, TERMS, class_objective, linear_weights
from clipcov_assets.core.pool import Array
from clipcov_assets.core.statistics import ClassStatistics, no_statistics


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
    runs: Iterable[Sequence[int]],
    load: LoadClasses,
    chosen: Array,
    statistics: ClassStatistics,
    class_embeddings: Array,
) -> SubsetSums:
    """Add up a subset class by class; a core holds one run of classes at a time.

    Args:
        runs: The latent classes that have pairs in the pool, those together that are read together.
        load: Reads all pairs of the classes of a run; their uids are places in `chosen`.
        chosen: (n,) bool, which pairs of the pool are in the subset.
        statistics: Of the whole pool.
        class_embeddings: (K, d) unit rows.

    Source: arXiv:2403.12267, Eq. (6) and Eq. (16), with the defaults of `objective`.
    """
    from clipcov_assets.core import kernels

    terms = frozenset(TERMS)
    weights = linear_weights(statistics, class_embeddings, alpha=ALPHA, inter="mean", terms=terms)
    found = no_statistics(class_embeddings.shape)
    width = class_embeddings.shape[1]

    def add_up(run: Sequence[int]) -> tuple[float, Array]:
        values, products = [], np.zeros((width, width))
        for one in load(run):
            k, pairs = one.latent_class, one.pairs[chosen[one.uid]]
            found.counts[k] = len(pairs)
            found.image_sums[k], found.text_sums[k] = np.split(kernels.row_sum(kernels.readable(pairs)), 2)
            values.append(class_objective(pairs, weights[k], int(statistics.counts[k]), terms))
            products += cross_products(*np.split(pairs, 2, axis=1))
        return math.fsum(values), products

    objective, products = 0.0, np.zeros((width, width))
    for value, part in on_all_cores(add_up, runs):
        objective += value
        products += part
    return SubsetSums(objective, found, products)
