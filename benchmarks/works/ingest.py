"""Ingest: a delivery in img2dataset's layout in, every pair judged and stored in LanceDB out."""

import io
import os
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.measure import Benchmark, Floor, Line, Measurement, Work, best_of, scaled
from clipcov_assets.ingest.find import find_delivery
from clipcov_assets.jobs.ingest import Census, stage_delivery
from clipcov_assets.scales import HOME
from clipcov_assets.tables import QUARANTINE, RAW_PAIRS
from resources.lance_store import LanceStore
from resources.pieces import Pieces

SHARD_PAIRS, SAMPLE, GIB = 10_000, 400, 2**30
WORKERS = os.cpu_count() or 1


class Case(NamedTuple):
    """A delivery, and what is promised of it."""

    pairs: int
    rate: float
    memory: float
    once: bool


CASES = {"a small crawl": Case(40_000, 5_000, 2 * GIB, False), "a million pairs": Case(1_000_000, 5_000, 2 * GIB, True)}


class Family:
    """Watches the resident memory of this process and of all that it starts, several times a second.

    Pages that processes share, or that only mirror a file, count each time: the peak is an upper bound.
    """

    def __init__(self) -> None:
        self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Family":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            self.peak = max(self.peak, sum(_resident(pid) for pid in _family(os.getpid())))


def _family(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = children.read_text().split()
        except OSError:  # it has just ended
            continue
        for child in found:
            yield from _family(int(child))


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def demo_pairs() -> list[tuple[bytes, bytes]]:
    """Return image and caption of every pair of the demo's crawls."""
    pairs = []
    for shard in sorted((HOME / "data/demo/crawls").glob("*/*.tar")):
        with tarfile.open(shard) as tar:
            parts = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        keys = {name.partition(".")[0] for name in parts}
        pairs += [(parts[f"{key}.webp"], parts[f"{key}.txt"]) for key in sorted(keys)]
    return pairs


def deliver(folder: Path, pairs: int) -> None:
    """Write a delivery of the demo's pairs again and again; only their uids, which are in the parquet, differ."""
    size = min(SHARD_PAIRS, pairs)
    first = folder / "00000.tar"
    with tarfile.open(first, "w") as tar:
        for number, (image, caption) in enumerate(islice(cycle(demo_pairs()), size)):
            for suffix, content in (("webp", image), ("txt", caption), ("json", b"{}")):
                member = tarfile.TarInfo(f"{number:08d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    for shard in range(pairs // size):
        name = f"{shard:05d}"
        if shard:
            (folder / f"{name}.tar").hardlink_to(first)
        keys = [f"{number:08d}" for number in range(size)]
        uid = [f"{shard * size + number:032x}" for number in range(size)]
        pq.write_table(pa.table({"key": keys, "uid": uid, "status": ["success"] * size}), folder / f"{name}.parquet")
        (folder / f"{name}_stats.json").write_text(f'{{"count": {size}, "successes": {size}}}')


def ingest(folder: Path) -> dict[str, float]:
    """Read, judge and store a delivery as the asset does; return counts and the peak memory of all processes."""
    with Family() as family, tempfile.TemporaryDirectory(dir=folder) as made:
        pieces, store = Pieces(Path(made) / "pieces"), LanceStore(uri=f"{made}/lance")
        pieces.directory.mkdir()
        delivery = find_delivery(folder / "crawl-1")
        shards = stage_delivery(delivery, pieces, workers=WORKERS, on_shard=lambda shard, staged: None)
        read = time.perf_counter()
        census = Census(pieces, shards)
        store.write("quarantine", "crawl-1", pa.RecordBatchReader.from_batches(QUARANTINE, census.faults()))
        rows = pa.RecordBatchReader.from_batches(RAW_PAIRS, census.pairs(RAW_PAIRS.names))
        stored = store.write("raw_pairs", "crawl-1", rows).row_count
        storing = time.perf_counter() - read
    return {"stored": stored, "storing": storing, "family": family.peak}


def prepare(case: str, scale: float) -> Work:
    """Write the delivery, and measure how fast its images decode on all cores."""
    directory = tempfile.TemporaryDirectory()
    folder = Path(directory.name)
    (folder / "crawl-1").mkdir()
    pairs = scaled(CASES[case].pairs, scale)
    deliver(folder / "crawl-1", pairs)
    images = [image for image, _ in demo_pairs()[:SAMPLE]]
    seconds = best_of(lambda: _decode(images)) / SAMPLE
    size = sum(path.stat().st_size for path in (folder / "crawl-1").iterdir())
    floor = Floor(
        "every image is decoded once by Pillow, on all cores at the rate of one; nothing is read, judged or written",
        bytes=3.0 * size,
        seconds=pairs * seconds / WORKERS,
    )
    return Work(
        set_up=lambda: directory,
        call=lambda kept: ingest(Path(kept.name)),
        floor=floor,
        facts=lambda counts: {**counts, "pairs": pairs},
        once=CASES[case].once,
    )


def _decode(images: Sequence[bytes]) -> None:
    for image in images:
        with Image.open(io.BytesIO(image)) as opened:
            opened.convert("RGB")


def lines(measured: Mapping[str, Measurement], scale: float) -> list[Line]:
    """Return lines for the rate and the memory of each delivery."""
    found = []
    for name, case in CASES.items():
        one = measured[name]
        rate, family = one.facts["pairs"] / one.median, one.facts["family"]
        work = f"ingest, {one.facts['pairs']:,} pairs of the demo, {WORKERS} workers"
        storing = f"{one.facts['storing']:.1f} s of the last run went into the table, after all shards were read"
        found += [
            Line(work, f"{rate:,.0f} pairs/s", f"{case.rate:,.0f} pairs/s", rate >= case.rate, one, storing),
            Line(
                f"{work}, peak memory of all processes",
                f"{family / GIB:.2f} GiB",
                f"{case.memory / GIB:g} GiB",
                family <= case.memory,
            ),
        ]
    return found


BENCHMARK = Benchmark("ingest of 40,000 and 1,000,000 small pairs", tuple(CASES), prepare, lines)
