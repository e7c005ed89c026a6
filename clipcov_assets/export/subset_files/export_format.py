"""What a format of exports is: chosen pairs enter, files leave."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from resources.export_shelf import UnfinishedExport

OnPairs = Callable[[int], None]  # told how many pairs have just been written
Watch = Callable[[int], OnPairs]  # told how many are to be written


class ExportError(ValueError):
    """A subset that cannot leave in this way; the message says why, and the remedy."""


class ChosenPairs(Protocol):
    """The pairs of a subset.

    Attributes:
        rows: uid, rank, gain, crawl, latent_class, bytes (of the image, 0 where there is none), in the order of the
            ranks. A place is a row of it.
    """

    rows: pa.Table

    def in_order_of_delivery(self) -> np.ndarray:
        """All places, crawl by crawl, oldest first, each as it was delivered."""

    def stream(self, places: np.ndarray, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Columns of `raw_pairs` in the order of `places`, a run at a time."""


@dataclass(frozen=True)
class ExportOptions:
    """What can be chosen.

    Attributes:
        pairs_per_shard: Most pairs of a webdataset shard; all shards are as large as the others, give or take one.
    """

    pairs_per_shard: int = 10_000

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.pairs_per_shard < 1:
            raise ExportError(f"{self.pairs_per_shard} pairs per shard: give a number from 1 on")


class Write(Protocol):
    """Writes an export."""

    def __call__(self, pairs: ChosenPairs, export: UnfinishedExport, *, options: ExportOptions, watch: Watch) -> None:
        """Write every piece that is not there yet."""


def _nothing_in_the_way(pairs: ChosenPairs) -> None:
    return None


def _nothing_to_plan(pairs: ChosenPairs, options: ExportOptions, directory: Path | str) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class ExportFormat:
    """One way in which a subset leaves.

    Attributes:
        name: As people ask for it.
        summary: What it is for, in one line.
        version: Goes up when the files of an equal subset change.
        write: Writes the pieces of an export that are not there yet, the same in the same order for equal pairs.
        obstacle: Why a subset cannot leave in this way, with the remedy; None where it can.
        plan: What decides the content of the files beside uid, rank, gain, image and caption: options, the folder where
            they will be; with what a person should know of it. It goes into the manifest.
    """

    name: str
    summary: str
    version: int
    write: Write
    obstacle: Callable[[ChosenPairs], str | None] = _nothing_in_the_way
    plan: Callable[[ChosenPairs, ExportOptions, Path | str], Mapping[str, Any]] = _nothing_to_plan


def images_missing(pairs: ChosenPairs) -> str | None:
    """Why a format with images cannot hold these pairs."""
    lacking = pc.equal(pairs.rows["bytes"], 0)
    count = pc.sum(lacking).as_py()
    if not count:
        return None
    first = pairs.rows["uid"].filter(lacking)[0].as_py()
    return (
        f"{count} of {len(pairs.rows)} pairs have no image, first uid {first}: they were delivered as embeddings. "
        "Export the subset as datacomp, parquet or keys"
    )


SUFFIXES = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG", "png"),
    (b"RIFF", "webp"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II", "tiff"),
    (b"MM", "tiff"),
)


def image_suffix(image: bytes, uid: str) -> str:
    """The suffix that an encoded image should have: its first bytes say what it is, delivered names do not.

    Raises:
        ExportError: It is none of the formats that are ingested.
    """
    for signature, suffix in SUFFIXES:
        if image.startswith(signature):
            return suffix
    raise ExportError(f"the image of uid {uid} begins with {image[:8]!r}, as no image does: ingest its crawl again")
