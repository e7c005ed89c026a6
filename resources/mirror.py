"""Files at an address, such as s3://bucket/crawls: read, written, and copied into a folder that becomes their equal."""

import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
from pyarrow import fs

from resources.pieces import UNFINISHED, FullDiskError, disk_of

COPIES_AT_ONCE = 8
BUFFER = 8 * 2**20
# A request that fails is sent again, and an endpoint that is dead is given up within a minute: a file that cannot be
# written is tried twice, once more when it is closed.
TRIES, CONNECT_SECONDS, SILENT_SECONDS = 4, 3, 5
GIVEN_UP_AFTER = timedelta(seconds=45)
NO_ROOM, NO_ROOM_PAUSES = "Failed to flush response stream", (0.1, 0.5, 2)  # seconds
LONGEST_CAUSE = 700  # characters


class UnreadableAddressError(OSError, ValueError):
    """What lies at an address cannot be reached; the message names it, without secrets, and the remedy."""


@dataclass(frozen=True)
class Listing:
    """The files under an address, as they were at one moment.

    Attributes:
        address: Without secrets.
        store: Where the files lie.
        setting: The variable that names the address.
        files: What the store says of each, by its place under the address.
        listed_at: When the listing began, in seconds since the epoch.
    """

    address: str
    store: fs.FileSystem
    setting: str
    files: Mapping[PurePosixPath, fs.FileInfo]
    listed_at: float

    @property
    def names(self) -> list[str]:
        """The places of the files, with `/` between folders."""
        return [str(place) for place in self.files]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(info.size for info in self.files.values())

    @property
    def rested(self) -> float:
        """Seconds from the newest file, by the clock of the store, to the listing."""
        newest = max((info.mtime_ns or 0 for info in self.files.values()), default=0)
        return self.listed_at - newest / 1e9

    def fingerprint(self) -> str:
        """Digest of the names, sizes and times: while it is equal, so is the content."""
        digest = hashlib.blake2b(digest_size=16)
        for place, info in sorted(self.files.items()):
            digest.update(str(place).encode("utf-8", "surrogateescape") + b"\0")
            digest.update(f"{info.size} {info.mtime_ns or 0}\n".encode())
        return digest.hexdigest()

    def only(self, is_wanted: Callable[[PurePosixPath], bool]) -> "Listing":
        """The listing of some of the files."""
        return replace(self, files={place: info for place, info in self.files.items() if is_wanted(place)})


