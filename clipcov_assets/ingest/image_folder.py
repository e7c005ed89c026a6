"""Format `folder`: image files, in folders of any depth, with their captions beside them: dog.jpg and dog.txt.

A .json beside them, as img2dataset writes it, gives the uid of the pair.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

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
    printable,
)
from clipcov_assets.ingest.delivery_files import DeliveryFiles
from clipcov_assets.ingest.judging import judge, place_name
from clipcov_assets.ingest.looking import IMAGE_SUFFIXES, NAMES_LOOKED_AT, suffix_of, walk
from clipcov_assets.ingest.pair_parts import LONGEST_CAPTION, RejectedPartError, read_metadata

STEMS_A_SHARD = 4096
LARGEST_METADATA = 2**20  # bytes; more of it is no JSON
_PARTS = IMAGE_SUFFIXES | {".txt", ".json"}


@dataclass(frozen=True)
class FolderShard:
    """Some thousands of pairs of one folder.

    Attributes:
        directory: The delivery's.
        folder: Where the files lie.
        number: Of the shard in its folder.
        names: Of the files, with "/" between them, which no name holds: millions of names in little memory.
    """

    directory: Path
    folder: Path
    number: int
    names: str

    @property
    def name(self) -> str:
        """The folder and a number."""
        return f"{place_name(self.directory, self.folder)}[{self.number}]"

    @property
    def size(self) -> int:
        """Bytes of the names, which stand for the files."""
        return len(self.names)

    def fingerprint(self) -> str:
        """Digest of all files of the pairs."""
        return files_fingerprint(self._plain_files(), ascii(self.names))

    def read(self) -> ShardContents:
        """Judge every image, and every caption without one."""
        candidates = list(self._candidates())
        files = DeliveryFiles(self.directory)
        return ShardContents(len(candidates), (self._judge(files, candidate) for candidate in candidates))

    def _candidates(self) -> Iterator["_Candidate"]:
        for _, names in groupby(self.names.split("/"), key=_stem):
            parts = list(names)
            of_suffix = {suffix_of(name): name for name in parts}
            caption, metadata = of_suffix.get(".txt"), of_suffix.get(".json")
            images = [name for name in parts if suffix_of(name) in IMAGE_SUFFIXES]
            if images:
                yield _Candidate(images[0], caption, metadata)
                yield from (_Candidate(image, None, None, same_name=images[0]) for image in images[1:])
            elif caption is not None:
                yield _Candidate(None, caption, metadata)

    def _judge(self, files: DeliveryFiles, candidate: "_Candidate") -> Pair | Fault:
        name = candidate.image or candidate.caption or ""
        place = Place(place_name(self.directory, self.folder / name))
        if candidate.same_name is not None:
            detail = f"{printable(candidate.same_name)} has the same name and caption"
            return Fault(place, None, Reason.DUPLICATE_KEY, detail)
        try:
            metadata = read_metadata(self._load(files, candidate.metadata, most=LARGEST_METADATA))
        except RejectedPartError as rejected:
            return Fault(place, None, rejected.reason, rejected.detail)
        load = partial(files.read, candidate.image, beside=self.folder) if candidate.image else None
        caption = self._load(files, candidate.caption, most=LONGEST_CAPTION + 1)
        return judge(place, uid=metadata.get("uid"), caption=caption, image=load)

    def _load(self, files: DeliveryFiles, name: str | None, *, most: int) -> bytes | None:
        """Return the first bytes of a small file; None if there is no such plain file in the delivery."""
        if name is None:
            return None
        with suppress(RejectedPartError, OSError), files.find(name, beside=self.folder).open("rb") as file:
            return file.read(most)
        return None

    def _plain_files(self) -> Iterator[Path]:
        files = DeliveryFiles(self.directory)
        for name in self.names.split("/"):
            with suppress(RejectedPartError):
                yield files.find(name, beside=self.folder)


class _Candidate(NamedTuple):
    """The names of the parts of what may be a pair, and of an earlier image with the same stem."""

    image: str | None
    caption: str | None
    metadata: str | None
    same_name: str | None = None


def _is_here(directory: Path) -> bool:
    entries = islice(walk(directory), NAMES_LOOKED_AT)
    for _, names in _folders(entries):
        captions = {_stem(name) for name in names if suffix_of(name) == ".txt"}
        if any(_stem(name) in captions for name in names if suffix_of(name) in IMAGE_SUFFIXES):
            return True
    return False


def _shards(directory: Path, options: DeliveryOptions) -> tuple[Shard, ...]:
    shards: list[FolderShard] = []
    for folder, names in _folders(walk(directory)):
        names.sort()
        names.sort(key=_stem)  # a.jpg, a.b.jpg, a.txt: what has one stem must stand together
        for number, run in enumerate(_runs(names)):
            shards.append(FolderShard(directory, folder, number, "/".join(run)))
    if not shards:
        raise DeliveryError(f"no image with a .txt beside it in {directory}")
    return tuple(sorted(shards, key=lambda shard: (shard.folder, shard.number)))


def _folders(entries: Iterator["os.DirEntry[str]"]) -> Iterator[tuple[Path, list[str]]]:
    """Yield every folder with the names in it that may be parts of pairs."""
    for folder, inside in groupby(entries, key=lambda entry: entry.path[: -len(entry.name)]):
        names = [
            entry.name
            for entry in inside
            if suffix_of(entry.name) in _PARTS and not entry.is_dir(follow_symlinks=False)
        ]
        yield Path(folder), names


def _runs(names: list[str]) -> Iterator[list[str]]:
    run: list[str] = []
    stems = 0
    for _, same in groupby(names, key=_stem):
        if stems == STEMS_A_SHARD:
            yield run
            run, stems = [], 0
        run.extend(same)
        stems += 1
    if run:
        yield run


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


FORMAT = Format(name="folder", is_here=_is_here, obstacle=lambda directory: None, shards=_shards)
