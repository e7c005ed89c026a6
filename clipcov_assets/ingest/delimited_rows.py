r"""Rows of a CSV or TSV: where each begins, so that many workers share one file, and its fields as bytes.

A field is quoted if its closing quote ends it; otherwise its quotes are characters like others, as in a TSV that
was joined by hand. A quote that is opened and never closed costs its own line and none after it.
"""

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from clipcov_assets.ingest.delivery import DeliveryError

ROWS_A_RUN = 4096
BYTES_A_RUN = 8 * 2**20
LONGEST_HEADER = 64 * 2**10  # bytes
LONGEST_ROW = 256 * 2**10  # bytes that a quoted field may go on for
DELIMITERS = (b"\t", b",", b";", b"|")

_QUOTED = re.compile(rb'"((?:[^"]++|"")*+)"')
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Header:
    """The first row of a table, read with one delimiter; rows of data begin at byte `end`."""

    delimiter: bytes
    names: tuple[str, ...]
    end: int


@dataclass(frozen=True)
class RowRun:
    """Consecutive rows: bytes `start` to `end`, the first of them row `first` of the data, `count` of them."""

    start: int
    end: int
    first: int
    count: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


def read_headers(path: Path) -> list[Header]:
    """Return the first row as each delimiter splits it into two or more fields; nothing if it is not UTF-8 text.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(LONGEST_HEADER)
    start = len(_BYTE_ORDER_MARK) if head.startswith(_BYTE_ORDER_MARK) else 0
    headers = []
    for delimiter in DELIMITERS:
        end = _row_end(head, start, delimiter)
        fields = split_row(head[start:end], delimiter)
        try:
            names = tuple(field.decode("utf-8").strip() for field in fields or ())
        except UnicodeDecodeError:
            continue
        if len(names) > 1:
            headers.append(Header(delimiter, names, end))
    return headers


def cut_rows(path: Path, header: Header) -> Iterator[RowRun]:
    """Yield runs of a few thousand rows, in one pass that looks for ends of lines and quotes only.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        if file.seek(0, 2) <= header.end:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            first, count, start, end = 0, 0, header.end, header.end
            for row_start, row_end in _row_spans(data, header):
                if count == ROWS_A_RUN or (count and row_end - start > BYTES_A_RUN):
                    yield RowRun(start, end, first, count)
                    first, count, start = first + count, 0, row_start
                count, end = count + 1, row_end
            if count:
                yield RowRun(start, end, first, count)


def read_rows(path: Path, header: Header, run: RowRun) -> list[bytes]:
    """Return the rows of a run as they stand in the file.

    Raises:
        DeliveryError: The file has changed since it was cut, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(run.start)
            data = file.read(run.size)
    except OSError as error:
        raise DeliveryError(f"{path} cannot be read ({error.strerror}); put it back and run again") from error
    rows = [data[start:end] for start, end in _row_spans(data, replace(header, end=0))]
    if len(rows) != run.count:
        raise DeliveryError(f"{path} has changed while it was read; run again when it is complete")
    return rows


def split_row(row: bytes, delimiter: bytes) -> list[bytes] | None:
    """Return the fields of a row; None if a quote is opened and not closed."""
    row = _without_line_end(row)
    if b'"' not in row:
        return row.split(delimiter)
    fields = []
    at = 0
    while True:
        quoted = None
        if row.startswith(b'"', at):
            quoted = _QUOTED.match(row, at)
            if quoted is None:
                return None
        if quoted is not None and row[quoted.end() : quoted.end() + 1] in (b"", delimiter):
            fields.append(quoted[1].replace(b'""', b'"'))
            at = quoted.end()
        else:
            end = row.find(delimiter, at)
            fields.append(row[at:] if end < 0 else row[at:end])
            at = len(row) if end < 0 else end
        if at == len(row):
            return fields
        at += 1


def _row_spans(data: bytes | mmap.mmap, header: Header) -> Iterator[tuple[int, int]]:
    """Yield where rows begin and end, with their ends of line; empty lines are no rows."""
    start = header.end
    while start < len(data):
        end = _row_end(data, start, header.delimiter, n_fields=len(header.names))
        if end - start > 2 or data[start:end].strip(b"\r\n"):
            yield start, end
        start = end


def _row_end(data: bytes | mmap.mmap, start: int, delimiter: bytes, *, n_fields: int = 0) -> int:
    """Return where the next row begins; `n_fields` of a row of data, where it is known."""
    first_line_end = line_end = _line_end(data, start)
    if data.find(b'"', start, line_end) < 0:
        return line_end
    at = start
    while True:
        if data[at : at + 1] == b'"':
            quoted = _QUOTED.match(data, at, min(len(data), start + LONGEST_ROW))
            if quoted is not None and data[quoted.end() : quoted.end() + 1] in (b"", b"\n", b"\r", delimiter):
                at = quoted.end()
                if at > line_end:
                    line_end = _line_end(data, at)
            elif quoted is None or quoted.end() > line_end:
                return first_line_end
        at = data.find(delimiter, at, line_end)
        if at < 0:
            break
        at += 1
    if line_end > first_line_end and delimiter == b"\t" and n_fields:
        # Captions hold no tabs: when every line is a full row, two stray quotes have met across rows.
        lines = data[start:line_end].rstrip(b"\r\n").split(b"\n")
        if all(line.count(b"\t") == n_fields - 1 for line in lines):
            return first_line_end
    return line_end


def _line_end(data: bytes | mmap.mmap, at: int) -> int:
    return data.find(b"\n", at) + 1 or len(data)


def _without_line_end(row: bytes) -> bytes:
    return row.removesuffix(b"\n").removesuffix(b"\r")
