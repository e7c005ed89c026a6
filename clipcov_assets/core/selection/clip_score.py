"""CLIP score: embeddings enter, pairs from the best matched to the worst leave."""

from clipcov_assets.core.pool import Pool
from clipcov_assets.core.ranking import Ranking, check_budget, ranking_from_scores
from clipcov_assets.core.similarity import pool_clip_scores


def rank_by_clip_score(pool: Pool, budget: int, *, seed: int = 0) -> Ranking:
    """Rank pairs by the cosine of their image and their caption, largest first.

    Args:
        pool: Reads `clip_score`, or else `image_embeddings`, `text_embeddings`.
        budget: Pairs to rank, 1 <= budget <= n.
        seed: Not used: nothing is drawn.

    Returns:
        `budget` pool rows; gains are the cosines.

    Raises:
        ValueError: `budget` out of range, or a missing column.

    Source: arXiv:2403.12267, section 5 (baseline); Hessel et al. 2021, arXiv:2104.08718.
    """
    check_budget(budget, len(pool))
    return ranking_from_scores(pool.uid_rank, pool_clip_scores(pool, method="clip_score"), budget)
