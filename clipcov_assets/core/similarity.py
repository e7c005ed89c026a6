"""Cross-modal similarity: rows of embeddings enter, clip scores and gathered pairs leave.

Source: arXiv:2403.12267, Definition 4.1.
"""

import numpy as np
from numpy.typing import NDArray

from clipcov_assets.core.pool import Array

ROWS_AT_ONCE = 8_192


def clip_scores(image_embeddings: Array, text_embeddings: Array) -> NDArray[np.float64]:
    """Return (n,) cosines of each image with its own caption; sim(i, i) is twice that.

    Each row is summed on its own, so that equal rows have equal scores to the last bit.

    Args:
        image_embeddings: (n, d) unit rows.
        text_embeddings: (n, d) unit rows.
    """
    scores = np.empty(len(image_embeddings))
    for start in range(0, len(scores), ROWS_AT_ONCE):
        block = slice(start, start + ROWS_AT_ONCE)
        products = np.multiply(image_embeddings[block], text_embeddings[block], dtype=np.float64)
        scores[block] = products.sum(axis=1)
    return scores


def gather_pairs(image_embeddings: Array, text_embeddings: Array, rows: Array) -> NDArray[np.float32]:
    """Return (m, 2d) the image and the text embedding of each of `rows`, side by side.

    With `swap_halves`, sim(i, j) = <pairs[i], swap_halves(pairs[j])>: the similarity is bilinear.
    """
    d = image_embeddings.shape[1]
    pairs = np.empty((len(rows), 2 * d), np.float32)
    pairs[:, :d] = image_embeddings[rows]
    pairs[:, d:] = text_embeddings[rows]
    return pairs


def swap_halves(pairs: Array) -> Array:
    """Return (..., 2d) text half, then image half."""
    return np.concatenate(np.split(pairs, 2, axis=-1)[::-1], axis=-1)
