"""What a delivery is made of: shards, and the pairs and faults in them.

Every reader of a format makes `Shard`s; a shard is read on its own, in any process, and nothing that it
promised is left out: each pair leaves once, as a `Pair` or as a `Fault`.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import numpy as np


class DeliveryError(ValueError):
    """A delivery or an evaluation set that cannot be read at all; the message names it and the remedy."""


class Reason(StrEnum):
    """Why a pair is in quarantine, in one word that can be counted."""

    IMAGE_MISSING = "image_missing"  # no image: no member or file, a link, a device, sparse, or above 64 MiB
    IMAGE_EMPTY = "image_empty"  # an image of zero bytes
    IMAGE_CORRUPT = "image_corrupt"  # bytes that do not decode to RGB: damaged, cut short, not an image
    IMAGE_TOO_LARGE = "image_too_large"  # declares more pixels, or more text, than any pair has: a bomb
    IMAGE_OUTSIDE = "image_outside"  # a path that leads out of the delivery's folder
    CAPTION_MISSING = "caption_missing"  # no caption member, file or value
    CAPTION_EMPTY = "caption_empty"  # a caption without a visible character
    CAPTION_UNDECODABLE = "caption_undecodable"  # a caption that is not UTF-8
    CAPTION_TOO_LONG = "caption_too_long"  # a caption above 64 KiB
    METADATA_INVALID = "metadata_invalid"  # metadata that is no JSON object, or a uid that is no short text
    EMBEDDING_MISSING = "embedding_missing"  # ready-made embeddings were promised, and there is none for the pair
    EMBEDDING_INVALID = "embedding_invalid"  # a ready-made embedding that is not finite or not a unit row
    ROW_UNREADABLE = "row_unreadable"  # a row of a table, or a whole table, that cannot be read
    DUPLICATE_KEY = "duplicate_key"  # a key used again in its shard
    UID_CONFLICT = "uid_conflict"  # the uid of an earlier pair of the delivery, with another image or caption
    LOST_IN_TAR = "lost_in_tar"  # promised by the shard's statistics or table, absent from its tar


@dataclass(frozen=True)
class Place:
    """Where a pair lies in a delivery.

    Attributes:
        file: Relative to the delivery's folder, printable; of a tar or a table the file itself, else the image.
        key: Of its members in a tar, printable; None elsewhere.
        row: In a table, 0 for the first row of data; None elsewhere.
    """

    file: str
    key: str | None = None
    row: int | None = None


@dataclass(frozen=True, eq=False)
class Pair:
    """One image-caption pair that can be selected, and trained on where it has an image.

    Attributes:
        place: Where it was found.
        uid: The delivery's own, or `content_uid`.
        caption: As delivered, with at least one visible character.
        image: Encoded bytes that decode to RGB; None where the delivery brings embeddings only.
        embeddings: Ready-made image and text embedding, float16 unit rows (d,); None where there are none.
    """

    place: Place
    uid: str
    caption: str
    image: bytes | None
    embeddings: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class Fault:
    """One pair that was promised or found and cannot be used; `uid` is None where it is not known."""

    place: Place
    uid: str | None
    reason: Reason
    detail: str


@dataclass(eq=False)
class ShardContents:
    """What a shard holds, with every pair accounted for.

    Attributes:
        promised: Pairs that the shard promises or holds, counted before any of them is judged.
        outcomes: As many pairs and faults, each read when it is asked for, so that memory holds one at a time.
        remarks: What a person should know of the shard as a whole, such as a table that cannot be read;
            complete once `outcomes` has been read to its end.
    """

    promised: int
    outcomes: Iterator[Pair | Fault]
    remarks: list[str] = field(default_factory=list)


class Shard(Protocol):
    """A part of a delivery that is read on its own; it can be pickled, and reading it again gives the same."""

    @property
    def name(self) -> str:
        """Unique in the delivery, printable."""

    @property
    def size(self) -> int:
        """Bytes to read, roughly; progress is told by it."""

    def fingerprint(self) -> str:
        """Digest of the content of every file that `read` depends on; a missing file counts as missing."""

    def read(self) -> ShardContents:
        """Judge every pair.

        Raises:
            DeliveryError: The shard cannot be read at all; the message names the file and the remedy.
        """


@dataclass(frozen=True)
class Delivery:
    """A folder understood: the name of its format, and its shards in the order of the delivery."""

    directory: Path
    format: str
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class DeliveryOptions:
    """What `delivery.toml` in the folder says about it; whatever is None is found out by looking.

    Attributes:
        format: Name of the format.
        image: Column of the image: its path, or its bytes.
        caption: Column of the caption.
        uid: Column of the uid.
        embeddings: Which ready-made embeddings to take over, such as `b32`; `none` to embed anew.
    """

    format: str | None = None
    image: str | None = None
    caption: str | None = None
    uid: str | None = None
    embeddings: str | None = None


@dataclass(frozen=True)
class Format:
    """One way in which deliveries come.

    Attributes:
        name: As in `delivery.toml` and in the documentation.
        is_here: Whether a folder looks like it: by names and the columns of a table, no image is read.
        obstacle: Why a folder of this format is not complete, with the remedy; None where it is.
        shards: What a complete folder holds, in the order of the delivery.
    """

    name: str
    is_here: Callable[[Path], bool]
    obstacle: Callable[[Path], str | None]
    shards: Callable[[Path, DeliveryOptions], tuple[Shard, ...]]


def content_uid(image: bytes, caption: str) -> str:
    """Return 32 hexadecimal digits, blake2b-128 of image and caption, for a pair that came without a uid."""
    digest = hashlib.blake2b(digest_size=16)
    # The length keeps the end of the image apart from the start of the caption.
    digest.update(len(image).to_bytes(8, "little"))
    digest.update(image)
    digest.update(caption.encode())
    return digest.hexdigest()


def files_fingerprint(paths: Iterable[Path], *parts: str) -> str:
    """Return the digest of the content of files, and of other parts that a reading depends on."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=16)
    for path in paths:
        digest.update(path.name.encode("utf-8", "surrogateescape") + b"\0")
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest())
        except OSError:  # missing, a folder, unreadable: `read` says which
            digest.update(b"unreadable")
    return digest.hexdigest()


def delivery_fingerprint(shards: Iterable[tuple[str, str]]) -> str:
    """Return the digest of a delivery: of the name and the fingerprint of every shard, in their order."""
    return hashlib.blake2b(repr(list(shards)).encode(), digest_size=16).hexdigest()


def look(directory: Path) -> str:
    """Return a digest of the names, sizes and times of a folder's files: while it is equal, so is their content.

    It reads no file, and changes when one is touched; `Shard.fingerprint` then tells whether its content changed.
    """
    digest = hashlib.blake2b(digest_size=16)
    for folder, folders, files in os.walk(directory):
        folders.sort()
        for name in sorted(files):
            path = Path(folder, name)
            found = path.lstat()
            digest.update(os.fsencode(path.relative_to(directory)) + b"\0")
            digest.update(f"{found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def printable(name: str) -> str:
    """Return a name out of a delivery so that it can be shown on one line: it may hold anything."""
    return ascii(name)[1:-1][:200]
