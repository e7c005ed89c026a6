"""Why greedy valued a pair as it did: a pair and the picks before it enter, its gain term by term leaves.

Classes do not interact, so that the pairs of one latent class and the statistics of all are enough.

Source: arXiv:2403.12267, Eq. (16), as a marginal gain.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from clipcov_assets.core.objective import ALPHA, TERMS, check_options, linear_weights, resolve_alpha
from clipcov_assets.core.pool import Array
from clipcov_assets.core.similarity import ROWS_AT_ONCE, swap_halves
from clipcov_assets.core.statistics import ClassStatistics


def gain_terms(
    pair: Array,
    picked: Array,
    latent_class: int,
    statistics: ClassStatistics,
    class_embeddings: Array,
    *,
    alpha: float | str = ALPHA,
    inter: str = "mean",
    terms: Iterable[str] = TERMS,
) -> dict[str, float]:
    """Return what each term of F_ClipCov adds when a pair joins the picks of its class; the sum is the greedy gain.

    A term is the linear weight of that term alone; "self" adds sim(e, e), and "class" falls by what the picks before
    have taken, (sum of sim(e, s) over them + sim(e, e) / 2) / n_k.

    Args:
        pair: (2d,) float16 or float32, image and text embedding side by side.
        picked: (m, 2d) the picks of its class before it.
        latent_class: k, its class.
        statistics: Of the whole pool.
        class_embeddings: (K, d) unit rows.
        alpha: Weight of the label term, or "auto".
        inter: "mean" or "sum" over the other classes.
        terms: Which terms of Eq. (16) count.

    Returns:
        Term -> its share of the gain, with its sign, in the order of `TERMS`.

    Raises:
        ValueError: an unknown option.
    """
    chosen = check_options(alpha=alpha, inter=inter, terms=terms)
    alpha = resolve_alpha(alpha, statistics)
    row, own = pair.astype(np.float64), float(similarities(pair, pair[None])[0])
    shares = {}
    for term in (one for one in TERMS if one in chosen):
        weights = linear_weights(statistics, class_embeddings, alpha=alpha, inter=inter, terms=frozenset([term]))
        shares[term] = float(row @ weights[latent_class])
    if "self" in shares:
        shares["self"] += own
    if "class" in shares:
        shares["class"] -= (similarities(pair, picked).sum() + own / 2) / int(statistics.counts[latent_class])
    return shares


def similarities(pair: Array, others: Array) -> NDArray[np.float64]:
    """Return (m,) sim(e, s) of a (2d,) pair and each of (m, 2d) others: the sum of both cosines.

    Source: arXiv:2403.12267, Definition 4.1.
    """
    swapped, found = swap_halves(pair.astype(np.float64)), np.empty(len(others))
    for start in range(0, len(others), ROWS_AT_ONCE):  # float64 rows of a large class would fill the memory
        block = slice(start, start + ROWS_AT_ONCE)
        found[block] = others[block].astype(np.float64) @ swapped
    return found
