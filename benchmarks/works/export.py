"""Export: a subset out of LanceDB into webdataset shards, beside a copy of the same bytes."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.measure import Benchmark, Floor, Line, Measurement, Work, best_of, scaled
from clipcov_assets.export.subset_files.export_format import ExportOptions
from clipcov_assets.jobs.export import export_subset
from clipcov_assets.pool_tables import PooledCrawl, pooled_crawls_metadata
from clipcov_assets.tables import POOL, RANKING, RAW_PAIRS
from resources.export_shelf import ExportShelf, FinishedExport
from resources.lance_store import LanceStore

PAIRS, IMAGE_BYTES, ROWS_AT_ONCE = 20_000, 20_000, 1_000
ASSET, CRAWL, PARTITION = "clipcov_subset", "crawl-1", "crawl-1|f100"


def write_subset(store: LanceStore, pairs: int) -> None:
    """Write a crawl of noise that begins like JPEG, its pool, and a subset of all of it in random order."""
    random = np.random.default_rng(0)

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, pairs, ROWS_AT_ONCE):
            some = range(start, min(start + ROWS_AT_ONCE, pairs))
            columns = {
                "uid": [f"{number:032x}" for number in some],
                "caption": [f"caption of number {number}" for number in some],
                "image": [b"\xff\xd8\xff" + random.bytes(IMAGE_BYTES - 3) for _ in some],
                "file": ["00000.tar"] * len(some),
                "key": [f"{number:08d}" for number in some],
                "row": [None] * len(some),
                "bytes": [IMAGE_BYTES] * len(some),
                "content": [number.to_bytes(16, "big") for number in some],
            }
            yield pa.RecordBatch.from_pydict(columns, schema=RAW_PAIRS)

    written = store.write("raw_pairs", CRAWL, pa.RecordBatchReader.from_batches(RAW_PAIRS, batches()))
    uid = [f"{number:032x}" for number in range(pairs)]
    pool = {"uid": uid, "crawl": [CRAWL] * pairs, "latent_class": [0] * pairs, "clip_score": [0.5] * pairs}
    pooled = [PooledCrawl(CRAWL, pairs, pairs, {"raw_pairs": written.version})]
    store.write("pool", CRAWL, pa.table(pool, schema=POOL), pooled_crawls_metadata(pooled))
    picks = [uid[place] for place in random.permutation(pairs)]
    ranking = {"uid": picks, "rank": range(pairs), "gain": np.zeros(pairs, np.float32)}
    store.write(ASSET, PARTITION, pa.table(ranking, schema=RANKING))


def prepare(case: str, scale: float) -> Work:
    """Write the tables; every run exports into a folder of its own, and the copy copies what a run wrote."""
    directory = tempfile.TemporaryDirectory()
    store, pairs = LanceStore(uri=f"{directory.name}/lance"), scaled(PAIRS, scale)
    write_subset(store, pairs)

    def export(shelf: ExportShelf) -> FinishedExport:
        return export_subset(store, shelf, ASSET, PARTITION, [case], ExportOptions(), lambda words: None)[0]

    def set_up() -> ExportShelf:
        return ExportShelf(directory=tempfile.mkdtemp(dir=directory.name))

    written = export(set_up())
    copy = Path(directory.name) / "copy"

    def copied() -> None:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(written.directory, copy)
        os.sync()

    why = "the files of the export are copied, in the page cache, and the disk is asked to keep them"
    floor = Floor(why, bytes=2.0 * written.bytes, seconds=best_of(copied))
    return Work(set_up, export, floor, facts=lambda found: {"pairs": pairs, "size": found.bytes})


def lines(measured: Mapping[str, Measurement], scale: float) -> list[Line]:
    """Return a line for the rate."""
    one = measured["webdataset"]
    rate = one.facts["pairs"] / one.median
    speed = one.facts["size"] / one.median / 1e6
    note = f"{speed:,.0f} MB/s, out of LanceDB in random order, with the sha256 of each file"
    work = f"export of {one.facts['pairs']:,} pairs of {IMAGE_BYTES // 1000} kB as webdataset shards"
    return [Line(work, f"{rate:,.0f} pairs/s", measurement=one, note=note)]


BENCHMARK = Benchmark("export of 20,000 pairs as webdataset shards", ("webdataset",), prepare, lines)
