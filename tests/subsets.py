"""Small subsets in LanceDB for tests: crawls, the pool over them, and the chosen pairs."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from clipcov_assets.export.subset_files.export_format import ExportOptions
from clipcov_assets.jobs.export import export_subset
from clipcov_assets.pool_tables import PooledCrawl, pooled_crawls_metadata
from clipcov_assets.tables import POOL, RANKING, RAW_PAIRS
from resources.export_shelf import ExportShelf, FinishedExport
from resources.lance_store import LanceStore
from tests.deliveries import image

Row = dict[str, Any]
ASSET, PARTITION = "clipcov_subset", "crawl-2|f20"


def raw_pair(seed: int, **changes: Any) -> Row:
    """A row of raw pairs; `changes` replaces some of its values."""
    row: Row = {
        "uid": f"{seed:032x}",
        "caption": f"picture of class {seed % 4}, number {seed}",
        "image": changes["image"] if "image" in changes else image(seed),
        "file": f"{seed // 10:05d}.tar",
        "key": f"{seed:08d}",
        "row": None,
        **changes,
    }
    row["bytes"] = None if row["image"] is None else len(row["image"])
    row["content"] = hashlib.blake2b((row["image"] or b"") + row["caption"].encode(), digest_size=16).digest()
    return row


def write_crawl(store: LanceStore, crawl: str, rows: list[Row]) -> PooledCrawl:
    """Store the pairs of a crawl."""
    version = store.write("raw_pairs", crawl, pa.Table.from_pylist(rows, schema=RAW_PAIRS)).version
    return PooledCrawl(crawl, len(rows), len(rows), {"raw_pairs": version})


def write_subset(home: Path, crawls: Mapping[str, list[Row]], chosen: Iterable[str]) -> LanceStore:
    """Store crawls, their pool as of the last one, and a subset: uids, first pick first."""
    store = LanceStore(uri=str(home / "lance"))
    pooled = [write_crawl(store, crawl, rows) for crawl, rows in crawls.items()]
    owners: dict[str, str] = {}
    for crawl, rows in crawls.items():
        for row in rows:
            owners.setdefault(row["uid"], crawl)
    pool = [
        {"uid": uid, "crawl": crawl, "latent_class": number % 3, "clip_score": 0.5}
        for number, (uid, crawl) in enumerate(owners.items())
    ]
    store.write("pool", "crawl-2", pa.Table.from_pylist(pool, schema=POOL), metadata=pooled_crawls_metadata(pooled))
    subset = [{"uid": uid, "rank": rank, "gain": 1 / (1 + rank)} for rank, uid in enumerate(chosen)]
    store.write(ASSET, PARTITION, pa.Table.from_pylist(subset, schema=RANKING))
    return store


def two_crawls(home: Path, pairs: int = 30) -> LanceStore:
    """Two crawls that share some pairs, and every other pair of their pool chosen, last ones first."""
    rows = [raw_pair(seed) for seed in range(pairs)]
    crawls = {"crawl-1": rows[: pairs // 2 + 3], "crawl-2": rows[pairs // 2 :][::-1]}
    return write_subset(home, crawls, [row["uid"] for row in rows[::-2]])


def export(store: LanceStore, directory: Path, *formats: str, pairs_per_shard: int = 10_000) -> list[FinishedExport]:
    """Export the subset that `write_subset` stored."""
    options = ExportOptions(pairs_per_shard=pairs_per_shard)
    exports = ExportShelf(directory=str(directory))
    return export_subset(store, exports, ASSET, PARTITION, formats, options, print)


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below a directory."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
