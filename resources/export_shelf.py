"""The directory or address of exports: what leaves for other tools, each export written whole or not at all."""

import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import dagster as dg
from pydantic import Field

from resources.mirror import Address, is_address
from resources.pieces import UNFINISHED, disk_of, only_one

SETTING = "CLIPCOV_EXPORTS"
MANIFEST = "manifest.json"
UNDER_WAY = "manifest.unfinished"  # at an address: the plan of the export that is on its way there
UPLOADS_AT_ONCE = 8
JOURNAL = "journal.jsonl"
REPLACED = ".replaced"
BUFFER = 2**20


@dataclass(frozen=True)
class FinishedExport:
    """An export on disk, or at an address.

    Attributes:
        directory: Absolute; or its address, as text.
        manifest: What `manifest.json` says: the plan, and `files` with name, bytes and sha256. A name that
            ends with `/` is a folder, with `files` as their number and the sha256 of all of them in order of names.
        already_there: Nothing had to be written.
    """

    directory: Path | str
    manifest: Mapping[str, Any]
    already_there: bool

    @property
    def files(self) -> int:
        """How many files it has, those inside folders included, the manifest not."""
        return sum(entry.get("files", 1) for entry in self.manifest["files"])

    @property
    def bytes(self) -> int:
        """Size of them all."""
        return sum(entry["bytes"] for entry in self.manifest["files"])


class ExportShelf(dg.ConfigurableResource):
    """Keeps one folder an asset, crawl, fraction and format."""

    directory: str = Field(
        description="Directory for exports, or its address, such as s3://bucket/exports; it needs as much room as the "
        "images of a subset."
    )
    staging: str = Field(
        default=str(Path(tempfile.gettempdir(), "clipcov-exports")),
        description="Directory of this machine where an export for an address is written before it is uploaded.",
    )

    def folder(self, asset: str, partition: str, name: str) -> Path | str:
        """Where an export of a partition is, or will be: a directory, or an address as text.

        Raises:
            ValueError: A part of the path is not the name of a folder.
        """
        parts = _parts(asset, partition, name)
        if is_address(self.directory):
            return self._address.below("/".join(parts)).shown
        return Path(self.directory).resolve().joinpath(*parts)

    def make(
        self,
        asset: str,
        partition: str,
        name: str,
        plan: Mapping[str, Any],
        write: Callable[["UnfinishedExport"], None],
    ) -> FinishedExport:
        """Write an export and put it in the place of an older one, which stays as it is until then.

        Args:
            asset: What is exported.
            partition: Its partition.
            name: Of the export; the format.
            plan: Everything that decides the content. An unfinished export of an equal plan is gone on with, one of
                another plan is removed; a finished one of an equal plan is left as it is.
            write: Writes the pieces that are not there yet, the same in the same order for equal plans.

        Raises:
            InUseError: Another process makes this export.
            FullDiskError: There is no room; what was finished is kept.
            FileExistsError: Something else lies where the export belongs.
            UnreadableAddressError: The address cannot be reached; what was uploaded is kept.
        """
        place, work = self.folder(asset, partition, name), f"the {name} export of {asset} {partition}"
        if isinstance(place, Path):
            with disk_of(place), only_one(place.with_name(f".{name}.lock"), work):
                return _make(place, place, plan, write)
        digest = hashlib.sha256(place.encode()).hexdigest()[:16]  # two addresses have a folder each
        staged = Path(self.staging).resolve() / digest / name
        with disk_of(staged), only_one(staged.with_name(f".{name}.lock"), work):
            address = self._address.below("/".join(_parts(asset, partition, name)))
            made = _make_at(address, staged, place, plan, write)
            shutil.rmtree(staged, ignore_errors=True)
            return made

    @property
    def _address(self) -> Address:
        return Address.of(self.directory, SETTING)


