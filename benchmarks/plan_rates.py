"""Measures the rates of the plan on this machine: what the product does is called, on one core or two, and timed.

The pairs are synthetic (benchmarks/pools.py). Workers are processes that import this module alone.
"""

import io
import json
import math
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import peak_memory
from clipcov_assets.tables import EMBEDDINGS

if TYPE_CHECKING:
    from clipcov_assets.jobs.embed import PairEncoder, StoredPairs

ITERATIONS = 21  # 20 of k-means, and the exact assignment at the end
CLASS_BASE = 100_000  # pairs of the class whose time is the rate `class_seconds`
BASE_WIDTH = 512  # of the embeddings that the rates are measured with
SMALL, WIDE_PAIRS, NARROW_PAIRS = 5_000, 60_000, 100_000
WIDE_CLASSES, NARROW_WIDTH = 20, 8
CLASS_SIZES = (10_000, 30_000, 100_000)
INGESTED, DECODED, EMBEDDED, SIDE = 1_000, 500, 12, 256
CRAWL = "crawl-1"
Found = dict[str, float]


class Workers:
    """Processes of one core each, which run functions of this module one after the other."""

    def __init__(self, count: int) -> None:
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
        self._executors = [
            ProcessPoolExecutor(1, get_context("spawn"), stay_on, (cores[place % len(cores)],))
            for place in range(count)
        ]

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        for executor in self._executors:
            executor.shutdown()

    def seconds(self, function: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> float:
        """Return the time until all are done, the first workers with arguments of their own; imports are kept."""
        for executor in self._executors:
            executor.submit(stay_on, None).result()
        start = time.perf_counter()
        pairs = zip(self._executors, arguments, strict=False)
        for future in [executor.submit(function, *own) for executor, own in pairs]:
            future.result()
        return time.perf_counter() - start

    def call(self, function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401
        """Return what the first worker returns."""
        return self._executors[0].submit(function, *arguments).result()


def stay_on(core: int | None) -> None:
    """Keep this process, and all that it starts, to one core."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
        os.environ["OMP_NUM_THREADS"] = "1"


def alone(function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401
    """Return what a function of this module returns in a fresh process of one core."""
    with Workers(1) as worker:
        return worker.call(function, *arguments)


def timed(call: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def slope(call: Callable[[int], object], few: int, many: int) -> tuple[float, float]:
    """Return seconds and peak bytes a pair: of many pairs, over what a first call with few has left."""
    call(few)
    before = peak_memory()
    seconds = timed(lambda: call(many))
    return seconds / many, max(peak_memory() - before, 0) / (many - few)


def measured_rates(report: Callable[[str], None]) -> Found:
    """Measure what this machine can in a few minutes: rates by name."""
    found: Found = {}
    with tempfile.TemporaryDirectory() as directory:
        for name, measure in MEASURES.items():
            start = time.perf_counter()
            found |= measure(directory)
            report(f"{name}: {time.perf_counter() - start:.0f} s")
    return found


def measure_classes(directory: str) -> Found:
    """Greedy orders of single classes of growing size, on one core: seconds of a class, and the exponent."""
    return dict(alone(class_kernel))


def class_kernel() -> Found:
    """Fit seconds = c n^p to the greedy order of one class, best of three, after a small one that compiles it."""
    from benchmarks.pools import Geometry
    from clipcov_assets.core.objective import TERMS
    from clipcov_assets.core.paper import paper_order

    random = np.random.default_rng(0)
    weight, geometry = random.standard_normal(2 * BASE_WIDTH) * 0.01, Geometry(1, BASE_WIDTH, random)
    seconds = []
    for n in (1_000, *CLASS_SIZES):
        parts = [geometry.pairs(np.zeros(count, np.int64), random).values() for count in _parts(n)]
        pairs = np.concatenate([np.concatenate([*part], axis=1).astype(np.float16) for part in parts])
        order = partial(paper_order, pairs, weight, frozenset(TERMS))
        seconds.append(min(timed(order) for _ in range(3)))
    exponent, intercept = np.polyfit(np.log(CLASS_SIZES), np.log(seconds[1:]), 1)
    return {
        "class_exponent": float(exponent),
        "class_seconds": float(np.exp(intercept + exponent * np.log(CLASS_BASE))),
    }


def _parts(n: int, most: int = 20_000) -> Iterator[int]:
    for start in range(0, n, most):
        yield min(most, n - start)


def measure_tables(directory: str) -> Found:
    """Lance on embeddings, the order of classes, clipcov on 1 and 2 workers, k-means, duplication, a subset."""
    from benchmarks.pools import equal_sizes
    from benchmarks.tables import write_pool

    few, many = (f"{directory}/wide-{n}" for n in (SMALL, WIDE_PAIRS))
    with Workers(1) as worker:
        worker.call(write_pool, few, equal_sizes(SMALL, WIDE_CLASSES))
        once = worker.call(write_pool, many, equal_sizes(WIDE_PAIRS, WIDE_CLASSES))
        found = {"class_order": WIDE_PAIRS / once["class_order"], **worker.call(lance_rates, many)}
    found |= alone(semdedup_rates, few, many)
    found["subset"] = alone(subset_rate, few, many)
    halves = np.array_split(np.arange(WIDE_CLASSES), 2)
    with Workers(2) as both:
        both.seconds(rank_shard, [(few, half.tolist()) for half in halves])
        one, two = (
            min(both.seconds(rank_shard, [(many, part) for part in parts]) for _ in range(3))
            for parts in ([np.concatenate(halves).tolist()], [half.tolist() for half in halves])
        )
    return {**found, "rank_speedup": one / two}


def lance_rates(uri: str) -> Found:
    """Bytes a second of embeddings, written and read one after the other."""
    from resources.lance_store import LanceStore

    store = LanceStore(uri=uri)
    table = store.read("embeddings", CRAWL, EMBEDDINGS)
    writing = timed(lambda: store.write("copy", CRAWL, table))
    rows = store.rows("copy", CRAWL)

    def read() -> None:
        for start in range(0, len(rows), 16_384):
            rows.slice(start, min(16_384, len(rows) - start), EMBEDDINGS)

    return {"lance_write": table.nbytes / writing, "lance_read": table.nbytes / timed(read)}


def rank_shard(uri: str, classes: Sequence[int]) -> None:
    """Rank some latent classes on the cores, and write the order, as a class shard does."""
    from clipcov_assets.jobs.job import Local, Voice
    from clipcov_assets.jobs.rank import RankShard
    from resources.compute import Compute
    from resources.lance_store import LanceStore

    job = RankShard(
        compute=Compute(device="cpu"),
        crawl=CRAWL,
        partition=f"{CRAWL}|s{classes[0]:02}",
        classes=list(classes),
        parameters={},
        store=LanceStore(uri=uri),
    )
    job.run(Local(Voice(tell, tell)))


def semdedup_rates(few: str, many: str) -> Found:
    """Operations a second of k-means and of duplication; time and memory of the image embeddings in memory."""
    from clipcov_assets.core import Pool
    from clipcov_assets.core.selection.semdedup import duplication as duplicated
    from clipcov_assets.core.selection.semdedup import spherical_kmeans
    from clipcov_assets.pool_tables import load_pool
    from resources.lance_store import LanceStore

    pools: dict[int, Pool] = {}

    def load(n: int) -> None:
        pools[n] = load_pool(LanceStore(uri=few if n == SMALL else many), CRAWL, ["image_embeddings"])

    seconds, memory = slope(load, SMALL, WIDE_PAIRS)
    rates: Found = {}
    for n, pool in pools.items():
        images, clusters = pool.image_embeddings, round(n**0.5)
        assert images is not None
        start = time.perf_counter()
        cluster, centrality = spherical_kmeans(images, pool.by_uid, clusters, seed=0)
        middle = time.perf_counter()
        duplicated(images, pool.uid_rank, cluster, centrality)
        squares = float((np.bincount(cluster) ** 2.0).sum())
        rates = {
            "kmeans": kmeans_operations(n, BASE_WIDTH) / (middle - start),
            "duplication": BASE_WIDTH * squares / (time.perf_counter() - middle),
        }
    return {**rates, "images_seconds": seconds, "images_memory": memory}


def subset_rate(few: str, many: str) -> float:
    """Pairs a second, on one core, whose embeddings are read to describe a subset of every tenth pair."""
    from clipcov_assets.core.subset import subset_sums
    from clipcov_assets.pool_tables import PooledClasses
    from resources.lance_store import LanceStore

    def describe(uri: str) -> None:
        pooled = PooledClasses(LanceStore(uri=uri), CRAWL)
        chosen = np.arange(int(pooled.statistics.counts.sum())) % 10 == 0
        subset_sums(pooled.runs(), pooled.load, chosen, pooled.statistics, pooled.class_embeddings)

    describe(few)
    return WIDE_PAIRS / timed(lambda: describe(many))


def measure_names(directory: str) -> Found:
    """What runs on uids, scores and captions alone: pool, merge, some rankings, the head of a ranking."""
    for n in (SMALL, NARROW_PAIRS):
        alone(write_names, f"{directory}/names-{n}", n)
    uri = f"{directory}/names-"
    found: Found = {}
    for name in ("pool", "merge", "random", "clip_score", "metaclip", "subset"):
        seconds, memory = alone(of_names, name, uri)
        found |= {f"{name}_seconds": seconds, f"{name}_memory": memory}
    found.pop("subset_seconds")
    return found


def of_names(name: str, uri: str) -> tuple[float, float]:
    """Return seconds and peak bytes a pair of one of `NAMES`."""
    return slope(lambda n: NAMES[name](f"{uri}{n}", n), SMALL, NARROW_PAIRS)


def write_names(uri: str, n: int) -> None:
    """Write a crawl and its pool, with embeddings that are too narrow to count."""
    from benchmarks.pools import captions_and_entries, uids
    from clipcov_assets.assets.pool import JoinedCrawls
    from clipcov_assets.pool_tables import (
        CLASS_EMBEDDINGS,
        CRAWL_PRODUCTS,
        CRAWL_STATISTICS,
        cross_product_rows,
        list_column,
        statistics_rows,
        sums_of,
    )
    from clipcov_assets.tables import RAW_PAIRS, class_embeddings_schema, latent_classes_schema
    from resources.lance_store import LanceStore

    random, store, classes = np.random.default_rng(0), LanceStore(uri=uri), 1_000
    uid = np.sort(uids(n, random))
    rows = np.zeros((n, NARROW_WIDTH), np.float16)
    rows[np.arange(n), random.integers(0, NARROW_WIDTH, n)] = 1
    label = np.sort(random.integers(0, classes, n)).astype(np.int32)
    columns = {
        "uid": uid,
        "latent_class": label,
        "margin": np.zeros(n, np.float32),
        "clip_score": random.random(n),
        "image_embedding": list_column(rows),
        "text_embedding": list_column(rows),
    }
    latent = pa.table(columns, schema=latent_classes_schema(NARROW_WIDTH))
    statistics, products = sums_of(latent, classes)
    store.write("latent_classes", CRAWL, latent)
    store.write(CRAWL_STATISTICS, CRAWL, statistics_rows(statistics))
    store.write(CRAWL_PRODUCTS, CRAWL, cross_product_rows(products))
    numbers = np.arange(classes, dtype=np.int32)
    units = list_column(np.eye(classes, NARROW_WIDTH, dtype=np.float32))
    named = pa.table([numbers, numbers.astype(str).tolist(), units], schema=class_embeddings_schema(NARROW_WIDTH))
    store.write(CLASS_EMBEDDINGS, CRAWL, named)
    captions, _ = captions_and_entries(n, 0)
    told = {"uid": pa.array(uid), "caption": pa.array(captions), "content": pa.array([bytes(16)] * n, pa.binary(16))}
    raw = [told.get(name, pa.nulls(n, kind)) for name, kind in zip(RAW_PAIRS.names, RAW_PAIRS.types, strict=True)]
    store.write("raw_pairs", CRAWL, pa.table(raw, schema=RAW_PAIRS))
    JoinedCrawls(store, [CRAWL]).write(store, CRAWL)
    rank_shard(uri, range(classes))


def join(uri: str, n: int) -> None:
    """Make the pool of one crawl."""
    from clipcov_assets.assets.pool import JoinedCrawls
    from resources.lance_store import LanceStore

    store = LanceStore(uri=uri)
    JoinedCrawls(store, [CRAWL]).write(store, "joined")


def rank_pool(method: str, uri: str, n: int) -> None:
    """Rank by a method in one process, as the asset does; clipcov merges the class rankings into one."""
    from clipcov_assets.jobs.job import Local, Voice
    from clipcov_assets.jobs.rank import RankPool
    from resources.clip_encoder import ClipEncoder
    from resources.compute import Compute
    from resources.lance_store import LanceStore

    job = RankPool(
        compute=Compute(),
        crawl=CRAWL,
        method=method,
        parameters={},
        seed=0,
        shards=[f"{CRAWL}|s00"],
        store=LanceStore(uri=uri),
        encoder=ClipEncoder(directory=uri),
    )
    job.run(Local(Voice(tell, tell)))


def describe(uri: str, n: int) -> None:
    """Take the head of a ranking and describe it, as a subset does."""
    from clipcov_assets.assets.subsets import describe_subset
    from clipcov_assets.partitions import fractions_of
    from clipcov_assets.tables import RANKING
    from resources.lance_store import LanceStore

    store = LanceStore(uri=uri)
    head = store.read("random_ranking", CRAWL, RANKING.names).sort_by("rank").slice(0, n // 10)
    describe_subset(store, "random", CRAWL, next(iter(fractions_of("random"))), head)


NAMES: dict[str, Callable[[str, int], None]] = {
    "pool": join,
    "merge": partial(rank_pool, "clipcov"),
    **{method: partial(rank_pool, method) for method in ("random", "clip_score", "metaclip")},
    "subset": describe,
}


def measure_images(directory: str) -> Found:
    """Ingest and ViT-B-32 on one core, decoding for it on 1 and 2."""
    folder, uri = Path(directory, "delivery"), f"{directory}/images"
    with Workers(2) as workers:
        workers.call(deliver_pictures, str(folder), uri)
        found = {"ingest": workers.call(ingest_rate, str(folder)), "embed_cpu": workers.call(encoder_rate, uri)}
        workers.seconds(decode, [(uri,)] * 2)
        one, two = (min(workers.seconds(decode, [(uri,)] * count) for _ in range(5)) for count in (1, 2))
    return {**found, "decode": DECODED / one, "decode_speedup": 2 * one / two}


def deliver_pictures(folder: str, uri: str) -> None:
    """Write a delivery in img2dataset's layout, and raw pairs."""
    from benchmarks.works.embedding import pictures, write_pairs
    from resources.lance_store import LanceStore

    images, crawl = pictures(SIDE, "JPEG"), Path(folder, CRAWL)
    crawl.mkdir(parents=True)
    keys = [f"{number:09d}" for number in range(INGESTED)]
    with tarfile.open(crawl / "00000.tar", "w") as tar:
        for number, key in enumerate(keys):
            caption = f"a picture with the number {number}".encode()
            for suffix, content in (("jpg", images[number % len(images)]), ("txt", caption), ("json", b"{}")):
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    pq.write_table(pa.table({"key": keys, "status": ["success"] * INGESTED}), crawl / "00000.parquet")
    (crawl / "00000_stats.json").write_text(json.dumps({"count": INGESTED, "successes": INGESTED}))
    write_pairs(LanceStore(uri=uri), CRAWL, range(DECODED), images)


def ingest_rate(folder: str) -> float:
    """Pairs a second from tar to table, by the second of two runs."""
    from benchmarks.works.ingest import ingest

    ingest(Path(folder))
    return INGESTED / timed(lambda: ingest(Path(folder)))


@cache
def pairs_to_embed(uri: str) -> "tuple[PairEncoder, StoredPairs]":
    """Return ViT-B-32 on one core, and the pairs that are read, decoded and tokenised for it."""
    import torch

    from benchmarks.works.embedding import stored_pairs
    from clipcov_assets.core.clip_model import create_clip
    from clipcov_assets.jobs.embed import PairEncoder
    from resources.compute import Compute
    from resources.lance_store import LanceStore

    torch.set_num_threads(1)
    encoder = PairEncoder.on(Compute(device="cpu"), create_clip("ViT-B-32", seed=0))
    return encoder, stored_pairs(LanceStore(uri=uri), CRAWL, encoder.clip)


def encoder_rate(uri: str) -> float:
    """Pairs a second that ViT-B-32 embeds."""
    encoder, pairs = pairs_to_embed(uri)
    some = pairs[np.arange(EMBEDDED)]
    encoder.embed([pairs[np.arange(2)]])
    return EMBEDDED / timed(lambda: encoder.embed([some]))


def decode(uri: str) -> None:
    """Read, decode and tokenise all pairs."""
    _, pairs = pairs_to_embed(uri)
    for places in np.array_split(np.arange(DECODED), 8):
        pairs[places]


MEASURES: dict[str, Callable[[str], Found]] = {
    "single classes": measure_classes,
    "tables with embeddings": measure_tables,
    "tables of names": measure_names,
    "images": measure_images,
}


def kmeans_operations(pairs: float, width: int) -> float:
    """Return additions and multiplications of k-means with sqrt(n) clusters: every image with every centroid."""
    return 2 * width * pairs * math.sqrt(pairs) * ITERATIONS


def tell(words: str) -> None:
    """Say how far it is, apart from the tables."""
    sys.stderr.write(f"{words}\n")
