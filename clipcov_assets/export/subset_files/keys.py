"""Key lists for the deliveries as they lie: which pairs to take out of which tar, so that no bytes move."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipcov_assets.export.subset_files.export_format import ChosenPairs, ExportFormat, ExportOptions, Watch
from resources.export_shelf import UnfinishedExport

NAME = "keys.parquet"
PLACE = ["file", "key", "row"]
HOW_TO_READ = (
    "key names a pair's members in the tar; a pair without a key lies in a table, where row names it, or is a file"
)
COLUMNS = pa.schema(
    {
        "crawl": pa.string(),
        "file": pa.string(),
        "key": pa.string(),
        "row": pa.int64(),
        "uid": pa.string(),
        "rank": pa.int64(),
    }
)


def _write(pairs: ChosenPairs, export: UnfinishedExport, *, options: ExportOptions, watch: Watch) -> None:
    order = pairs.in_order_of_delivery()
    if NAME not in export:
        with export.piece(NAME) as piece, piece.open(NAME) as file, _writer(file) as table:
            for rows in _rows(pairs, order):
                table.write_table(rows)


def _rows(pairs: ChosenPairs, order: np.ndarray) -> Iterator[pa.Table]:
    start = 0
    for places in pairs.stream(order, PLACE):
        names = pairs.rows.select(["crawl", "uid", "rank"]).take(pa.array(order[start : start + len(places)]))
        start += len(places)
        yield pa.table([(places if name in PLACE else names)[name] for name in COLUMNS.names], schema=COLUMNS)


def _plan(pairs: ChosenPairs, options: ExportOptions, directory: Path | str) -> dict[str, Any]:
    digest, without_key = hashlib.sha256(), 0
    for places in pairs.stream(pairs.in_order_of_delivery(), PLACE):
        digest.update(repr(places.to_pydict()).encode())
        without_key += places["key"].null_count
    return {"places": digest.hexdigest()[:16], "without_key": without_key, "how_to_read": HOW_TO_READ}


def _writer(file: object) -> pq.ParquetWriter:
    return pq.ParquetWriter(file, COLUMNS, compression="zstd")


KEYS = ExportFormat(
    name="keys",
    summary="file and key of every pair in the deliveries, crawl by crawl; no image is copied",
    version=1,
    write=_write,
    plan=_plan,
)
