"""SemDeDup's complete ranking: k-means and the similarities inside its clusters."""

from collections.abc import Mapping

import numpy as np

from benchmarks.measure import Benchmark, Floor, Line, Measurement, Work, in_words, scaled
from benchmarks.pools import clip_like, equal_sizes
from benchmarks.ranking import ranking_work

PAIRS, CLUSTERS, ITERATIONS, BAR, MEMORY_BAR = 1_000_000, 1_000, 20, 180.0, 6 * 2**30


def prepare(case: str, scale: float) -> Work:
    """Make a pool of images alone, with as many classes as k-means looks for."""
    n, clusters = scaled(PAIRS, scale), scaled(CLUSTERS, scale)
    pool = clip_like(equal_sizes(n, clusters), dtype=np.float16, embeddings=["image_embeddings"])
    columns = {name: pool[name] for name in ("uid", "image_embeddings")}
    width = columns["image_embeddings"].shape[1]
    floor = Floor(
        f"k-means compares every image with every centroid {ITERATIONS} times and once more at the end; "
        "in clusters of equal size, which have the fewest, every two images of a cluster are compared",
        bytes=columns["image_embeddings"].nbytes * (ITERATIONS + 1.0),
        operations=2.0 * width * n * (clusters * (ITERATIONS + 1) + n / clusters / 2),
    )
    return ranking_work("semdedup", columns, floor, n_clusters=clusters)


def lines(measured: Mapping[str, Measurement], scale: float) -> list[Line]:
    """Return a line for the time and one for the memory."""
    ranking = measured["ranking"]
    size = f"{scaled(PAIRS, scale):,} x 512 float16, {scaled(CLUSTERS, scale):,} clusters, {ITERATIONS} iterations"
    return [
        Line(f"semdedup, {size}", in_words(ranking.median), f"{BAR:g} s", ranking.median <= BAR, ranking),
        Line(
            "semdedup, peak memory of the process",
            f"{ranking.peak / 2**30:.2f} GiB",
            f"{MEMORY_BAR / 2**30:g} GiB",
            ranking.peak <= MEMORY_BAR,
        ),
    ]


BENCHMARK = Benchmark("semdedup, 1,000,000 pairs", ("ranking",), prepare, lines)
