"""How the time of ClipCov's complete ranking grows with the pool while classes keep their size."""

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.floors import of_clipcov
from benchmarks.measure import Benchmark, Line, Measurement, Work, in_words, scaled
from benchmarks.pools import clip_like
from benchmarks.ranking import ranking_work

PAIRS, CLASS_SIZE, BAR = (100_000, 200_000, 400_000, 800_000, 1_600_000), 1_000, 1.1


def prepare(case: str, scale: float) -> Work:
    """Make the pool of one size; the scale makes fewer classes, not smaller ones."""
    columns = clip_like([CLASS_SIZE] * scaled(int(case) // CLASS_SIZE, scale), dtype=np.float16)
    return ranking_work("clipcov", columns, of_clipcov(columns))


def exponent(pairs: Sequence[int], seconds: Sequence[float]) -> float:
    """Return the slope of log seconds over log pairs: 1 is linear."""
    return float(np.polyfit(np.log(pairs), np.log(seconds), 1)[0])


def lines(measured: Mapping[str, Measurement], scale: float) -> list[Line]:
    """Return the exponent, and a line for each size."""
    seconds = [measured[str(pairs)].median for pairs in PAIRS]
    fitted = exponent(PAIRS, seconds)
    sizes = [CLASS_SIZE * scaled(pairs // CLASS_SIZE, scale) for pairs in PAIRS]
    return [
        Line(
            f"clipcov, growth from {sizes[0]:,} to {sizes[-1]:,} pairs in classes of {CLASS_SIZE:,}",
            f"exponent {fitted:.3f}",
            f"{BAR:g}",
            fitted <= BAR,
        ),
        *(
            Line(
                f"clipcov, {size:,} x 512 float16",
                in_words(measured[str(pairs)].median),
                measurement=measured[str(pairs)],
            )
            for pairs, size in zip(PAIRS, sizes, strict=True)
        ),
    ]


BENCHMARK = Benchmark(
    "clipcov, 100,000 to 1,600,000 pairs in memory", tuple(str(pairs) for pairs in PAIRS), prepare, lines
)
