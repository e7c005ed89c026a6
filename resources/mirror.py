"""Files at an address, such as s3://bucket/crawls: listed, and copied into a folder that becomes their equal."""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath

import pyarrow as pa
from pyarrow import fs

from resources.pieces import UNFINISHED, FullDiskError, disk_of

COPIES_AT_ONCE = 8
BUFFER = 8 * 2**20


class UnreadableAddressError(OSError, ValueError):
    """What lies at an address cannot be reached; the message names it, without secrets, and the remedy."""


@dataclass(frozen=True)
class Listing:
    """The files under an address, as they were at one moment.

    Attributes:
        address: Without secrets.
        store: Where the files lie.
        files: What the store says of each, by its place under the address.
        listed_at: When the listing began, in seconds since the epoch.
    """

    address: str
    store: fs.FileSystem
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
    """An address that has been understood; nothing is asked of its store yet.

    Attributes:
        shown: As people may see it, without secrets.
        store: What it leads to.
        base: The place in the store.
    """

    shown: str
    store: fs.FileSystem
    base: str

    @classmethod
    def of(cls, text: str) -> "Address":
        """Understand an address.

        Raises:
            UnreadableAddressError: It is no address of a store that is known.
        """
        shown = without_secret(text)
        with _asking(shown):
            store, base = _opened(text)
        return cls(shown, store, base)

    def below(self, name: str) -> "Address":
        """The address of a folder in it."""
        plain, _, _ = self.shown.partition("?")
        return replace(self, shown=f"{plain.rstrip('/')}/{name}", base=f"{self.base.rstrip('/')}/{name}")

    def entries(self) -> tuple[list[str], list[str]]:
        """The names of the folders and of the files that lie directly in it, in one request.

        Raises:
            UnreadableAddressError: It cannot be listed.
        """
        found: dict[fs.FileType, list[str]] = {fs.FileType.Directory: [], fs.FileType.File: []}
        with _asking(self.shown):
            for info in self.store.get_file_info(fs.FileSelector(self.base)):
                found.setdefault(info.type, []).append(info.base_name)
        return sorted(found[fs.FileType.Directory]), sorted(found[fs.FileType.File])

    def listing(self) -> Listing:
        """List all files under it; links of a `file://` address are left out, they may lead anywhere.

        Raises:
            UnreadableAddressError: It cannot be listed.
        """
        began = time.time()
        with _asking(self.shown):
            listed = self.store.get_file_info(fs.FileSelector(self.base, recursive=True))
        return Listing(self.shown, self.store, _inside(self, listed), began)

    def read(self, name: str, most: int) -> bytes:
        """The first bytes of a small file in it.

        Raises:
            UnreadableAddressError: It cannot be read.
        """
        with _asking(self.shown), self.store.open_input_stream(f"{self.base}/{name}", compression=None) as file:
            return bytes(file.read(most))

    def write(self, name: str, content: bytes) -> None:
        """Write a small file into it.

        Raises:
            UnreadableAddressError: It cannot be written.
        """
        with _asking(self.shown), self.store.open_output_stream(f"{self.base}/{name}", compression=None) as file:
            file.write(content)


@cache
def _opened(text: str) -> tuple[fs.FileSystem, str]:
    """One client for each address: to make another one takes longer than to list a crawl."""
    store, base = fs.FileSystem.from_uri(text)
    return store, base


def is_address(text: str) -> bool:
    """Whether a text is an address, and not a directory of this machine."""
    return "://" in text


def without_secret(text: str) -> str:
    """Return a text without the key and secret that an address may hold."""
    return re.sub(r"://[^\s'\"@]*:[^\s'\"]*@", "://", text)


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
        with _asking(listing.address), ThreadPoolExecutor(COPIES_AT_ONCE) as pool:
            copies = pool.map(lambda one: _copy(listing.store, one[1], folder / one[0]), changed.items())
            for info, _ in zip(changed.values(), copies, strict=True):  # raises what a thread raised
                on_copied(info.size)


@contextmanager
def _asking(address: str) -> Iterator[None]:
    """Turn the many ways in which stores fail into one `UnreadableAddressError`; a full disk stays one."""
    try:
        yield
    except (FullDiskError, UnreadableAddressError):
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UnreadableAddressError(
            f"{address} cannot be read or written ({without_secret(str(error))}); check the address, the credentials "
            "(such as AWS_ACCESS_KEY_ID), the network and the endpoint (AWS_ENDPOINT_URL)"
        ) from error


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
            shutil.copyfileobj(source, file, BUFFER)
            file.flush()
            os.fsync(file.fileno())
        if unfinished.stat().st_size != info.size:
            raise OSError(f"{info.path} has changed while it was copied")
        os.utime(unfinished, ns=(info.mtime_ns or 0, info.mtime_ns or 0))
        unfinished.replace(target)
