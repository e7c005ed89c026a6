"""What changed between two subsets: pairs and their latent classes enter, counts of kept, added and dropped leave."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipcov_assets.core.pool import Array


@dataclass(frozen=True, eq=False)
class Churn:
    """Pairs of two subsets, counted by latent class.

    Args:
        latent_class: (c,) the classes that either subset holds pairs of, ascending.
        kept: (c,) pairs that both subsets hold.
        added: (c,) pairs that only the later subset holds.
        below_the_cut: (c,) pairs that only the earlier subset holds, though the pool still has them.
        withdrawn: (c,) pairs that only the earlier subset holds, because the pool has them no more.
    """

    latent_class: Array
    kept: NDArray[np.int64]
    added: NDArray[np.int64]
    below_the_cut: NDArray[np.int64]
    withdrawn: NDArray[np.int64]

    @property
    def dropped(self) -> NDArray[np.int64]:
        """(c,) pairs that only the earlier subset holds, for either reason."""
        return self.below_the_cut + self.withdrawn

    @property
    def before(self) -> NDArray[np.int64]:
        """(c,) pairs of the earlier subset."""
        return self.kept + self.dropped

    @property
    def now(self) -> NDArray[np.int64]:
        """(c,) pairs of the later subset."""
        return self.kept + self.added

    @property
    def kept_share(self) -> float:
        """Share of the earlier subset that the later one holds, too, in [0, 1]; 1 where there was nothing to keep."""
        return _share(self.kept, self.before)

    @property
    def jaccard(self) -> float:
        """Jaccard index: pairs of both subsets over pairs of either, in [0, 1]; 1 where the subsets are equal."""
        return _share(self.kept, self.before + self.added)

    def most_changed(self, most: int) -> list[int]:
        """Rows of the classes with added or dropped pairs, those with most of them first."""
        changes = self.added + self.dropped
        return [row for row in np.argsort(-changes, kind="stable")[:most].tolist() if changes[row]]


def churn(
    before: Array,
    now: Array,
    *,
    class_before: Array,
    class_now: Array,
    in_pool: Array,
) -> Churn:
    """Compare two subsets.

    Args:
        before: (m,) pairs of the earlier subset, each once: their uids, or numbers that stand for these.
        now: (n,) pairs of the later subset, likewise.
        class_before: (m,) integers, the latent classes of the earlier subset's pairs; a pair that both hold counts
            for its class of now.
        class_now: (n,) integers, the latent classes of the later subset's pairs.
        in_pool: (m,) bool, which pairs of the earlier subset the pool still has; those of the later subset are in it.
    """
    kept, stayed = np.isin(now, before), np.isin(before, now)
    parts = (class_now[kept], class_now[~kept], class_before[~stayed & in_pool], class_before[~stayed & ~in_pool])
    latent_class = np.unique(np.concatenate(parts))
    return Churn(latent_class, *(_counts(latent_class, part) for part in parts))


def _counts(latent_class: Array, part: Array) -> NDArray[np.int64]:
    return np.bincount(np.searchsorted(latent_class, part), minlength=len(latent_class))


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> float:
    return float(part.sum() / whole.sum()) if whole.any() else 1.0
