"""C-RHO: clip scores under two models enter, pairs that the half-trained one has yet to learn leave first."""

from clipcov_assets.core.pool import Pool
from clipcov_assets.core.ranking import Ranking, check_budget, ranking_from_scores
from clipcov_assets.core.similarity import pool_clip_scores


def rank_by_c_rho(pool: Pool, budget: int, *, seed: int = 0) -> Ranking:
    """Rank pairs by their clip score under the proxy minus that under the partial model, largest first.

    No code of the method's authors is public; the sign follows the description, which discards the pairs
    with the smallest difference. The scores are used as they are, without bringing both models to one
    scale.

    Args:
        pool: Reads `partial_clip_score` and `clip_score`, or else `image_embeddings`, `text_embeddings`.
        budget: Pairs to rank, 1 <= budget <= n.
        seed: Not used: nothing is drawn.

    Returns:
        `budget` pool rows; gains are the differences.

    Raises:
        ValueError: `budget` out of range, or a missing column.

    Source: Maini et al. 2023, arXiv:2307.03132, as described in arXiv:2403.12267, section 5.
    """
    check_budget(budget, len(pool))
    (partial,) = pool.require("partial_clip_score", method="c_rho")
    return ranking_from_scores(pool.uid_rank, pool_clip_scores(pool, method="c_rho") - partial, budget)
