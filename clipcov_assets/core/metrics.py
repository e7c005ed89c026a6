"""Zero-shot metrics of checkpoints, with intervals that say how far to trust them.

Labels and ranks enter, one row a seed; metrics leave with a value, its 95 % interval over images and its spread over
seeds. No torch here: whoever loads the graph does not need it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
RECALL_AT = (1, 5, 10)
# The exact test knows its p-value to about this much; smaller ones are not told apart.
SMALLEST_P_VALUE = 1e-10

# What numpy's generator takes: several numbers are one seed, such as that of an evaluation set of its own.
Seed = int | Sequence[int]
Metrics = Callable[[NDArray[np.float64], NDArray[np.int64]], dict[str, float]]


@dataclass(frozen=True)
class Estimate:
    """A value in [0, 1] and how sure it is.

    Attributes:
        value: Mean over the seeds.
        low: Lower end of the 95 % interval over images.
        high: Upper end of the 95 % interval over images.
        seed_deviation: Standard deviation over the seeds; None where there is one seed.
    """

    value: float
    low: float
    high: float
    seed_deviation: float | None = None


@dataclass(frozen=True, eq=False)
class Measurement:
    """One metric: of every seed, and of every resampling of the images.

    Attributes:
        of_seeds: On the images as they are (s,).
        of_resamples: Mean over the seeds, on as many images drawn with replacement (resamples,).
    """

    of_seeds: NDArray[np.float64]
    of_resamples: NDArray[np.float64]

    @property
    def estimate(self) -> Estimate:
        """The mean over seeds, its percentile interval and the sample standard deviation over seeds."""
        low, high = _interval(self.of_resamples)
        deviation = float(self.of_seeds.std(ddof=1)) if len(self.of_seeds) > 1 else None
        return Estimate(float(self.of_seeds.mean()), low, high, deviation)


@dataclass(frozen=True)
class Difference:
    """acc1 of one method minus that of another on the same images, in [-1, 1].

    Attributes:
        value: The difference of their means over seeds.
        low: Lower end of its 95 % interval over images.
        high: Upper end of its 95 % interval over images.
        p_value: Of a difference at least as large, were both right equally often.
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
    seed: Seed,
    resamples: int = 1000,
) -> dict[str, Measurement]:
    """Return acc1, acc5 and mean_per_class_recall of zero-shot predictions.

    Mean per-class recall is the mean over the classes that have an image. With fewer than five classes acc5 means
    nothing and is left out. A resampling draws images, and each comes with what all seeds made of it.

    Args:
        label: True class of each image (n,).
        rank_of_label: Classes that score higher than the true one (s, n), one row a seed; 0 is a hit.
        n_classes: K; every label is below it.
        seed: Seed of the resampling.
        resamples: Sets of n images drawn with replacement.

    Raises:
        ValueError: No image, shapes that do not fit, or a label or rank outside [0, K).

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
    """
    _check_shapes(rank_of_label, images=len(label))
    for name, rows in (("label", label[None]), ("rank_of_label", rank_of_label)):
        _check_range(name, rows, n_classes)
    every_label = np.broadcast_to(label, rank_of_label.shape)
    outcomes = np.stack([every_label, rank_of_label < 1, rank_of_label < 5], axis=-1)
    measured = _measure(outcomes, _accuracies, seed=seed, resamples=resamples)
    return {name: one for name, one in measured.items() if name in chance(n_classes)}


