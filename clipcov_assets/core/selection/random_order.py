"""Random selection: a seed and uids enter, an order that grows with the pool leaves."""

from clipcov_assets.core.draws import uniform
from clipcov_assets.core.pool import Pool
from clipcov_assets.core.ranking import Ranking, ranking_from_scores


def rank_at_random(pool: Pool, budget: int, *, seed: int = 0) -> Ranking:
    """Rank pairs by a uniform draw that depends on the seed and the uid alone.

    New pairs slip in between the old ones, which keep their order among themselves.

    Args:
        pool: Reads `uid` alone.
        budget: Pairs to rank, 1 <= budget <= n.
        seed: Another seed, another order.

    Returns:
        `budget` pool rows; gains are minus the draws, in (-1, 0].

    Raises:
        ValueError: `budget` out of range.
    """
    return ranking_from_scores(pool.uid_rank, -uniform(seed, pool.uid), budget)
