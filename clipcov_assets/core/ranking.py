"""What every method returns: scores or picks enter, a ranking leaves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from clipcov_assets.core.pool import Array


@dataclass(frozen=True, eq=False)
class Ranking:
    """Rows of a pool, best first. The first k rows are the method's subset of size k, for every k.

    Args:
        order: (budget,) int64 rows of the pool, first pick first.
        gains: (budget,) float32, what each pick added when it was picked.
        reasons: What else the method knows of each pick, by name; each (budget,), first pick first.
    """

    order: NDArray[np.int64]
    gains: NDArray[np.float32]
    reasons: Mapping[str, Array] = field(default_factory=dict)


def check_budget(budget: int, n: int) -> None:
    """Raises: ValueError: `budget` is not a whole number from 1 to `n`."""
    if isinstance(budget, bool) or not isinstance(budget, Integral) or not 1 <= budget <= n:
        raise ValueError(f"budget is {budget!r}: it must be a whole number from 1 to the pool's {n} pairs")


def ranking_from_scores(
    uid: Array, scores: Array, budget: int, *, reasons: Mapping[str, Array] | None = None
) -> Ranking:
    """Rank rows from the largest score to the smallest; ties go to the smaller uid.

    Args:
        uid: (n,) uids, or anything that sorts like them.
        scores: (n,) finite numbers; they are the gains.
        budget: Rows to rank, 1 <= budget <= n.
        reasons: What else the method knows of each row, by name; each (n,), in the order of the rows.

    Raises:
        ValueError: `budget` out of range, or a score is not finite.
    """
    check_budget(budget, len(uid))
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    order = np.lexsort((uid, -np.asarray(scores)))[:budget].astype(np.int64)
    picked = {name: reason[order] for name, reason in (reasons or {}).items()}
    return Ranking(order, scores[order].astype(np.float32), picked)
