"""How far one pool is from another: counts and sums of the latent classes enter, distances leave.

Three measures, each 0 for equal pools: of how often the classes come (their shares), of what their images and
captions are like (their centres), and of how images and captions vary together (the cross-covariance). Two random
parts of one pool differ, too: that luck of the draw shrinks as the pairs of the smaller side grow, so compare a
distance with those of other crawls of about the size.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from clipcov_assets.core.covariance import cross_covariance, cross_covariance_error
from clipcov_assets.core.statistics import ClassStatistics

Numbers = NDArray[np.float64]

ROUNDED = 12  # digits


@dataclass(frozen=True, eq=False)
class PoolSums:
    """What is added up over the pairs of a pool; `a - b` are the sums of the pairs that a has and b has not.

    Args:
        statistics: Counts and sums of its K latent classes.
        products: (d, d) `cross_products` of its pairs.
    """

    statistics: ClassStatistics
    products: Numbers

    def __sub__(self, other: "PoolSums") -> "PoolSums":
        """Take out the pairs of a pool that this one holds."""
        return PoolSums(self.statistics - other.statistics, self.products - other.products)


@dataclass(frozen=True, eq=False)
class Drift:
    """Distances between two pools whose embeddings are by one proxy and whose latent classes are the same.

    Args:
        before: The one pool.
        now: The other one.

    Raises:
        ValueError: One of them has no pairs, or they differ in the number of classes or in the width.
    """

    before: PoolSums
    now: PoolSums

    def __post_init__(self) -> None:
        """Check that the pools can be compared."""
        shapes = [one.statistics.image_sums.shape for one in (self.before, self.now)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"pools of {shapes[0]} and {shapes[1]} classes and width cannot be compared: "
                "use one proxy model and one list of classes"
            )
        if not all(one.statistics.counts.any() for one in (self.before, self.now)):
            raise ValueError("a pool without pairs cannot be compared: its classes have no shares")

    @cached_property
    def share_changes(self) -> Numbers:
        """(K,) share of each class now minus before, in [-1, 1]; they add up to 0."""
        before, now = self._shares
        return now - before

    @property
    def class_shares(self) -> float:
        """Total variation distance between the shares of the classes.

        Returns:
            sum |p_k - q_k| / 2, in [0, 1]: the share of one pool that would have to change class to give the other.
        """
        return float(np.abs(self.share_changes).sum() / 2)

    @cached_property
    def image_distances(self) -> Numbers:
        """(K,) cosine distance of each class's two mean images, in [0, 2]; nan where a side has no pairs of it."""
        return self._distances(self.before.statistics.image_sums, self.now.statistics.image_sums)

    @cached_property
    def text_distances(self) -> Numbers:
        """(K,) the same of the mean captions."""
        return self._distances(self.before.statistics.text_sums, self.now.statistics.text_sums)

    @property
    def image_centres(self) -> float:
        """How far the mean images of the classes have moved.

        Returns:
            Mean over classes of the cosine distance (1 - cosine) of the class's two means, in [0, 2]; nan where no
            class has pairs on both sides. A class weighs as the smaller of its two shares, which together are 1 minus
            the total variation distance: one that is rare on a side, where its mean is luck, hardly counts.
        """
        return self._mean(self.image_distances)

    @property
    def text_centres(self) -> float:
        """How far the mean captions of the classes have moved: the same of the texts."""
        return self._mean(self.text_distances)

    @property
    def cross_covariance(self) -> float:
        """How far the cross-covariance of images and captions has moved.

        Returns:
            ||C_now - C_before|| / ||C_before|| in the Frobenius norm, from 0 on and without an upper bound; infinite
            if the pool before does not vary.

        Source: the error of a subset in arXiv:2403.12267, Eq. (6), between two pools.
        """
        before, now = (cross_covariance(one.products, one.statistics) for one in (self.before, self.now))
        return cross_covariance_error(now, before)

    def gained(self, most: int) -> list[int]:
        """The classes whose share has grown, those that grew most first."""
        return [k for k in _largest(self.share_changes, most) if self.share_changes[k] > 0]

    def lost(self, most: int) -> list[int]:
        """The classes whose share has shrunk, those that shrank most first."""
        return [k for k in _largest(-self.share_changes, most) if self.share_changes[k] < 0]

    def moved(self, most: int) -> list[int]:
        """The classes whose mean images or captions have moved, those first that move the pool most.

        That is the larger of the two distances times the weight of the class in the mean over classes.
        """
        push = self._weights * np.nan_to_num(np.maximum(self.image_distances, self.text_distances))
        return [k for k in _largest(push, most) if push[k] > 0]

    @property
    def _shares(self) -> tuple[Numbers, Numbers]:
        before, now = (one.statistics.counts / one.statistics.counts.sum() for one in (self.before, self.now))
        return before, now

    @property
    def _weights(self) -> Numbers:
        weights: Numbers = np.minimum(*self._shares)
        return weights

    def _distances(self, before: Numbers, now: Numbers) -> Numbers:
        norms = np.linalg.norm(before, axis=1) * np.linalg.norm(now, axis=1)
        # The cosine of two means is that of the sums. Where one side sums to nothing, the two have nothing in common.
        cosines = np.divide((before * now).sum(axis=1), norms, out=np.zeros(len(norms)), where=norms > 0)
        # What rounding leaves between equal means is no distance.
        return np.where(self._weights > 0, np.clip(np.round(1 - cosines, ROUNDED), 0, 2), np.nan)

    def _mean(self, distances: Numbers) -> float:
        both = self._weights > 0
        return float(np.average(distances[both], weights=self._weights[both])) if both.any() else float("nan")


def _largest(values: Numbers, most: int) -> list[int]:
    """Places of the largest values, of equal ones the first."""
    largest: list[int] = np.argsort(-values, kind="stable")[:most].tolist()
    return largest
