"""What a selection must know of the whole pool: pairs enter, counts and sums a class leave.

The sums are additive, so each crawl's are computed once and added.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipcov_assets.core.pool import Pool, rows_by_class

CLIPCOV_COLUMNS = ("image_embeddings", "text_embeddings", "latent_class", "class_embeddings")


@dataclass(frozen=True, eq=False)
class ClassStatistics:
    """Sums over the pairs of each latent class; `a + b` is the statistics of both pools together.

    Args:
        counts: (K,) int64 pairs in each class.
        image_sums: (K, d) float64 sum of the image embeddings of each class.
        text_sums: (K, d) float64 sum of the text embeddings of each class.
    """

    counts: NDArray[np.int64]
    image_sums: NDArray[np.float64]
    text_sums: NDArray[np.float64]

    def __add__(self, other: "ClassStatistics") -> "ClassStatistics":
        if self.image_sums.shape != other.image_sums.shape:
            raise ValueError(
                f"statistics of {self.image_sums.shape} and {other.image_sums.shape} classes and width "
                "cannot be added: use one proxy model and one list of classes"
            )
        return ClassStatistics(
            self.counts + other.counts,
            self.image_sums + other.image_sums,
            self.text_sums + other.text_sums,
        )


def class_statistics(pool: Pool) -> ClassStatistics:
    """Count and sum the pairs of each class.

    Args:
        pool: Reads `image_embeddings`, `text_embeddings`, `latent_class`, `class_embeddings` (for K).

    Raises:
        ValueError: one of these columns is missing.
    """
    images, texts, latent_class, class_embeddings = pool.require(*CLIPCOV_COLUMNS, method="clipcov")
    statistics = ClassStatistics(
        np.bincount(latent_class, minlength=len(class_embeddings)),
        np.zeros(class_embeddings.shape),
        np.zeros(class_embeddings.shape),
    )
    for k, rows in rows_by_class(pool):
        statistics.image_sums[k] = images[rows].sum(axis=0, dtype=np.float64)
        statistics.text_sums[k] = texts[rows].sum(axis=0, dtype=np.float64)
    return statistics
