"""The order that the authors' notebook makes of one latent class: pairs enter, rows and scores leave.

Differs from the paper: cosines inside a class are clipped at 0, scores fall only every 200 picks of a
class, the regularisers fall on the whole class at once, and there is no double greedy.

Source: the notebook published with arXiv:2403.12267, as described in words; its column of base scores is
    inferred.
"""

import numpy as np

from clipcov_assets.core.pool import Array

PICKS_BETWEEN_UPDATES = 200


def released_order(pairs: Array, inter_weight: Array, label: Array, terms: frozenset[str]) -> tuple[Array, Array]:
    """Return the (n,) order of one class and the (n,) float64 score of each row when it was picked.

    A row starts with r + 2 e + alpha l - inter: r its mean clipped similarity to the class, e its clip
    score, l its caption's similarity to the label, inter its mean similarity to the other classes. At the
    picks 199, 399, ... all scores fall by the row's clipped similarity to the picks since the last update,
    by the sum of r over all picks so far, and by the sum of alpha l over the picks since the last update,
    each divided by n.

    Args:
        pairs: (n, 2d) float16 or float32, all pairs of the class; ties go to the earlier row.
        inter_weight: (2d,) float64; its product with a pair is minus the similarity to the other classes.
        label: (d,) float64 class embedding times alpha.
        terms: "class" counts r and the first fall, "self" 2 e, "label" alpha l and the third fall,
            "class_reg" the second fall, "inter" the other classes.
    """
    from clipcov_assets.core import kernels

    pairs = kernels.readable(pairs)
    n, d = len(pairs), pairs.shape[1] // 2
    centrality = kernels.clipped_sums(pairs, pairs) / n if terms & {"class", "class_reg"} else np.zeros(n)
    weights = np.stack([np.concatenate([np.zeros(d), label]), inter_weight])
    (labelled, score), self_similarity, _ = kernels.first_look(pairs, weights)
    if "class" in terms:
        score += centrality
    if "self" in terms:
        score += self_similarity
    if "label" in terms:
        score += labelled
    left, batches, gains, centrality_picked = np.arange(n), [], [], 0.0
    batch = PICKS_BETWEEN_UPDATES - 1
    while left.size:
        picks = left[np.argsort(-score[left], kind="stable")[:batch]]
        batches.append(picks)
        gains.append(score[picks])
        left = np.setdiff1d(left, picks, assume_unique=True)
        centrality_picked += centrality[picks].sum()
        if "class" in terms:
            score[left] -= kernels.clipped_sums(pairs[left], pairs[picks]) / n
        if "class_reg" in terms:
            score[left] -= centrality_picked / n
        if "label" in terms:
            score[left] -= labelled[picks].sum() / n
        batch = PICKS_BETWEEN_UPDATES
    return np.concatenate(batches), np.concatenate(gains)
