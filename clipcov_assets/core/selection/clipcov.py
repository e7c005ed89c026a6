"""ClipCov: embeddings, latent classes and class embeddings enter, the greedy order of F_ClipCov leaves."""

from collections.abc import Iterable

from clipcov_assets.core.class_pairs import class_loader
from clipcov_assets.core.greedy import accelerator, check_variant, merge_class_rankings, rank_classes
from clipcov_assets.core.objective import TERMS, check_options
from clipcov_assets.core.pool import Pool
from clipcov_assets.core.ranking import Ranking, check_budget
from clipcov_assets.core.statistics import CLIPCOV_COLUMNS, class_statistics


def rank_by_clipcov(
    pool: Pool,
    budget: int,
    *,
    seed: int = 0,
    alpha: float | str = 0.5,
    inter: str = "mean",
    terms: Iterable[str] = TERMS,
    variant: str = "paper",
) -> Ranking:
    """Rank pairs by how much they help a subset to keep the pool's cross-covariance, largest gain first.

    The order equals that of a naive greedy in float64, for similarities of any sign. A GPU ranks where there is one;
    there, different pairs whose gains differ by rounding alone may change places.

    Args:
        pool: Reads `image_embeddings`, `text_embeddings`, `latent_class`, `class_embeddings`.
        budget: Pairs to rank, 1 <= budget <= n.
        seed: Not used: greedy draws nothing.
        alpha: Weight of the label term; 0.5 as in the paper, or "auto" for the ratio that the paper defines
            it by.
        inter: "mean" divides F_inter by the number of other classes, "sum" is the paper's literal reading.
        terms: Which terms of Eq. (16) count, any of `TERMS`.
        variant: "paper", or "released" for the authors' notebook.

    Returns:
        `budget` pool rows in pick order; gains are the marginal gains of F ("released": the scores at the
        pick).

    Raises:
        ValueError: `budget` out of range, a missing column, or an unknown option.

    Source: arXiv:2403.12267, Eq. (16) and Algorithm 1, lines 6-10.
    """
    check_budget(budget, len(pool))
    check_variant(variant, inter)
    terms = check_options(alpha=alpha, inter=inter, terms=terms)
    *_, class_embeddings = pool.require(*CLIPCOV_COLUMNS, method="clipcov")
    runs, load = class_loader(pool)
    ranked = rank_classes(
        runs,
        load,
        class_statistics(pool),
        class_embeddings,
        alpha=alpha,
        inter=inter,
        terms=terms,
        variant=variant,
        device=accelerator(),
        budget=budget,
    )
    return merge_class_rankings([ranked], budget, uid=pool.uid_rank)
