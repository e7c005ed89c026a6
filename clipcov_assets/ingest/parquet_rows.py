"""Rows of a parquet file in runs that can be read on their own, a small batch in memory at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clipcov_assets.ingest.delivery import DeliveryError, printable

ROWS_A_RUN = 4096
RUNS_A_GROUP = 8  # a run inside a row group decodes what comes before it, so a group is not cut finer
MOST_ROWS = 100_000_000  # of a file; a footer that declares more is damaged
READ_AHEAD = 2**20  # bytes a column; without it a column of a whole row group lies in memory


@dataclass(frozen=True)
class RowRun:
    """Consecutive rows: `count` of them after the first `skip` of `groups`; the first is row `first` of the file.

    `size` is what they take in the file, in bytes.
    """

    groups: tuple[int, ...]
    skip: int
    first: int
    count: int
    size: int


@dataclass(frozen=True)
class LostRow:
    """A row that the file promises and does not give."""

    detail: str


Cells = tuple[Any, ...]  # of one row, in the order of the columns asked for


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a file; only its footer is read.

    Raises:
        DeliveryError: It is no parquet, or was cut short, or its footer contradicts itself.
    """
    try:
        file = pq.ParquetFile(path, buffer_size=READ_AHEAD, pre_buffer=False)
        counts = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
        if min(counts, default=0) < 0 or sum(counts) != file.metadata.num_rows or sum(counts) > MOST_ROWS:
            raise ValueError(f"row groups of {sum(counts)} rows, {file.metadata.num_rows} in all")
        return file
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = printable(str(error).strip())
        raise DeliveryError(f"{path} is no readable parquet ({reason}); fetch or write it again") from error


def cut_rows(file: pq.ParquetFile) -> Iterator[RowRun]:
    """Yield all rows in runs of some thousands, or of an eighth of a row group where that is more."""
    first = 0
    groups: list[int] = []
    count = size = 0
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        groups.append(number)
        count, size = count + group.num_rows, size + group.total_byte_size
        if count >= ROWS_A_RUN:
            yield from _cut_groups(tuple(groups), first, count, size)
            first, groups, count, size = first + count, [], 0, 0
    if count:
        yield from _cut_groups(tuple(groups), first, count, size)


def read_rows(path: Path, run: RowRun, columns: Sequence[str], *, batch_size: int) -> Iterator[Cells | LostRow]:
    """Yield `run.count` rows; what cannot be read leaves as `LostRow`.

    Text and numbers leave as bytes, since text may not be UTF-8; lists as lists of bytes; an image with
    bytes and path as its bytes.

    Args:
        path: The file.
        run: Out of `cut_rows` of the same file.
        columns: Their names.
        batch_size: Rows in memory at a time.
    """
    done = 0
    detail = "the file has become shorter"
    try:
        for batch in _batches(path, run, columns, batch_size):
            cells = [_values(batch.column(name)) for name in columns]
            for row in zip(*cells, strict=True):
                done += 1
                yield row
    except (pa.ArrowException, OSError, ValueError, LookupError, DeliveryError) as error:
        detail = printable(str(error).strip())
    for _ in range(run.count - done):
        yield LostRow(detail)


def _cut_groups(groups: tuple[int, ...], first: int, count: int, size: int) -> Iterator[RowRun]:
    n_runs = max(1, min(RUNS_A_GROUP, count // ROWS_A_RUN))
    rows = -(-count // n_runs)
    for skip in range(0, count, rows):
        taken = min(rows, count - skip)
        yield RowRun(groups, skip, first + skip, taken, max(0, size) * taken // count)


def _batches(path: Path, run: RowRun, columns: Sequence[str], batch_size: int) -> Iterator[pa.RecordBatch]:
    skip, count = run.skip, run.count
    with open_parquet(path) as file:
        groups = list(run.groups)
        for batch in file.iter_batches(batch_size, row_groups=groups, columns=list(columns), use_threads=False):
            passed_over = min(skip, len(batch))
            kept = batch.slice(passed_over, count)
            skip, count = skip - passed_over, count - len(kept)
            if len(kept):
                yield kept
            if not count:
                return


def _values(column: pa.Array) -> list[Any]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _values(column.dictionary_decode())
    if pa.types.is_struct(kind):
        return _values(pc.struct_field(column, "bytes"))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return list(column.cast(pa.large_list(pa.large_binary())).to_pylist())
    if pa.types.is_integer(kind):
        column = column.cast(pa.string())
    return list(column.cast(pa.large_binary()).to_pylist())


def is_text_or_number(kind: pa.DataType) -> bool:
    """Whether a column holds one text or one whole number a row."""
    return is_text(kind) or bool(pa.types.is_integer(kind))


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds one text a row."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_text_list(kind: pa.DataType) -> bool:
    """Whether a column holds several texts a row."""
    return bool((pa.types.is_list(kind) or pa.types.is_large_list(kind)) and is_text(kind.value_type))


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column holds bytes, or bytes and path as Hugging Face writes images."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and is_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))
