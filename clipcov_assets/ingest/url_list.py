r"""Format `url_list`: tables of addresses and captions. Nothing is fetched here; the message says how to.

CC3M's TSV is caption and address, CC12M's address and caption, both without a header: the order is found by looking.
"""

import json
import shlex
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipcov_assets.ingest import delimited_rows, parquet_rows
from clipcov_assets.ingest.columns import CAPTIONS, UID, URLS, find_column, is_url, read_names
from clipcov_assets.ingest.delimited_rows import Header
from clipcov_assets.ingest.delivery import DeliveryError, DeliveryOptions, Format, Shard
from clipcov_assets.ingest.looking import IMAGE_SUFFIXES, TABLE_SUFFIXES, first_files, suffix_of

# img2dataset does not start on Python 3.13 and later, and must not share an environment with open_clip.
PROGRAM = "uvx --python 3.12 img2dataset"


@dataclass(frozen=True)
class UrlTable:
    """A table of addresses.

    Attributes:
        path: The file.
        kind: As img2dataset calls it: csv, tsv, parquet.
        url: Column of the address.
        caption: Column of the caption; None if there is none.
        uid: Column of the uid; None if there is none.
        header: The line that is to be put on top; None if the table has one.
    """

    path: Path
    kind: str
    url: str
    caption: str | None
    uid: str | None
    header: str | None


def find_url_table(path: Path) -> UrlTable | None:
    """Return how a table names its addresses; None if it has none.

    Raises:
        DeliveryError: It cannot be read.
    """
    for names, header in read_names(path):
        kind = "parquet" if header is None else {b"\t": "tsv", b",": "csv"}.get(header.delimiter)
        if kind is None:
            continue
        if header is not None and len(names) == 2 and sum(is_url(name.encode()) for name in names) == 1:
            order = ("url", "caption") if is_url(names[0].encode()) else ("caption", "url")
            return UrlTable(path, kind, "url", "caption", None, ("\\t" if kind == "tsv" else ",").join(order))
        url = find_column(names, None, URLS) or _column_of_urls(path, names, header)
        if url is not None:
            caption = find_column([name for name in names if name != url], None, CAPTIONS)
            return UrlTable(path, kind, url, caption, find_column(names, None, (UID,)), None)
    return None


def _column_of_urls(path: Path, names: tuple[str, ...], header: Header | None) -> str | None:
    """Return the column whatever its name, such as "image", where the first row has an address."""
    if header is None:
        with parquet_rows.open_parquet(path) as file:
            runs = list(parquet_rows.cut_rows(file))[:1]
        rows = [next(parquet_rows.read_rows(path, run, names, batch_size=1)) for run in runs if names]
        cells = next((row for row in rows if not isinstance(row, parquet_rows.LostRow)), ())
    else:
        first = next(delimited_rows.cut_rows(path, header), None)
        lines = [] if first is None else delimited_rows.read_rows(path, header, first)
        cells = tuple(delimited_rows.split_row(lines[0], header.delimiter) or ()) if lines else ()
    return next((name for name, cell in zip(names, cells, strict=False) if is_url(cell or b"")), None)


def download_commands(directory: Path, tables: Sequence[UrlTable]) -> list[str]:
    """Return the commands, ready for a shell, that make a delivery of tables of addresses."""
    commands = []
    for header, same in _grouped(tables, lambda table: table.header):
        if header is not None:
            paths = " ".join(shlex.quote(str(table.path.absolute())) for table in same)
            commands.append(f"sed -i '1s/^/{header}\\n/' {paths}")
    groups = _grouped(tables, _shared)
    output = str(directory.absolute()) + "-pairs"
    for number, (_, same) in enumerate(groups):
        commands.append(_download_command(same, output if len(groups) == 1 else f"{output}-{number}"))
    return commands


def _shared(table: UrlTable) -> Hashable:
    """Equal for tables that one command takes: it finds those of a folder by their suffix."""
    alone = None if suffix_of(table.path.name) == f".{table.kind}" else table.path
    return table.path.parent, alone, table.kind, table.url, table.caption, table.uid


def _download_command(tables: Sequence[UrlTable], output: str) -> str:
    """Return the command for tables of one folder with the same columns."""
    table = tables[0]
    urls = table.path if len(tables) == 1 else table.path.parent
    arguments = ["--url_list", str(urls.absolute()), "--input_format", table.kind, "--url_col", table.url]
    if table.caption is not None:
        arguments += ["--caption_col", table.caption]
    if table.uid is not None:
        arguments += ["--save_additional_columns", json.dumps([table.uid])]
    # Its default pads images with white; this keeps them whole, the shorter side at 256 pixels.
    arguments += ["--resize_mode", "keep_ratio", "--image_size", "256"]
    arguments += ["--output_format", "webdataset", "--output_folder", output]
    return f"{PROGRAM} {shlex.join(arguments)}"


def _grouped(tables: Sequence[UrlTable], key: Callable[[UrlTable], Hashable]) -> list[tuple[Any, list[UrlTable]]]:
    groups: dict[Hashable, list[UrlTable]] = {}
    for table in tables:
        groups.setdefault(key(table), []).append(table)
    return list(groups.items())


def _tables(directory: Path) -> Iterator[UrlTable]:
    for path in first_files(directory, TABLE_SUFFIXES):
        with suppress(DeliveryError):
            table = find_url_table(path)
            if table is not None:
                yield table


def _has_images(directory: Path) -> bool:
    return any(first_files(directory, IMAGE_SUFFIXES))


def _is_here(directory: Path) -> bool:
    return next(_tables(directory), None) is not None and not _has_images(directory)


def _obstacle(directory: Path) -> str:
    tables = sorted(_tables(directory), key=lambda table: table.path)
    if not tables:
        return f"{directory} holds no table of addresses"
    commands = "\n".join(f"    {command}" for command in download_commands(directory, tables))
    return (
        f"{directory} holds addresses of images and no images ({tables[0].path.name}). Fetch them first, then give "
        f"the folder that img2dataset fills as the delivery; it runs in an environment of its own:\n{commands}"
    )


def _shards(directory: Path, options: DeliveryOptions) -> tuple[Shard, ...]:
    raise DeliveryError(_obstacle(directory))


FORMAT = Format(name="url_list", is_here=_is_here, obstacle=_obstacle, shards=_shards)
