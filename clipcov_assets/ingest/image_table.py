"""Format `table`: CSV, TSV and parquet files that name an image file and its caption in every row.

open_clip writes `filepath` and `title` with tabs, CyCLIP `image` and `caption` with commas; other names are found
by looking, or come from `delivery.toml`. Image paths are absolute, or relative to the table or to the delivery.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from clipcov_assets.ingest import delimited_rows, parquet_rows
from clipcov_assets.ingest.columns import IMAGE_PATHS, Columns, find_columns, is_url, no_columns, read_names
from clipcov_assets.ingest.delimited_rows import Header
from clipcov_assets.ingest.delivery import (
    DeliveryError,
    DeliveryOptions,
    Fault,
    Format,
    Pair,
    Place,
    Reason,
    Shard,
    ShardContents,
    files_fingerprint,
)
from clipcov_assets.ingest.delivery_files import DeliveryFiles
from clipcov_assets.ingest.judging import judge, place_name, rows_digest, run_name
from clipcov_assets.ingest.looking import TABLE_SUFFIXES, first_files, walk_files
from clipcov_assets.ingest.pair_parts import RejectedPartError
from clipcov_assets.ingest.parquet_images import image_columns
from clipcov_assets.ingest.parquet_rows import LostRow
from clipcov_assets.ingest.unreadable_table import table_shards

BATCH = 1024  # rows of text


class Row(NamedTuple):
    """What a table says of a pair, as bytes."""

    image: bytes | None
    caption: bytes | None
    uid: bytes | None


@dataclass(frozen=True)
class DelimitedTable:
    """A CSV or TSV and its columns."""

    path: Path
    header: Header
    columns: Columns

    def runs(self) -> Iterator[delimited_rows.RowRun]:
        """Cut the table."""
        return delimited_rows.cut_rows(self.path, self.header)

    def read(self, run: delimited_rows.RowRun) -> Iterator[Row | LostRow]:
        """Return the rows of a run.

        Raises:
            DeliveryError: The file has changed since it was cut.
        """
        return map(self._row, delimited_rows.read_rows(self.path, self.header, run))

    def _row(self, line: bytes) -> Row | LostRow:
        names, columns = self.header.names, self.columns
        fields = delimited_rows.split_row(line, self.header.delimiter)
        if fields is None:
            return LostRow("a quote is opened and not closed")
        if len(fields) != len(names):
            return LostRow(f"{len(fields)} fields, the header has {len(names)}")
        uid = None if columns.uid is None else fields[names.index(columns.uid)]
        return Row(fields[names.index(columns.image)], fields[names.index(columns.caption)], uid)


@dataclass(frozen=True)
class ParquetTable:
    """A parquet file and its columns."""

    path: Path
    columns: Columns

    def runs(self) -> Iterator[parquet_rows.RowRun]:
        """Cut the table."""
        with parquet_rows.open_parquet(self.path) as file:
            yield from parquet_rows.cut_rows(file)

    def read(self, run: parquet_rows.RowRun) -> Iterator[Row | LostRow]:
        """Yield the rows of a run."""
        for cells in parquet_rows.read_rows(self.path, run, self.columns.names, batch_size=BATCH):
            yield cells if isinstance(cells, LostRow) else Row(cells[0], cells[1], cells[2] if cells[2:] else None)


@dataclass(frozen=True)
class TableShard:
    """A run of rows and the image files that they name."""

    directory: Path
    table: DelimitedTable | ParquetTable
    run: Any  # of the table's own kind

    @property
    def name(self) -> str:
        """The table and the numbers of the rows."""
        return run_name(self.directory, self.table.path, self.run.first, self.run.count)

    @property
    def size(self) -> int:
        """Bytes of the rows, which stand for their images."""
        return int(self.run.size)

    def fingerprint(self) -> str:
        """Digest of the rows and of the images that they name."""
        try:
            rows = rows_digest(self.table.read(self.run), self.run.first, self.table.columns)
            return files_fingerprint(self._images(), rows)
        except DeliveryError:  # `read` says what is wrong
            return files_fingerprint([self.table.path], "unreadable")

    def read(self) -> ShardContents:
        """Judge every row.

        Raises:
            DeliveryError: The table has changed since the delivery was found.
        """
        rows = self.table.read(self.run)
        return ShardContents(promised=self.run.count, outcomes=self._outcomes(rows))

    def _outcomes(self, rows: Iterator[Row | LostRow]) -> Iterator[Pair | Fault]:
        files = DeliveryFiles(self.directory)
        file = place_name(self.directory, self.table.path)
        for number, row in enumerate(rows, self.run.first):
            place = Place(file, row=number)
            if isinstance(row, LostRow):
                yield Fault(place, None, Reason.ROW_UNREADABLE, row.detail)
            else:
                load = partial(files.read, os.fsdecode(row.image or b""), beside=self.table.path.parent)
                yield judge(place, uid=row.uid, caption=row.caption, image=load)

    def _images(self) -> Iterator[Path]:
        """Yield the files that `read` opens."""
        files = DeliveryFiles(self.directory)
        for row in self.table.read(self.run):
            if not isinstance(row, LostRow):
                with suppress(RejectedPartError):
                    yield files.find(os.fsdecode(row.image or b""), beside=self.table.path.parent)


def _is_here(directory: Path) -> bool:
    for path in first_files(directory, TABLE_SUFFIXES):
        with suppress(DeliveryError, OSError):
            _read_table(path, DeliveryOptions())
            return True
    return False


def _shards(directory: Path, options: DeliveryOptions) -> tuple[Shard, ...]:
    def cut(path: Path) -> list[Shard]:
        table = _read_table(path, options)
        return [TableShard(directory, table, run) for run in table.runs()]

    return table_shards(directory, sorted(walk_files(directory, TABLE_SUFFIXES)), cut)


def _read_table(path: Path, options: DeliveryOptions) -> DelimitedTable | ParquetTable:
    """Find the columns of a table.

    Raises:
        DeliveryError: It is not readable, or its columns are not those of image files and captions.
    """
    names: Sequence[str] = ()
    for names, header in read_names(path):
        columns = find_columns(names, options, IMAGE_PATHS)
        if columns is not None:
            table = ParquetTable(path, columns) if header is None else DelimitedTable(path, header, columns)
            if not _holds_urls(table) and not (header is None and _holds_images(path)):
                return table
    raise no_columns(path, names, "image files")


def _holds_urls(table: DelimitedTable | ParquetTable) -> bool:
    for run in table.runs():
        row = next(table.read(run), None)  # type: ignore[arg-type]
        return isinstance(row, Row) and is_url(row.image or b"")
    return False


def _holds_images(path: Path) -> bool:
    """Whether a parquet brings the images along, so that a path in it is only where they came from."""
    try:
        image_columns(path, DeliveryOptions())
    except DeliveryError:
        return False
    return True


FORMAT = Format(name="table", is_here=_is_here, obstacle=lambda directory: None, shards=_shards)
