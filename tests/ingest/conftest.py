"""Deliveries and evaluation sets made in memory, with whatever is wrong with them, and how shards are read."""

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from PIL import Image

from clipcov_assets.ingest.delivery import Fault, Pair, Shard

Members = Sequence[tuple[str, bytes]]


def encoded_image(colour: int = 0, *, format: str = "PNG", size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (colour % 256, 128, 255 - colour % 256)).save(buffer, format)
    return buffer.getvalue()


def pair_members(key: str, *, colour: int = 0, uid: str | None = None, caption: str | None = None) -> Members:
    metadata = {"key": key} | ({"uid": uid} if uid else {})
    return [
        (f"{key}.png", encoded_image(colour)),
        (f"{key}.txt", (caption or f"caption {key}").encode()),
        (f"{key}.json", json.dumps(metadata).encode()),
    ]


def tar_bytes(members: Iterable[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def write_shard(
    directory: Path,
    members: Iterable[tuple[str, bytes]] | bytes,
    *,
    successes: int,
    name: str = "00000",
    rows: Sequence[dict[str, Any]] | None = None,
) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    tar = directory / f"{name}.tar"
    tar.write_bytes(members if isinstance(members, bytes) else tar_bytes(members))
    (directory / f"{name}_stats.json").write_text(json.dumps({"count": successes, "successes": successes}))
    if rows is not None:
        schema = {"key": pl.String, "status": pl.String, "uid": pl.String}
        pl.DataFrame(rows, schema=schema).write_parquet(directory / f"{name}.parquet")
    return tar


def read_shard(shard: Shard) -> SimpleNamespace:
    """Everything that a shard gives; the counting equation holds for each that a test reads."""
    contents = shard.read()
    outcomes = list(contents.outcomes)
    assert contents.promised == len(outcomes)
    return SimpleNamespace(
        promised=contents.promised,
        remarks=contents.remarks,
        outcomes=outcomes,
        pairs=[outcome for outcome in outcomes if isinstance(outcome, Pair)],
        faults=[outcome for outcome in outcomes if isinstance(outcome, Fault)],
    )


def write_evaluation_set(directory: Path, shards: Sequence[Members], *, classes: str = "cat\ndog\n") -> Path:
    (directory / "test").mkdir(parents=True, exist_ok=True)
    (directory / "classnames.txt").write_text(classes)
    (directory / "zeroshot_classification_templates.txt").write_text("a photo of {c}.\n{c}\n")
    (directory / "test" / "nshards.txt").write_text(f"{len(shards)}\n")
    for number, members in enumerate(shards):
        (directory / "test" / f"{number}.tar").write_bytes(tar_bytes(members))
    return directory


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The makers above under one name, because test files cannot import each other."""
    return SimpleNamespace(
        image=encoded_image,
        pair=pair_members,
        tar=tar_bytes,
        shard=write_shard,
        evaluation_set=write_evaluation_set,
        read=read_shard,
    )


@pytest.fixture
def declared_png() -> Callable[[int, int], bytes]:
    """A valid PNG header that declares any size, with next to no bytes behind it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    def declare(width: int, height: int) -> bytes:
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")

    return declare
