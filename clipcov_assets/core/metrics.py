"""Accuracy of zero-shot predictions, with intervals that say how far to trust it.

Labels and ranks enter; metric names with a value and its 95 % interval leave.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95

# One image is one of three outcomes: its label comes first, second to fifth, or later.
FIRST, TOP_FIVE, LATER = range(3)


@dataclass(frozen=True)
class Estimate:
    """A value in [0, 1] and the interval [low, high] that holds it with 95 % confidence."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """acc1 of one model minus that of another on the same images, in [-1, 1].

    Attributes:
        value: The difference.
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        p_value: Of a difference at least as large, were both models right equally often.
    """

    value: float
    low: float
    high: float
    p_value: float


def score(
    label: NDArray[np.integer],
    rank_of_label: NDArray[np.integer],
    *,
    n_classes: int,
    seed: int,
    resamples: int = 1000,
) -> dict[str, Estimate]:
    """Return acc1, acc5 and mean_per_class_recall with percentile bootstrap intervals over images.

    Mean per-class recall is the mean over the classes that have an image. With fewer than five
    classes acc5 means nothing and is left out.

    Args:
        label: True class of each image (n,).
        rank_of_label: Classes that score higher than the true one (n,); 0 is a hit.
        n_classes: K; every label is below it.
        seed: Seed of the resampling.
        resamples: Sets of n images drawn with replacement.

    Raises:
        ValueError: No image, shapes that differ, or a label or rank outside [0, K).

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
    """
    counts = _outcome_counts(label, rank_of_label, n_classes)
    # Every metric depends on the images only through these counts, so drawing n images with
    # replacement is drawing the counts from a multinomial.
    shares = counts.ravel() / len(label)
    drawn = np.random.default_rng(seed).multinomial(len(label), shares, size=resamples)
    values, spread = _metrics(counts), _metrics(drawn.reshape(resamples, n_classes, 3))
    tail = 100 * (1 - CONFIDENCE) / 2
    return {
        name: Estimate(float(value), *(float(end) for end in np.percentile(spread[name], [tail, 100 - tail])))
        for name, value in values.items()
    }


def paired_difference(
    hit: NDArray[np.bool_], other_hit: NDArray[np.bool_], *, seed: int, resamples: int = 1000
) -> Difference:
    """Compare two models image by image: images that both get right, or both wrong, say nothing.

    Args:
        hit: Whether the first model is right about each image (n,).
        other_hit: Whether the second is, in the same order (n,).
        seed: Seed of the resampling.
        resamples: Sets of n images drawn with replacement.

    Raises:
        ValueError: No image, or shapes that differ.

    Source: McNemar 1947, Psychometrika 12, in its exact form; the interval is a percentile bootstrap over images.
    """
    from scipy.stats import binomtest  # slow to load, and whoever loads the graph does not need it

    if len(hit) == 0 or hit.shape != other_hit.shape:
        raise ValueError(f"{len(hit)} and {len(other_hit)} images; a comparison needs the same ones, at least one")
    only, only_other = int((hit & ~other_hit).sum()), int((~hit & other_hit).sum())
    shares = np.array([only, only_other, len(hit) - only - only_other]) / len(hit)
    drawn = np.random.default_rng(seed).multinomial(len(hit), shares, size=resamples)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile((drawn[:, 0] - drawn[:, 1]) / len(hit), [tail, 100 - tail])
    p_value = float(binomtest(only, only + only_other).pvalue) if only + only_other else 1.0
    return Difference((only - only_other) / len(hit), float(low), float(high), p_value)


def adjusted_p_values(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return p-values (m,) that hold for all m comparisons together: below 0.05, not even one of them is luck.

    Source: Holm 1979, Scandinavian Journal of Statistics 6.
    """
    given = np.asarray(p_values, np.float64)
    order = np.argsort(given, kind="stable")
    stepped = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    adjusted = np.empty(len(given))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def chance(n_classes: int) -> dict[str, float]:
    """Return what guessing among K classes scores, metric by metric as in `score`."""
    levels = {"acc1": 1 / n_classes, "mean_per_class_recall": 1 / n_classes}
    return levels | ({"acc5": 5 / n_classes} if n_classes >= 5 else {})


def _outcome_counts(
    label: NDArray[np.integer], rank_of_label: NDArray[np.integer], n_classes: int
) -> NDArray[np.int64]:
    """Count images per class and outcome, (K, 3)."""
    if len(label) == 0:
        raise ValueError("no image to score; an evaluation set needs at least one")
    if label.shape != rank_of_label.shape:
        raise ValueError(f"{len(label)} labels but {len(rank_of_label)} ranks; give one rank an image")
    for name, column in (("label", label), ("rank_of_label", rank_of_label)):
        outside = np.flatnonzero((column < 0) | (column >= n_classes))
        if outside.size:
            row = int(outside[0])
            raise ValueError(f"{name} {int(column[row])} in row {row} is outside [0, {n_classes})")
    outcome = np.digitize(rank_of_label, [1, 5])
    counts = np.zeros((n_classes, 3), dtype=np.int64)
    np.add.at(counts, (label, outcome), 1)
    return counts


def _metrics(counts: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Return each metric of counts (..., K, 3), one value per leading index."""
    images = counts.sum(axis=-1)
    total, present = images.sum(axis=-1), (images > 0).sum(axis=-1)
    recall = counts[..., FIRST] / np.maximum(images, 1)
    metrics = {
        "acc1": counts[..., FIRST].sum(axis=-1) / total,
        "mean_per_class_recall": recall.sum(axis=-1) / present,
    }
    if counts.shape[-2] >= 5:
        metrics["acc5"] = counts[..., [FIRST, TOP_FIVE]].sum(axis=(-2, -1)) / total
    return metrics
