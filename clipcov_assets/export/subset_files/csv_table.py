"""open_clip's CSV: a table of `filepath` and `title`, tab-separated, with the images as files beside it.

open_clip opens a path from wherever it runs, so the paths are absolute. It reads the table with pandas and its
defaults, which take some captions for missing values or numbers; those get a no-break space at their end, which
open_clip's tokenizer takes off again.
"""

import csv
import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clipcov_assets.export.subset_files.export_format import (
    ChosenPairs,
    ExportFormat,
    ExportOptions,
    Watch,
    image_suffix,
    images_missing,
)
from resources.export_shelf import UnfinishedExport

NAME = "pairs.csv"
FOLDER_PAIRS = 1_000
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"
# What `pandas.read_csv` takes for a missing value (pandas 3); in captions "None" and "N/A" are common.
MISSING_TO_PANDAS = frozenset(
    ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"]
    + ["N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"]
)
TRUTHS = frozenset({"true", "false"})


def text_to_pandas(caption: str) -> str:
    """A caption that `pandas.read_csv` reads as text: itself, or with a no-break space at its end."""
    return caption + NO_BREAK_SPACE if caption in MISSING_TO_PANDAS or _is_value(caption) else caption


def _is_value(caption: str) -> bool:
    try:
        float(caption)
    except ValueError:
        return caption.strip().lower() in TRUTHS
    return True


def _write(pairs: ChosenPairs, export: UnfinishedExport, *, options: ExportOptions, watch: Watch) -> None:
    _write_images(pairs, export, watch)
    if NAME not in export:
        with export.piece(NAME) as piece, piece.open(NAME) as file:
            file.write(b"filepath\ttitle\n")
            paths = _paths(export, len(pairs.rows))
            for run in pairs.stream(np.arange(len(pairs.rows)), ["caption"]):
                file.write(_lines(paths, run["caption"].to_pylist()))


def _write_images(pairs: ChosenPairs, export: UnfinishedExport, watch: Watch) -> None:
    folders = np.split(np.arange(len(pairs.rows)), range(FOLDER_PAIRS, len(pairs.rows), FOLDER_PAIRS))
    unwritten = [places for places in folders if _folder(places[0]) not in export]
    on_pairs = watch(sum(map(len, unwritten)))
    images = _images(pairs, np.concatenate([np.empty(0, np.int64), *unwritten]))
    for places in unwritten:
        folder = _folder(places[0])
        with export.piece(folder) as piece:
            piece.add_folder(folder, islice(images, len(places)))
        on_pairs(len(places))


def _images(pairs: ChosenPairs, places: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Name and content of each image; a name is the rank of its pair."""
    start = 0
    for run in pairs.stream(places, ["image"]):
        ranks = places[start : start + len(run)]
        start += len(run)
        uids = pairs.rows["uid"].take(pa.array(ranks)).to_pylist()
        for rank, uid, image in zip(ranks.tolist(), uids, run["image"], strict=True):
            content = image.as_py()
            yield f"{rank:09d}.{image_suffix(content, uid)}", content


def _folder(place: int) -> str:
    return f"images/{place // FOLDER_PAIRS:06d}"


def _paths(export: UnfinishedExport, n: int) -> Iterator[str]:
    for place in range(0, n, FOLDER_PAIRS):
        folder = _folder(place)
        for name in export.names(folder):
            yield f"{export.directory}/{folder}/{name}"


def _lines(paths: Iterator[str], captions: list[str]) -> bytes:
    lines = io.StringIO()
    table = csv.writer(lines, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
    table.writerows((next(paths), text_to_pandas(caption)) for caption in captions)
    return lines.getvalue().encode()


def _plan(pairs: ChosenPairs, options: ExportOptions, directory: Path | str) -> dict[str, Any]:
    return {"paths_begin_with": str(directory)}


CSV = ExportFormat(
    name="csv",
    summary="filepath and title for open_clip, with the images as files",
    version=1,
    write=_write,
    obstacle=images_missing,
    plan=_plan,
)
