"""Webdataset shards in img2dataset's layout: NNNNN.tar with its .parquet and _stats.json.

A shard is a random sample of the subset: pairs are in the order of a draw that belongs to their uid. A reader that
streams with a small shuffle buffer so sees the subset mixed, not class by class or best pairs first, and an equal
subset gives equal files, byte for byte.
"""

import json
import tarfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipcov_assets.export.subset_files.export_format import (
    ChosenPairs,
    ExportFormat,
    ExportOptions,
    Watch,
    image_suffix,
    images_missing,
)
from resources.export_shelf import Piece, UnfinishedExport

SEED = 0
UIDS_AT_ONCE = 65_536
# Readers look for these and tell the format from the bytes; an image of another format is called a png.
SUFFIXES_OF_TARS = frozenset({"jpg", "png", "webp"})
TABLE = pa.schema(
    {
        "key": pa.string(),
        "uid": pa.string(),
        "caption": pa.string(),
        "status": pa.string(),
        "rank": pa.int64(),
        "gain": pa.float32(),
    }
)


# Of a member without a name and a size: what the checksum of the others begins with.
HEADER = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
HEADER_SUM = int(HEADER[148:154], 8) - sum(HEADER[124:135])


class _Shard(NamedTuple):
    name: str
    places: np.ndarray
    key_digits: int

    def pair_keys(self) -> Iterator[str]:
        """The name of the shard and the number of the pair in it, as img2dataset's."""
        return (f"{self.name}{number:0{self.key_digits}d}" for number in range(len(self.places)))


class _Pair(NamedTuple):
    row: dict[str, Any]
    image: bytes


def _write(pairs: ChosenPairs, export: UnfinishedExport, *, options: ExportOptions, watch: Watch) -> None:
    shards = [shard for shard in _shards(pairs, options.pairs_per_shard) if shard.name not in export]
    on_pairs = watch(sum(len(shard.places) for shard in shards))
    found = _pairs(pairs, shards)
    for shard in shards:
        with export.piece(shard.name) as piece:
            _write_shard(piece, shard.name, islice(found, len(shard.places)))
        on_pairs(len(shard.places))


def _shards(pairs: ChosenPairs, pairs_per_shard: int) -> list[_Shard]:
    n = len(pairs.rows)
    order = np.argsort(_draws(pairs.rows["uid"]), kind="stable")
    count = -(-n // pairs_per_shard)
    digits, key_digits = max(5, len(str(count - 1))), max(4, len(str(pairs_per_shard - 1)))
    shards = []
    for number in range(count):
        places = order[n * number // count : n * (number + 1) // count]
        shards.append(_Shard(f"{number:0{digits}d}", places, key_digits))
    return shards


def _draws(uid: pa.ChunkedArray) -> np.ndarray:
    from clipcov_assets.core.draws import uniform

    # Piece by piece: one long uid makes a whole array wide.
    pieces = (uid.slice(start, UIDS_AT_ONCE).to_pylist() for start in range(0, len(uid), UIDS_AT_ONCE))
    return np.concatenate([uniform(SEED, np.array(piece)) for piece in pieces])


def _pairs(pairs: ChosenPairs, shards: list[_Shard]) -> Iterator[_Pair]:
    """The pairs of shards, one after the other."""
    places = np.concatenate([np.empty(0, np.int64), *(shard.places for shard in shards)])
    keys = (key for shard in shards for key in shard.pair_keys())
    start = 0
    for run in pairs.stream(places, ["caption", "image"]):
        names = pairs.rows.select(["uid", "rank", "gain"]).take(pa.array(places[start : start + len(run)])).to_pylist()
        start += len(run)
        for name, caption, image in zip(names, run["caption"].to_pylist(), run["image"], strict=True):
            yield _Pair({"key": next(keys), "caption": caption, "status": "success", **name}, image.as_py())


def _write_shard(piece: Piece, name: str, pairs: Iterable[_Pair]) -> None:
    rows = []
    with piece.open(f"{name}.tar") as tar:
        size = 0
        for pair in pairs:
            size += tar.write(b"".join(_members(pair)))
            rows.append(pair.row)
        # Two empty blocks end a tar, and whole records hold it.
        tar.write(bytes(-(size + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE + 2 * tarfile.BLOCKSIZE))
    with piece.open(f"{name}.parquet") as file:
        pq.write_table(pa.Table.from_pylist(rows, schema=TABLE), file, compression="zstd")
    statistics = {"count": len(rows), "successes": len(rows), "failed_to_download": 0, "failed_to_resize": 0}
    with piece.open(f"{name}_stats.json") as file:
        file.write(f"{json.dumps(statistics, indent=1)}\n".encode())


def _members(pair: _Pair) -> Iterator[bytes]:
    suffix = image_suffix(pair.image, pair.row["uid"])
    yield from _member(f"{pair.row['key']}.{suffix if suffix in SUFFIXES_OF_TARS else 'png'}", pair.image)
    yield from _member(f"{pair.row['key']}.json", json.dumps(pair.row).encode())
    yield from _member(f"{pair.row['key']}.txt", pair.row["caption"].encode())


def _member(name: str, content: bytes) -> tuple[bytes, bytes, bytes]:
    """Header, content and filling of a file that belongs to nobody and is of no time: equal pairs, equal bytes.

    Only the name, the size and the checksum differ from member to member; `tarfile` takes six times as long.
    """
    encoded, size = name.encode(), b"%011o" % len(content)
    checksum = b"%06o" % (HEADER_SUM + sum(encoded) + sum(size))
    header = b"".join((encoded.ljust(100, b"\0"), HEADER[100:124], size, HEADER[135:148], checksum, HEADER[154:]))
    return header, content, bytes(-len(content) % tarfile.BLOCKSIZE)


def _plan(pairs: ChosenPairs, options: ExportOptions, directory: Path | str) -> dict[str, Any]:
    return {"pairs_per_shard": options.pairs_per_shard}


WEBDATASET = ExportFormat(
    name="webdataset",
    summary="tar shards of images and captions in img2dataset's layout",
    version=1,
    write=_write,
    obstacle=images_missing,
    plan=_plan,
)
