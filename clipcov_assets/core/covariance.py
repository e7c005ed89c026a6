"""How well a subset keeps the cross-covariance of a pool: embeddings and rows enter, one number leaves."""

import math

import numpy as np
from numpy.typing import NDArray

from clipcov_assets.core.pool import Array

ROWS_AT_ONCE = 8_192


def cross_covariance_error(image_embeddings: Array, text_embeddings: Array, order: Array) -> float:
    """Return the relative Frobenius distance between the cross-covariances of a subset and of its pool.

    Args:
        image_embeddings: (n, d) unit rows.
        text_embeddings: (n, d) unit rows.
        order: (budget,) rows of the subset.

    Returns:
        ||C_S - C_V|| / ||C_V||: 0 for the whole pool; infinite if the pool does not vary and the subset does.

    Source: arXiv:2403.12267, Eq. (6).
    """
    pool = cross_covariance(image_embeddings, text_embeddings, np.arange(len(image_embeddings)))
    distance = float(np.linalg.norm(cross_covariance(image_embeddings, text_embeddings, np.asarray(order)) - pool))
    norm = float(np.linalg.norm(pool))
    if norm == 0:
        return math.inf if distance else 0.0
    return distance / norm


def cross_covariance(image_embeddings: Array, text_embeddings: Array, rows: Array) -> NDArray[np.float64]:
    """Return (d, d) the centred cross-covariance of images and captions over `rows`."""
    if not len(rows):
        raise ValueError("order is empty: a cross-covariance needs at least one pair")
    d = image_embeddings.shape[1]
    products, image_sum, text_sum = np.zeros((d, d)), np.zeros(d), np.zeros(d)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        images = image_embeddings[rows[start : start + ROWS_AT_ONCE]].astype(np.float64)
        texts = text_embeddings[rows[start : start + ROWS_AT_ONCE]].astype(np.float64)
        products += images.T @ texts
        image_sum += images.sum(axis=0)
        text_sum += texts.sum(axis=0)
    return products / len(rows) - np.outer(image_sum, text_sum) / len(rows) ** 2
