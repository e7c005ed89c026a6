"""The methods that score every pair on its own, at a million pairs."""

from collections.abc import Mapping

import numpy as np

from benchmarks.floors import embedding_bytes
from benchmarks.measure import Benchmark, Floor, Line, Measurement, Work, in_words, scaled
from benchmarks.pools import EMBEDDINGS, WIDTH, Columns, clip_like, equal_sizes, uids
from benchmarks.ranking import ranking_work

PAIRS, CLASSES = 1_000_000, 1_000
METHODS = ("clip_score", "c_rho", "random")


def prepare(case: str, scale: float) -> Work:
    """Make a pool with the columns that the method reads."""
    n = scaled(PAIRS, scale)
    if case == "random":
        columns: Columns = {"uid": uids(n, np.random.default_rng(0))}
        return ranking_work(case, columns, Floor("every uid is read once", bytes=columns["uid"].nbytes))
    pool = clip_like(equal_sizes(n, scaled(CLASSES, scale)), dtype=np.float16)
    columns = {name: pool[name] for name in ("uid", *EMBEDDINGS)}
    if case == "c_rho":
        columns["partial_clip_score"] = np.random.default_rng(0).normal(0.2, 0.05, n)
    floor = Floor("every embedding is read once", bytes=embedding_bytes(columns), operations=2.0 * n * WIDTH)
    return ranking_work(case, columns, floor)


def lines(measured: Mapping[str, Measurement], scale: float) -> list[Line]:
    """Return a line for each method."""
    size = f"{scaled(PAIRS, scale):,}"
    return [
        Line(
            f"{method}, {size} pairs" + ("" if method == "random" else " x 512 float16"),
            in_words(measured[method].median),
            measurement=measured[method],
        )
        for method in METHODS
    ]


BENCHMARK = Benchmark("clip_score, c_rho and random, 1,000,000 pairs", METHODS, prepare, lines)