def class_recalls(
    label: NDArray[np.integer], rank_of_label: NDArray[np.integer], *, n_classes: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the images of each class (K,), and its recall (K,), mean over seeds; NaN where it has no image.

    Args:
        label: True class of each image (n,), below K.
        rank_of_label: Classes that score higher than the true one (s, n), one row a seed; 0 is a hit.
        n_classes: K.
    """
    images = np.bincount(label, minlength=n_classes)
    hits = np.bincount(label, (rank_of_label == 0).mean(axis=0), minlength=n_classes)
    return images, np.divide(hits, images, where=images > 0, out=np.full(n_classes, np.nan))


def retrieval_score(
    rank_of_caption: NDArray[np.integer],
    rank_of_image: NDArray[np.integer],
    image_of_caption: NDArray[np.integer],
    *,
    seed: Seed,
    resamples: int = 1000,
) -> dict[str, Measurement]:
    """Return text_recall_at_k and image_recall_at_k for k 1, 5 and 10, and mean_recall_at_1, the mean of both at 1.

    Text recall is the share of images that find one of their captions among the first k captions, image recall the
    share of captions that find their image among the first k images. A resampling draws images, and their captions
    come with them: captions of one image are not independent.

    Args:
        rank_of_caption: Captions of other images ahead of the best of its own, of each image (s, n), one row a seed.
        rank_of_image: Images ahead of its own, of each caption (s, c).
        image_of_caption: Number of its image, of each caption (c,); every image has at least one.
        seed: Seed of the resampling.
        resamples: Sets of n images drawn with replacement.

    Raises:
        ValueError: No image, shapes that do not fit, an image without a caption, or a rank or image out of range.

    Source: Karpathy and Fei-Fei 2015, arXiv:1412.2306, for recall at k with several captions an image; Gadre et al.
    2023, arXiv:2304.14108, for the mean; Field and Welsh 2007, J. R. Statist. Soc. B 69, for resampling clusters.
    """
    images, captions = rank_of_caption.shape[-1], len(image_of_caption)
    _check_shapes(rank_of_caption, images=images)
    n_seeds = len(rank_of_caption)
    if rank_of_image.shape != (n_seeds, captions):
        raise ValueError(
            f"ranks {rank_of_image.shape} of {captions} captions; give one row for each of {n_seeds} seeds"
        )
    _check_range("image_of_caption", image_of_caption[None], images)
    _check_range("rank_of_caption", rank_of_caption, captions)
    _check_range("rank_of_image", rank_of_image, images)
    own_captions = np.bincount(image_of_caption, minlength=images)
    if not own_captions.all():
        raise ValueError(f"image {int(own_captions.argmin())} has no caption; every image needs at least one")
    limits = np.array(RECALL_AT)
    found = np.zeros((images, n_seeds, len(limits)))
    np.add.at(found, image_of_caption, rank_of_image.T[..., None] < limits)
    every_count = np.broadcast_to(own_captions[:, None], (n_seeds, images, 1))
    outcomes = np.concatenate([every_count, rank_of_caption[..., None] < limits, found.swapaxes(0, 1)], axis=-1)
    measured = _measure(outcomes, _recalls, seed=seed, resamples=resamples)
    return measured | {"mean_recall_at_1": average([measured["text_recall_at_1"], measured["image_recall_at_1"]])}


def average(measurements: Sequence[Measurement]) -> Measurement:
    """Return the mean of metrics, seed by seed and resampling by resampling.

    Of one evaluation set's metrics that is their mean with its own interval. Metrics of several sets must come from
    independent resamplings, that is from other seeds: then it is what a bootstrap inside each set gives.

    Raises:
        ValueError: No metric, or metrics of different numbers of seeds or resamplings.
    """
    if len({(one.of_seeds.shape, one.of_resamples.shape) for one in measurements}) != 1:
        raise ValueError("an average needs metrics of the same seeds and equally many resamplings, at least one")
    return Measurement(
        np.mean([one.of_seeds for one in measurements], axis=0),
        np.mean([one.of_resamples for one in measurements], axis=0),
    )


def chance(n_classes: int) -> dict[str, float]:
    """Return what guessing among K classes scores, metric by metric as in `score`."""
    levels = {"acc1": 1 / n_classes, "mean_per_class_recall": 1 / n_classes}
    return levels | ({"acc5": 5 / n_classes} if n_classes >= 5 else {})


def retrieval_chance(captions: ArrayLike) -> dict[str, float]:
    """Return what guessing scores, metric by metric as in `retrieval_score`.

    None of an image's captions is among k drawn from all with the chance of the hypergeometric distribution.

    Args:
        captions: Captions of each image (n,).
    """
    own = np.asarray(captions, np.int64)
    levels = {}
    for k in RECALL_AT:
        drawn = np.arange(min(k, own.sum()))
        all_miss = np.maximum((own.sum() - own[:, None] - drawn) / (own.sum() - drawn), 0).prod(axis=1)
        levels[f"text_recall_at_{k}"] = float(1 - all_miss.mean())
        levels[f"image_recall_at_{k}"] = min(k / len(own), 1.0)
    return levels | {"mean_recall_at_1": (levels["text_recall_at_1"] + levels["image_recall_at_1"]) / 2}


def above_chance(value: float, level: float) -> float | None:
    """Return where a value lies between guessing (0) and perfection (1); None where guessing is always right.

    Source: Li et al. 2024, arXiv:2406.11794, who call it centered accuracy.
    """
    return (value - level) / (1 - level) if level < 1 else None


def paired_difference(
    hit: NDArray[np.bool_], other_hit: NDArray[np.bool_], *, seed: Seed, resamples: int = 1000
) -> Difference:
    """Compare two methods image by image: images that both get right equally often say nothing.

    The p-value is of the exact test over sign flips: were both methods equally good, each image's difference could as
    well have the other sign, and all ways of flipping them are counted. With one seed each that is McNemar's exact
    test. It is about the given checkpoints on other images; what another seed would do, the deviation over seeds says.

    Args:
        hit: Whether the first method is right about each image (s, n), one row a seed.
        other_hit: Whether the second is (t, n), the images in the same order.
        seed: Seed of the resampling.
        resamples: Sets of n images drawn with replacement.

    Raises:
        ValueError: No image, no seed, or other shapes.

    Source: Fisher 1935, The Design of Experiments, section 21; McNemar 1947, Psychometrika 12. The interval is a
    percentile bootstrap over images.
    """
    images = hit.shape[-1]
    if hit.ndim != 2 or other_hit.ndim != 2 or other_hit.shape[1] != images or 0 in hit.shape + other_hit.shape:
        raise ValueError(
            f"hits of shapes {hit.shape} and {other_hit.shape} cannot be compared; give one row a seed, and the same "
            "images to both, at least one"
        )
    # In whole numbers, so that equal differences are equal: the mean over seeds times the seeds of both.
    scale = len(hit) * len(other_hit)
    difference = len(other_hit) * hit.sum(axis=0) - len(hit) * other_hit.sum(axis=0)
    distinct, counts = np.unique(difference, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(images, counts / images, size=resamples)
    low, high = _interval(drawn @ distinct / (scale * images))
    return Difference(float(difference.sum() / (scale * images)), low, high, _sign_flip_p_value(difference))


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


def _measure(outcomes: NDArray, metrics: Metrics, *, seed: Seed, resamples: int) -> dict[str, Measurement]:
    """Measure outcomes (s, n, q): q numbers an image, of which metrics need only each seed's, or their mean."""
    of_seeds = [metrics(*_distinct(one)) for one in outcomes]
    # Images with equal outcomes are interchangeable, so drawing n images with replacement is drawing the counts of
    # the distinct outcomes from a multinomial.
    distinct, counts = _distinct(outcomes.mean(axis=0))
    random, images = np.random.default_rng(seed), outcomes.shape[1]
    of_resamples = [metrics(distinct, random.multinomial(images, counts / images)) for _ in range(resamples)]
    return {
        name: Measurement(np.array([one[name] for one in of_seeds]), np.array([one[name] for one in of_resamples]))
        for name in of_seeds[0]
    }


def _distinct(outcomes: NDArray) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the distinct rows of outcomes (n, q) and how many images have each."""
    distinct, counts = np.unique(outcomes, axis=0, return_counts=True)
    return distinct.astype(np.float64), counts


def _accuracies(outcomes: NDArray[np.float64], counts: NDArray[np.int64]) -> dict[str, float]:
    """Metrics of outcomes (m, 3), each label, hit and hit among the first five, and of the images (m,) of each."""
    label = outcomes[:, 0].astype(np.int64)
    images, hits = np.bincount(label, counts), np.bincount(label, counts * outcomes[:, 1])
    present = images > 0
    return {
        "acc1": float(hits.sum() / counts.sum()),
        "acc5": float(counts @ outcomes[:, 2] / counts.sum()),
        "mean_per_class_recall": float((hits[present] / images[present]).mean()),
    }


def _recalls(outcomes: NDArray[np.float64], counts: NDArray[np.int64]) -> dict[str, float]:
    """Metrics of outcomes (m, 7), each captions, text hits and image hits at every k, and of the images of each."""
    captions, *hits = counts @ outcomes
    text, image = np.array(hits).reshape(2, -1)
    return {
        **{f"text_recall_at_{k}": float(one / counts.sum()) for k, one in zip(RECALL_AT, text, strict=True)},
        **{f"image_recall_at_{k}": float(one / captions) for k, one in zip(RECALL_AT, image, strict=True)},
    }


def _sign_flip_p_value(difference: NDArray[np.int64]) -> float:
    """Return the share of all ways to flip the signs that give a sum at least as far from 0.

    A flipped sum is total - 2x, where x is what became negative: a sum of independent terms, so that its distribution
    is the inverse Fourier transform of the product of theirs. The error is below `SMALLEST_P_VALUE`.

    Source: Pagano and Tritchler 1983, Journal of the American Statistical Association 78.
    """
    size, counts = np.unique(np.abs(difference), return_counts=True)
    step = max(int(np.gcd.reduce(size)), 1)
    total, seen = int(size @ counts) // step, abs(int(difference.sum())) // step
    frequency = np.arange((total + 1) // 2 + 1) / (total + 1)
    transform = np.exp(-1j * np.pi * total * frequency)
    for one, count in zip(size // step, counts, strict=True):
        transform *= np.cos(np.pi * one * frequency) ** count
    chances = np.fft.irfft(transform, total + 1)
    both_ends = 2 * float(chances[: (total - seen) // 2 + 1].sum())
    return float(np.clip(both_ends, SMALLEST_P_VALUE, 1))


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def _check_shapes(rank: NDArray[np.integer], *, images: int) -> None:
    if images == 0:
        raise ValueError("no image to score; an evaluation set needs at least one")
    if rank.ndim != 2 or len(rank) == 0 or rank.shape[1] != images:
        raise ValueError(f"ranks {rank.shape} of {images} images; give one row a seed, and in it one rank an image")


def _check_range(name: str, rows: NDArray[np.integer], end: int) -> None:
    outside = np.argwhere((rows < 0) | (rows >= end))
    if len(outside):
        row, column = (int(one) for one in outside[0])
        raise ValueError(f"{name} {int(rows[row, column])} in row {column} is outside [0, {end})")
