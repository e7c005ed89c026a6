"""How well a subset keeps the cross-covariance of a pool: embeddings enter, additive products and one number leave."""

import math

import numpy as np
from numpy.typing import NDArray

from clipcov_assets.core.pool import Array
from clipcov_assets.core.statistics import ClassStatistics

ROWS_AT_ONCE = 8_192


def cross_products(image_embeddings: Array, text_embeddings: Array) -> NDArray[np.float64]:
    """Return (d, d) the sum of outer products of each image with its caption; those of two pools add up.

    Args:
        image_embeddings: (n, d) unit rows.
        text_embeddings: (n, d) unit rows.
    """
    d = image_embeddings.shape[1]
    products = np.zeros((d, d))
    for start in range(0, len(image_embeddings), ROWS_AT_ONCE):
        block = slice(start, start + ROWS_AT_ONCE)
        # float64, because the product of the means is taken off again and is much larger than what is left.
        products += image_embeddings[block].astype(np.float64).T @ text_embeddings[block].astype(np.float64)
    return products


def cross_covariance(products: Array, statistics: ClassStatistics) -> NDArray[np.float64]:
    """Return (d, d) the centred cross-covariance of images and captions.

    Args:
        products: (d, d) `cross_products` of some pairs.
        statistics: Of the same pairs.

    Raises:
        ValueError: there are no pairs.

    Source: arXiv:2403.12267, Eq. (6).
    """
    n = int(statistics.counts.sum())
    if not n:
        raise ValueError("no pairs: a cross-covariance needs at least one")
    means = statistics.image_sums.sum(axis=0) / n, statistics.text_sums.sum(axis=0) / n
    covariance: NDArray[np.float64] = products / n - np.outer(*means)
    return covariance


def cross_covariance_error(subset: Array, pool: Array) -> float:
    """Return the relative Frobenius distance between the cross-covariances of a subset and of its pool.

    Args:
        subset: (d, d) `cross_covariance` of the subset.
        pool: (d, d) `cross_covariance` of the pool.

    Returns:
        ||C_S - C_V|| / ||C_V||: 0 for the whole pool; infinite if the pool does not vary and the subset does.

    Source: arXiv:2403.12267, Eq. (6).
    """
    distance, norm = float(np.linalg.norm(subset - pool)), float(np.linalg.norm(pool))
    if norm == 0:
        return math.inf if distance else 0.0
    return distance / norm
