"""ClipCov's complete ranking of a pool in memory, and the checks that a pool makes before it."""

from collections.abc import Mapping

from benchmarks.floors import embedding_bytes, of_clipcov
from benchmarks.measure import Benchmark, Floor, Line, Measurement, Work, in_words, scaled
from benchmarks.pools import Columns, clip_like, size_in_bytes, skewed_sizes
from benchmarks.ranking import ranking_work
from clipcov_assets.core import Pool

PAIRS, CLASSES, BAR = 200_000, 200, 2.0


def skewed_pool(scale: float) -> Columns:
    """Return a pool with classes of 500 to 7,000 pairs; a smaller scale has fewer of them."""
    return clip_like(skewed_sizes(scaled(PAIRS, scale), scaled(CLASSES, scale)))


def prepare(case: str, scale: float) -> Work:
    """Make the pool once; "checks" times `Pool(...)`, "ranking" what follows."""
    columns = skewed_pool(scale)
    if case == "ranking":
        return ranking_work("clipcov", columns, of_clipcov(columns))
    return Work(
        set_up=lambda: columns,
        call=lambda columns: Pool(**columns),
        floor=Floor("every embedding is read once", bytes=embedding_bytes(columns)),
        inputs=size_in_bytes(columns),
    )


def lines(measured: Mapping[str, Measurement], scale: float) -> list[Line]:
    """Return a line for the ranking and one for the checks."""
    ranking, checks = measured["ranking"], measured["checks"]
    pool = f"{scaled(PAIRS, scale):,} x 512 float32, {scaled(CLASSES, scale)} classes"
    return [
        Line(
            f"clipcov, complete ranking of {pool}",
            in_words(ranking.median),
            f"{BAR:g} s",
            ranking.median <= BAR,
            ranking,
        ),
        Line(f"`Pool(...)`: the checks of {pool}", in_words(checks.median), measurement=checks),
    ]


BENCHMARK = Benchmark("clipcov, 200,000 pairs in memory", ("ranking", "checks"), prepare, lines)