@dataclass(frozen=True)
class Address:
    """A directory or an address that has been understood; nothing is asked of its store yet.

    Attributes:
        shown: As people may see it, without secrets.
        store: What it leads to.
        base: The place in the store.
        setting: The variable that names it, for messages.
    """

    shown: str
    store: fs.FileSystem
    base: str
    setting: str = ""

    @classmethod
    def of(cls, text: str, setting: str = "") -> "Address":
        """Understand an address.

        Raises:
            UnreadableAddressError: It is no address of a store that is known.
        """
        shown = without_secret(text)
        with asking(shown, setting):
            store, base = _opened(text)
        return cls(shown, store, base, setting)

    @classmethod
    def at(cls, text: str, setting: str = "") -> "Address":
        """Understand a directory of this machine, or an address.

        Raises:
            UnreadableAddressError: It is no address of a store that is known.
        """
        if is_address(text):
            return cls.of(text, setting)
        path = str(Path(text).absolute())
        return cls(path, fs.LocalFileSystem(), path, setting)

    def below(self, name: str) -> "Address":
        """The address of a folder in it."""
        return replace(self, shown=f"{self.plain}/{name}", base=f"{self.base.rstrip('/')}/{name}")

    @property
    def plain(self) -> str:
        """As people may see it, without what follows the place: names of files can be appended."""
        return self.shown.partition("?")[0].rstrip("/")

    def entries(self) -> tuple[list[str], list[str]]:
        """The names of the folders and of the files that lie directly in it, in one request.

        Raises:
            UnreadableAddressError: It cannot be listed.
        """
        found: dict[fs.FileType, list[str]] = {fs.FileType.Directory: [], fs.FileType.File: []}
        with self._asking():
            for info in self.store.get_file_info(fs.FileSelector(self.base)):
                found.setdefault(info.type, []).append(info.base_name)
        return sorted(found[fs.FileType.Directory]), sorted(found[fs.FileType.File])

    def names(self) -> list[str]:
        """The names of folders and files that lie directly in it; none where nothing was written yet.

        Raises:
            UnreadableAddressError: It cannot be listed.
        """
        return sorted(info.base_name for info in self._listed(recursive=False))

    def files(self) -> dict[PurePosixPath, fs.FileInfo]:
        """What the store says of each file under it, by its place; none where nothing was written yet.

        Raises:
            UnreadableAddressError: It cannot be listed.
        """
        return _inside(self, self._listed(recursive=True))

    def listing(self) -> Listing:
        """List all files under it; links of a `file://` address are left out, they may lead anywhere.

        Raises:
            UnreadableAddressError: It cannot be listed.
        """
        began = time.time()
        with self._asking():
            listed = self.store.get_file_info(fs.FileSelector(self.base, recursive=True))
        return Listing(self.shown, self.store, self.setting, _inside(self, listed), began)

    def stamp(self, name: str) -> str | None:
        """What another version of a file would not share: its size, time and, in an object store, tag.

        Returns:
            None where there is no such file.

        Raises:
            UnreadableAddressError: The store cannot be asked.
        """
        path = self._path(name)
        with self._asking():
            try:
                with self.store.open_input_file(path) as file:
                    tag = (file.metadata() or {}).get("ETag", b"").decode()
                    info = self.store.get_file_info(path)
            except FileNotFoundError:
                self.names()  # raises where it is the bucket that is missing
                return None
        return f"{info.size} {info.mtime_ns or 0} {tag}"

    def read(self, name: str, most: int | None = None) -> bytes:
        """The first bytes of a small file in it, or all.

        Raises:
            UnreadableAddressError: It cannot be read.
        """
        with self._asking(), self.store.open_input_stream(self._path(name), compression=None) as file:
            source = _PatientFile(file)
            return source.read(most) if most is not None else b"".join(iter(source.read, b""))

    def write(self, name: str, content: bytes) -> None:
        """Write a small file into it, whole or not at all.

        Raises:
            UnreadableAddressError: It cannot be written.
            FullDiskError: It is a directory, and there is no room.
        """
        with TemporaryDirectory() as directory:
            file = Path(directory) / "content"
            file.write_bytes(content)
            self.put(name, file)

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Lend a file as one of this machine: itself where it lies in a directory, else a copy for a while.

        Raises:
            UnreadableAddressError: It cannot be read.
            FullDiskError: There is no room for the copy.
        """
        if self._is_local:
            yield Path(self._path(name))
            return
        with TemporaryDirectory() as directory:
            copy = Path(directory) / PurePosixPath(name).name
            self.get(name, copy)
            yield copy

    def get(self, name: str, target: Path) -> None:
        """Copy a file to this machine, whole or not at all; no other process may copy to the same place.

        Raises:
            UnreadableAddressError: It cannot be read, or has changed meanwhile.
            FullDiskError: There is no room.
        """
        with self._asking():
            before = self.stamp(name)
            _copy(self.store, self.store.get_file_info(self._path(name)), target)
            if self.stamp(name) != before:
                target.unlink()
                raise OSError(f"{name} has changed while it was copied")

    def put(self, name: str, source: Path) -> None:
        """Move a file of this machine to it, whole or not at all; what was there before is replaced.

        Raises:
            UnreadableAddressError: It cannot be written.
            FullDiskError: It is a directory, and there is no room.
        """
        if self._is_local:
            with self._asking(), disk_of(self.shown):
                _replace(Path(self._path(name)), source)
        else:
            self.upload(name, source)
            source.unlink()

    def upload(self, name: str, source: Path) -> None:
        """Copy a file of this machine to it, whole or not at all; what was there before is replaced.

        Raises:
            UnreadableAddressError: It cannot be written.
            FullDiskError: It is a directory, and there is no room.
        """
        path = self._path(name)
        with self._asking(), disk_of(self.shown):
            if self._is_local:
                _replace_by_copy(Path(path), source)
                return
            # A stream that is left unfinished is kept as far as it came. So when this process is interrupted, which
            # happens in its main thread, the file is sent to its end; when it is killed, nothing is kept.
            with ThreadPoolExecutor(1) as pool:
                pool.submit(_send, self.store, source, path).result()

    def remove(self, name: str) -> None:
        """Remove a file; it may be gone already.

        Raises:
            UnreadableAddressError: It cannot be removed.
        """
        with self._asking(), suppress(FileNotFoundError):
            self.store.delete_file(self._path(name))

    def clear(self) -> None:
        """Remove it with all that is in it.

        Raises:
            UnreadableAddressError: It cannot be removed.
        """
        with self._asking(), suppress(FileNotFoundError):
            self.store.delete_dir(self.base)

    @property
    def _is_local(self) -> bool:
        return isinstance(self.store, fs.LocalFileSystem)

    def _path(self, name: str) -> str:
        return f"{self.base.rstrip('/')}/{name}"

    def _asking(self) -> AbstractContextManager[None]:
        return asking(self.shown, self.setting)

    def _listed(self, *, recursive: bool) -> list[fs.FileInfo]:
        with self._asking():
            try:
                # To allow that nothing is there would also hide that there is no such bucket.
                found: list[fs.FileInfo] = self.store.get_file_info(fs.FileSelector(self.base, recursive=recursive))
            except FileNotFoundError:
                return []
        return found


@cache
def _opened(text: str) -> tuple[fs.FileSystem, str]:
    """One client for each address: to make another one takes longer than to list a crawl."""
    store, base = fs.FileSystem.from_uri(text)
    return _patient(store), base


def _patient(store: fs.FileSystem) -> fs.FileSystem:
    """The same client, but one that sends a failed request again and yet does not wait for ever."""
    changes: dict[str, dict[str, Any]] = {
        "s3": {
            "connect_timeout": CONNECT_SECONDS,
            "request_timeout": SILENT_SECONDS,
            "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=TRIES),
            "allow_delayed_open": True,  # a small file is one request
        },
        "gcs": {"retry_time_limit": GIVEN_UP_AFTER},
    }
    if store.type_name not in changes:
        return store
    _, (options,) = store.__reduce__()  # all that the address said
    return type(store)(**{**options, **changes[store.type_name]})


def is_address(text: str) -> bool:
    """Whether a text is an address, and not a directory of this machine."""
    return "://" in text


def without_secret(text: str) -> str:
    """Return a text without the key and secret that an address may hold, before its host or in its query."""
    text = re.sub(r"://[^\s'\"@]*:[^\s'\"]*@", "://", text)
    return re.sub(
        r"([?&][^\s'\"=&]*(?:password|secret|token)[^\s'\"=&]*)=[^\s'\"&]*", r"\1=", text, flags=re.IGNORECASE
    )


def mirror(listing: Listing, folder: Path, *, on_copied: Callable[[int], None] = lambda size: None) -> None:
    """Make a folder equal to what was listed; files of equal size and time are there already.

    Each file is copied whole or not at all, so that a copy that was broken off goes on where it was. Only one process
    may copy into a folder.

    Args:
        listing: What is copied.
        folder: Where to; it is made if it is not there.
        on_copied: Called with the size of each file when it is there.

    Raises:
        FullDiskError: There is no room; files that were copied are kept.
        UnreadableAddressError: A file cannot be copied, or has changed since it was listed.
    """
    with disk_of(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _remove_others(folder, listing.files)
        changed = {place: info for place, info in listing.files.items() if not _is_same(info, folder / place)}
        _check_room(folder, sum(info.size for info in changed.values()), listing.address)
        for place in listing.files.keys() - changed.keys():
            on_copied(listing.files[place].size)
        with asking(listing.address, listing.setting), ThreadPoolExecutor(COPIES_AT_ONCE) as pool:
            copies = pool.map(lambda one: _copy(listing.store, one[1], folder / one[0]), changed.items())
            for info, _ in zip(changed.values(), copies, strict=True):  # raises what a thread raised
                on_copied(info.size)


@contextmanager
def asking(address: str, setting: str = "") -> Iterator[None]:
    """Turn the many ways in which stores fail into one `UnreadableAddressError`; a full disk stays one.

    Args:
        address: Without secrets.
        setting: The variable that names it.
    """
    try:
        yield
    except (FullDiskError, UnreadableAddressError):
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UnreadableAddressError(trouble_with(address, setting, error)) from error


def trouble_with(address: str, setting: str, error: Exception) -> str:
    """Say that an address cannot be reached, why, and what to look at; without secrets."""
    cause = " ".join(without_secret(str(error)).split())[:LONGEST_CAUSE]
    named = f"{setting}={without_secret(address)}" if setting else without_secret(address)
    return (
        f"{named} cannot be read or written ({cause}); check the address and that its bucket is there, the credentials "
        "(such as AWS_ACCESS_KEY_ID), the network and the endpoint (AWS_ENDPOINT_URL)"
    )


def _inside(address: Address, listed: Iterable[fs.FileInfo]) -> dict[PurePosixPath, fs.FileInfo]:
    """The files by their places under an address, without names that lead out of it."""
    found = {PurePosixPath(info.path).relative_to(address.base): info for info in listed if info.is_file}
    found = {place: info for place, info in found.items() if ".." not in place.parts}
    if isinstance(address.store, fs.LocalFileSystem):  # the only store that has links
        root = Path(address.base).resolve()
        found = {place: info for place, info in found.items() if Path(info.path).resolve() == root / place}
    return found


def _remove_others(folder: Path, places: Container[PurePosixPath]) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before the folder
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif PurePosixPath(path.relative_to(folder)) not in places:
            path.unlink()


def _is_same(info: fs.FileInfo, target: Path) -> bool:
    if not target.exists():
        return False
    found = target.stat()
    return (found.st_size, found.st_mtime_ns) == (info.size, info.mtime_ns or 0)


def _check_room(folder: Path, needed: int, address: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FullDiskError(
            f"the disk of {folder} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB of {address} are to be "
            "copied there: free some room and run again; files that were copied are kept"
        )


def _copy(store: fs.FileSystem, info: fs.FileInfo, target: Path) -> None:
    """Copy one file, whole or not at all, with its time."""
    unfinished = target.with_name(f"{target.name}{UNFINISHED}")
    with disk_of(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        with store.open_input_stream(info.path, compression=None) as source, unfinished.open("wb") as file:
            shutil.copyfileobj(_PatientFile(source), file, BUFFER)
            file.flush()
            os.fsync(file.fileno())
        if unfinished.stat().st_size != info.size:
            raise OSError(f"{info.path} has changed while it was copied")
        os.utime(unfinished, ns=(info.mtime_ns or 0, info.mtime_ns or 0))
        unfinished.replace(target)


class _PatientFile:
    """Reads a file of a store, and reads again where its client has no room for the store's excuse.

    Arrow's client for S3 makes room for the bytes that it wants. Where a store answers with an error that is longer, it
    says so, and does not try again as it does with any other error.
    """

    def __init__(self, file: pa.NativeFile) -> None:
        self._file = file

    def read(self, most: int = BUFFER, /) -> bytes:
        """Read the next bytes, none at the end of the file."""
        for pause in NO_ROOM_PAUSES:
            try:
                return bytes(self._file.read(most))
            except OSError as error:
                if NO_ROOM not in str(error):
                    raise
                time.sleep(pause)
        return bytes(self._file.read(most))


def _send(store: fs.FileSystem, source: Path, path: str) -> None:
    with source.open("rb") as file:
        written = store.open_output_stream(path, compression=None)
        shutil.copyfileobj(file, written, BUFFER)
        written.close()


def _replace(target: Path, source: Path) -> None:
    """Move a file into the place of another one, whole or not at all, from whatever disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _replace_by_copy(target, source)
        source.unlink()


def _replace_by_copy(target: Path, source: Path) -> None:
    unfinished = target.with_name(f"{target.name}.{os.getpid()}{UNFINISHED}")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, unfinished)
    unfinished.replace(target)
