"""What a selection must know of the whole pool: pairs enter, counts and sums a class leave.

The sums are additive, so each crawl's are computed once and added.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipcov_assets.core.pool import Array, Pool

CLIPCOV_COLUMNS = ("image_embeddings", "text_embeddings", "latent_class", "class_embeddings")


@dataclass(frozen=True, eq=False)
class ClassStatistics:
    """Sums over the pairs of each latent class; `a + b` are those of both pools together, and `- b` takes b out.

    Args:
        counts: (K,) int64 pairs in each class.
        image_sums: (K, d) float64 sum of the image embeddings of each class.
        text_sums: (K, d) float64 sum of the text embeddings of each class.
    """

    counts: NDArray[np.int64]
    image_sums: NDArray[np.float64]
    text_sums: NDArray[np.float64]

    def __add__(self, other: "ClassStatistics") -> "ClassStatistics":
        self._check(other)
        return ClassStatistics(
            self.counts + other.counts,
            self.image_sums + other.image_sums,
            self.text_sums + other.text_sums,
        )

    def __sub__(self, other: "ClassStatistics") -> "ClassStatistics":
        """Take out pairs that were counted, such as those that an earlier crawl had brought already."""
        self._check(other)
        counts = self.counts - other.counts
        inhabited = (counts > 0)[:, None]  # what rounding leaves of an emptied class is nothing
        return ClassStatistics(
            counts,
            np.where(inhabited, self.image_sums - other.image_sums, 0),
            np.where(inhabited, self.text_sums - other.text_sums, 0),
        )

    def _check(self, other: "ClassStatistics") -> None:
        if self.image_sums.shape != other.image_sums.shape:
            raise ValueError(
                f"statistics of {self.image_sums.shape} and {other.image_sums.shape} classes and width "
                "cannot be added: use one proxy model and one list of classes"
            )


def no_statistics(shape: tuple[int, int]) -> ClassStatistics:
    """Return the statistics of no pairs, for K classes of width d."""
    return ClassStatistics(np.zeros(shape[0], np.int64), np.zeros(shape), np.zeros(shape))


def class_statistics(pool: Pool) -> ClassStatistics:
    """Count and sum the pairs of each class.

    Args:
        pool: Reads `image_embeddings`, `text_embeddings`, `latent_class`, `class_embeddings` (for K).

    Raises:
        ValueError: one of these columns is missing.
    """
    images, texts, latent_class, class_embeddings = pool.require(*CLIPCOV_COLUMNS, method="clipcov")
    return sums_by_class(images, texts, latent_class, len(class_embeddings), order=pool.by_uid)


def sums_by_class(
    image_embeddings: Array, text_embeddings: Array, latent_class: Array, classes: int, *, order: Array | None = None
) -> ClassStatistics:
    """Count and sum rows of each class.

    Args:
        image_embeddings: (n, d) rows.
        text_embeddings: (n, d) rows.
        latent_class: (n,) integers in [0, classes).
        classes: K.
        order: (n,) rows in the order in which they are added, which decides the last bits; as they come where None.
    """
    from clipcov_assets.core import kernels

    order = np.arange(len(latent_class)) if order is None else order

    def sums(rows: Array) -> NDArray[np.float64]:
        total = np.zeros((classes, rows.shape[1]))
        kernels.add_rows(total, kernels.readable(rows), latent_class, order)
        return total

    with ThreadPoolExecutor(2) as executor:
        images, texts = executor.map(sums, (image_embeddings, text_embeddings))
    return ClassStatistics(np.bincount(latent_class, minlength=classes), images, texts)
