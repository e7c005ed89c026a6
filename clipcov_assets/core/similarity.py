"""Cross-modal similarity: rows of embeddings enter, clip scores and pairs side by side leave.

Source: arXiv:2403.12267, Definition 4.1.
"""

import numpy as np
from numpy.typing import NDArray

from clipcov_assets.core.pool import Array, Pool

ROWS_AT_ONCE = 8_192


def pool_clip_scores(pool: Pool, *, method: str) -> NDArray[np.float64]:
    """Return the (n,) clip scores of a pool: its column `clip_score`, or else computed from its embeddings.

    Raises:
        ValueError: the pool has neither.
    """
    if pool.clip_score is not None:
        return pool.clip_score
    return clip_scores(*pool.require("image_embeddings", "text_embeddings", method=method))


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


def side_by_side(image_embeddings: Array, text_embeddings: Array, rows: Array | None = None) -> Array:
    """Return (m, 2d) the image and the text embedding of each of `rows`, or of all, side by side.

    float16 stays float16, which halves what a greedy has to read; else float32. With `swap_halves`,
    sim(i, j) = <pairs[i], swap_halves(pairs[j])>: the similarity is bilinear.
    """
    n, d = image_embeddings.shape
    pairs = np.empty((n if rows is None else len(rows), 2 * d), np.result_type(image_embeddings, text_embeddings))
    for half, embeddings in ((pairs[:, :d], image_embeddings), (pairs[:, d:], text_embeddings)):
        half[:] = embeddings if rows is None else embeddings[rows]
    return pairs


def swap_halves(pairs: Array) -> Array:
    """Return (..., 2d) text half, then image half."""
    return np.concatenate(np.split(pairs, 2, axis=-1)[::-1], axis=-1)
