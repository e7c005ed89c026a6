"""The whole pool, the upper line of every comparison: uids enter, their order leaves."""

import numpy as np

from clipcov_assets.core.pool import Pool
from clipcov_assets.core.ranking import Ranking, ranking_from_scores


def rank_full(pool: Pool, budget: int, *, seed: int = 0) -> Ranking:
    """Rank pairs by uid, without a preference; meant for a budget of the whole pool.

    Args:
        pool: Reads `uid` alone.
        budget: Pairs to rank, 1 <= budget <= n.
        seed: Not used: nothing is drawn.

    Returns:
        `budget` pool rows in ascending order of uid; gains are 0.

    Raises:
        ValueError: `budget` out of range.
    """
    return ranking_from_scores(pool.uid_rank, np.zeros(len(pool)), budget)
