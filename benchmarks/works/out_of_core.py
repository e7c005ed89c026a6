"""ClipCov's complete ranking of pools that stay on disk: float16 out of LanceDB, one latent class at a time."""

import tempfile
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc

from benchmarks.measure import Benchmark, Floor, Line, Measurement, Work, in_fresh_process, in_words, scaled
from benchmarks.pools import WIDTH, equal_sizes, zipf_sizes
from benchmarks.tables import CRAWL, write_pool
from clipcov_assets.core import Ranking
from clipcov_assets.core.greedy import accelerator, merge_class_rankings, rank_classes
from clipcov_assets.pool_tables import PooledClasses
from resources.lance_store import LanceStore


class Case(NamedTuple):
    """A pool, and what is promised of it."""

    pairs: int
    classes: int
    sizes: Callable[[int, int], list[int]]
    seconds: float
    memory: float


GIB = 2**30
CASES = {
    "classes of equal size": Case(1_000_000, 1_000, equal_sizes, 15.0, 3 * GIB),
    "classes by Zipf's law": Case(2_840_000, 1_000, zipf_sizes, 60.0, 4 * GIB),
}


def rank(store: LanceStore) -> Ranking:
    """Rank the pool, from its tables to one order."""
    pooled = PooledClasses(store, CRAWL)
    ranked = rank_classes(pooled.runs(), pooled.load, pooled.statistics, pooled.class_embeddings, device=accelerator())
    uid = store.read("pool", CRAWL, ["uid"])["uid"]
    place = np.empty(len(uid), np.int64)
    place[pc.sort_indices(uid).to_numpy()] = np.arange(len(uid))
    ranked = type(ranked)(place[ranked.uid], ranked.latent_class, ranked.gains)
    return merge_class_rankings([ranked], len(uid), uid=place)


def prepare(case: str, scale: float) -> Work:
    """Write the tables in a process of its own, so that only the ranking's memory is counted."""
    pool = CASES[case]
    directory = tempfile.TemporaryDirectory()
    n, classes = scaled(pool.pairs, scale), scaled(pool.classes, scale)
    once = in_fresh_process(write_pool, directory.name, pool.sizes(n, classes))
    size = 4 * WIDTH * n
    floor = Floor(
        "every embedding is read once, as float16; a pair's gain is evaluated at the start and when it is picked",
        bytes=size,
        operations=14.0 * n * WIDTH,
    )
    return Work(
        set_up=lambda: LanceStore(uri=directory.name),
        call=rank,
        floor=floor,
        warm_up=lambda: rank(LanceStore(uri=directory.name)) if n < 2**20 else None,
        facts=lambda ranking: {**once, "size": size},
    )


def lines(measured: Mapping[str, Measurement], scale: float) -> list[Line]:
    """Return lines for time and memory of each pool."""
    found = []
    for name, pool in CASES.items():
        one = measured[name]
        n, classes = scaled(pool.pairs, scale), scaled(pool.classes, scale)
        work = f"clipcov out of LanceDB, {n:,} x 512 float16, {classes:,} {name}"
        note = (
            f"{one.facts['size'] / GIB:.2f} GiB of embeddings; once a crawl, before any ranking, the class order took "
            f"{in_words(one.facts['class_order'])} and the pool {in_words(one.facts['pool'])}, within "
            f"{one.facts['once'] / GIB:.2f} GiB"
        )
        memory = f"{one.peak / GIB:.2f} GiB", f"{pool.memory / GIB:g} GiB", one.peak <= pool.memory
        found += [
            Line(work, in_words(one.median), f"{pool.seconds:g} s", one.median <= pool.seconds, one, note),
            Line(f"{work}, peak memory of the process", *memory),
        ]
    return found


BENCHMARK = Benchmark("clipcov, 1,000,000 and 2,840,000 pairs out of LanceDB", tuple(CASES), prepare, lines)
