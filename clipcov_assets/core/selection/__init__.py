"""The selection methods under one signature: `METHODS[name](pool, budget, *, seed=0, **own) -> Ranking`.

An unknown name raises a ValueError that lists the known ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from clipcov_assets.core.pool import Pool
from clipcov_assets.core.ranking import Ranking
from clipcov_assets.core.selection.c_rho import rank_by_c_rho
from clipcov_assets.core.selection.clip_score import rank_by_clip_score
from clipcov_assets.core.selection.clipcov import rank_by_clipcov
from clipcov_assets.core.selection.full import rank_full
from clipcov_assets.core.selection.metaclip import implied_t, rank_by_metaclip
from clipcov_assets.core.selection.random_order import rank_at_random
from clipcov_assets.core.selection.semdedup import implied_epsilon, rank_by_semdedup
from clipcov_assets.core.statistics import CLIPCOV_COLUMNS


@dataclass(frozen=True)
class Method:
    """One selection method.

    Attributes:
        rank: The function that ranks.
        summary: One sentence on what comes first, for people who choose a method.
        reads: Columns of the pool that it needs beside uid; clip_score stands for what it is computed from.
        threshold: Name of the method's own threshold, and the function that finds the one a subset implies in the
            gain of its last pick; None where a method has no other threshold than that gain.
        reasons: Names of what its rankings hold in `Ranking.reasons`.
    """

    rank: Callable[..., Ranking]
    summary: str
    reads: tuple[str, ...] = ()
    threshold: tuple[str, Callable[[float], float]] | None = None
    reasons: tuple[str, ...] = ()

    def __call__(self, pool: Pool, budget: int, *, seed: int = 0, **own: object) -> Ranking:
        """Rank `budget` pairs of the pool; `own` are the method's own parameters."""
        return self.rank(pool, budget, seed=seed, **own)


class _Methods(dict[str, Method]):
    def __missing__(self, name: str) -> Method:
        raise ValueError(f"unknown selection method {name!r}: choose one of {', '.join(self)}")


METHODS: dict[str, Method] = _Methods(
    {
        "clipcov": Method(
            rank_by_clipcov,
            "Pairs that keep the image-text cross-covariance of every latent class come first.",
            reads=CLIPCOV_COLUMNS,
        ),
        "clip_score": Method(
            rank_by_clip_score,
            "Pairs whose image and caption agree most under the proxy come first.",
            reads=("clip_score",),
        ),
        "c_rho": Method(
            rank_by_c_rho,
            "Pairs that the proxy matches better than a partly trained model come first.",
            reads=("clip_score", "partial_clip_score"),
        ),
        "semdedup": Method(
            rank_by_semdedup,
            "Pairs whose image has no near duplicate before it come first.",
            reads=("image_embeddings",),
            threshold=("epsilon", implied_epsilon),
            reasons=("partner",),
        ),
        "metaclip": Method(
            rank_by_metaclip,
            "Pairs whose caption holds a rare entry of the metadata come first; frequent entries are thinned.",
            reads=("captions",),
            threshold=("t", implied_t),
            reasons=("entry",),
        ),
        "random": Method(rank_at_random, "A seeded shuffle that stays the same for a pair when the pool grows."),
        "full": Method(rank_full, "Every pair, by uid: the upper line of a comparison."),
    }
)


def _with_terms(terms: tuple[str, ...], formula: str) -> Method:
    return Method(
        partial(rank_by_clipcov, terms=terms), f"ClipCov by a part of its objective: {formula}.", reads=CLIPCOV_COLUMNS
    )


# The ablation over the objective, F_cov = F_class + F_self first (arXiv:2403.12267, Table 3).
ABLATIONS: dict[str, Method] = {
    "clipcov_cov": _with_terms(("class", "self"), "F_cov"),
    "clipcov_cov_inter": _with_terms(("class", "self", "inter"), "F_cov + F_inter"),
    "clipcov_cov_inter_reg": _with_terms(("class", "self", "inter", "class_reg"), "F_cov + F_inter - F_class_reg"),
    "clipcov_cov_inter_label": _with_terms(("class", "self", "inter", "label"), "F_cov + F_inter + F_label"),
}