class UnfinishedExport:
    """An export that is being written.

    A piece, some files that belong together, counts once its line is in the journal: a killed process leaves at
    most one piece half written, and the next one writes that again.

    Attributes:
        directory: Where the export will be once it is finished; an address as text.
    """

    def __init__(self, unfinished: Path, directory: Path | str, plan: Mapping[str, Any]) -> None:
        """Go on with what is there of this plan; whatever else is there is removed."""
        self.directory = directory
        self._unfinished = unfinished
        self._plan = plan
        self._pieces = self._finished_pieces()
        if not self._pieces:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        # Without the line that was being written when the last process was killed.
        lines = [{"plan": plan}, *({"piece": piece, "files": files} for piece, files in self._pieces.items())]
        _write_whole(unfinished / JOURNAL, "".join(f"{json.dumps(line)}\n" for line in lines))

    def __contains__(self, piece: str) -> bool:
        return piece in self._pieces

    @contextmanager
    def piece(self, name: str) -> Iterator["Piece"]:
        """Lend a piece to write; it is finished when the block ends without an error."""
        piece = Piece(self._unfinished)
        yield piece
        with (self._unfinished / JOURNAL).open("a") as journal:
            journal.write(f"{json.dumps({'piece': name, 'files': piece.files})}\n")
        self._pieces[name] = piece.files

    def names(self, folder: str) -> list[str]:
        """Names of the files in a finished folder, in order."""
        return sorted(path.name for path in (self._unfinished / folder).iterdir())

    def finish(self) -> None:
        """Write the manifest, after everything that it names has reached the disk."""
        os.sync()
        files = [entry for piece in self._pieces.values() for entry in piece]
        manifest = {**self._plan, "files": files}
        _write_whole(self._unfinished / MANIFEST, f"{json.dumps(manifest, indent=1)}\n")

    def _finished_pieces(self) -> dict[str, list[dict[str, Any]]]:
        try:
            lines = (self._unfinished / JOURNAL).read_text().splitlines()
        except OSError:
            return {}
        if not lines or _parsed(lines[0]) != {"plan": dict(self._plan)}:
            return {}
        found = [line for line in map(_parsed, lines[1:]) if line is not None]
        return {line["piece"]: line["files"] for line in found if _is_whole(self._unfinished, line["files"])}


class Piece:
    """Some files of an export that are finished together."""

    def __init__(self, directory: Path) -> None:
        self.files: list[dict[str, Any]] = []
        self._directory = directory

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Write one file."""
        with (self._directory / name).open("wb", buffering=BUFFER) as file:
            digested = _DigestedFile(file)
            yield digested  # type: ignore[misc]
        self.files.append({"name": name, "bytes": digested.size, "sha256": digested.sha256.hexdigest()})

    def add_folder(self, name: str, files: Iterable[tuple[str, bytes]]) -> None:
        """Write a folder of small files, each a name and its content, in the order of the names."""
        folder = self._directory / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        digest, count, size = hashlib.sha256(), 0, 0
        for file, content in files:
            (folder / file).write_bytes(content)
            digest.update(content)
            count, size = count + 1, size + len(content)
        self.files.append({"name": f"{name}/", "files": count, "bytes": size, "sha256": digest.hexdigest()})


class _DigestedFile(io.RawIOBase):
    """Writes through to a file, and digests what passes."""

    def __init__(self, file: BinaryIO) -> None:
        self.sha256 = hashlib.sha256()
        self.size = 0
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:  # noqa: ANN401  (whatever holds bytes)
        self.sha256.update(content)
        self._file.write(content)
        written = memoryview(content).nbytes
        self.size += written
        return written


def _parts(asset: str, partition: str, name: str) -> tuple[str, ...]:
    parts = (asset, *partition.split("|"), name)
    if any(part in ("", ".", "..") or not part.isprintable() or set(part) & set("/\\") for part in parts):
        raise ValueError(f"{'/'.join(parts)!r} cannot be a folder of exports")
    return parts


def _make(
    directory: Path, place: Path | str, plan: Mapping[str, Any], write: Callable[[UnfinishedExport], None]
) -> FinishedExport:
    unfinished, replaced = (directory.with_name(directory.name + suffix) for suffix in (UNFINISHED, REPLACED))
    found = _finished(directory, plan)
    if not found:
        if directory.exists() and not (directory / MANIFEST).exists():
            raise FileExistsError(f"{directory} is no export of ours: move it away, or export to another directory")
        if not _finished(unfinished, plan):
            export = UnfinishedExport(unfinished, place, plan)
            write(export)
            export.finish()
        (unfinished / JOURNAL).unlink(missing_ok=True)
        shutil.rmtree(replaced, ignore_errors=True)
        if directory.exists():
            directory.rename(replaced)
        unfinished.rename(directory)
    for path in (unfinished, replaced):
        shutil.rmtree(path, ignore_errors=True)
    return FinishedExport(directory, json.loads((directory / MANIFEST).read_text()), already_there=found)


def _make_at(
    address: Address, staged: Path, place: str, plan: Mapping[str, Any], write: Callable[[UnfinishedExport], None]
) -> FinishedExport:
    """Write an export on this machine and upload it; the manifest comes last, so without it nothing counts."""
    there = {str(file): int(info.size) for file, info in address.files().items()}
    manifest: Any = _parsed(address.read(MANIFEST)) if MANIFEST in there else None
    if UNDER_WAY not in there and _is_of(manifest, plan) and _is_whole_at(there, manifest["files"]):
        return FinishedExport(place, manifest, already_there=True)
    if there and not there.keys() & {MANIFEST, UNDER_WAY}:
        raise FileExistsError(f"{place} is no export of ours: move it away, or export to another address")
    made = _make(staged, place, plan, write)
    if UNDER_WAY not in there or _parsed(address.read(UNDER_WAY)) != dict(plan):
        # Files of another export may have these names and sizes, so none of them stays.
        address.write(UNDER_WAY, json.dumps(plan).encode())
        for name in sorted(there.keys() - {UNDER_WAY}, key=lambda one: one != MANIFEST):
            address.remove(name)
        there = {}
    files = {path.relative_to(staged).as_posix(): path for path in staged.rglob("*") if path.is_file()}
    missing = {name: path for name, path in files.items() if there.get(name) != path.stat().st_size}
    last = missing.pop(MANIFEST, files[MANIFEST])
    with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        list(pool.map(lambda one: address.upload(*one), missing.items()))
    address.upload(MANIFEST, last)
    address.remove(UNDER_WAY)
    return FinishedExport(place, made.manifest, already_there=False)


def _is_whole_at(there: Mapping[str, int], files: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the files are at an address, by their sizes."""
    folders: dict[str, list[int]] = {}
    for name, size in there.items():
        folders.setdefault(f"{PurePosixPath(name).parent}/", []).append(size)
    return all(
        (len(found), sum(found)) == (entry.get("files", 1), entry["bytes"])
        for entry in files
        for found in [folders.get(entry["name"], []) if "files" in entry else [there.get(entry["name"], -1)]]
    )


def _finished(directory: Path, plan: Mapping[str, Any]) -> bool:
    """Whether the directory holds an export of this plan, with every file in its size."""
    try:
        manifest = _parsed((directory / MANIFEST).read_text())
    except (OSError, ValueError):
        return False
    return _is_of(manifest, plan) and _is_whole(directory, manifest["files"])


def _is_of(manifest: Any, plan: Mapping[str, Any]) -> bool:  # noqa: ANN401
    """Whether a manifest is one, and of this plan."""
    try:
        return "files" in manifest and all(manifest[name] == value for name, value in plan.items())
    except (LookupError, TypeError):
        return False


def _is_whole(directory: Path, files: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the files are there: a power cut can lose some that a journal already names."""
    for entry in files:
        path = directory / entry["name"]
        try:
            found = list(path.iterdir()) if "files" in entry else [path]
            size = sum(one.stat().st_size for one in found)
        except OSError:
            return False
        if (len(found), size) != (entry.get("files", 1), entry["bytes"]):
            return False
    return True


def _parsed(line: str | bytes) -> Any:  # noqa: ANN401
    try:
        return json.loads(line)
    except ValueError:
        return None


def _write_whole(path: Path, text: str) -> None:
    unfinished = path.with_name(path.name + UNFINISHED)
    unfinished.write_text(text)
    unfinished.replace(path)
