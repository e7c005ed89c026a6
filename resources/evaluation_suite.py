"""The directory of evaluation sets in CLIP_benchmark's webdataset layout, local or in an object store."""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Container
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import dagster as dg
import pyarrow as pa
from pyarrow import fs
from pydantic import Field

from resources.pieces import UNFINISHED, FullDiskError, disk_of

COPIES_AT_ONCE = 8
BUFFER = 8 * 2**20


class EvaluationSuite(dg.ConfigurableResource):
    """Points at the evaluation sets, one folder a set."""

    directory: str = Field(
        description="Directory that holds one folder per evaluation set, or its address, such as s3://bucket/sets."
    )
    cache: str = Field(
        description="Directory for copies of sets from an address, as large as they are, and for hashes of shards."
    )

    @property
    def digests(self) -> Path:
        """The file that keeps the hashes of the shards."""
        return Path(self.cache).absolute() / "digests.json"

    def folder(self) -> Path:
        """Return the local directory of the sets; from an address, what is new or has changed is copied first.

        Raises:
            ValueError: The address cannot be read, or holds no set; the message names it.
            FullDiskError: There is no room for the copy; files that were copied are kept.
        """
        if "://" not in self.directory:
            return Path(self.directory)
        address = _without_secret(self.directory)
        copy = Path(self.cache).absolute() / hashlib.sha256(address.encode()).hexdigest()[:16]
        copy.mkdir(parents=True, exist_ok=True)
        with copy.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # while another run copies, this one waits
            try:
                with disk_of(copy):
                    _mirror(self.directory, copy)
            except FullDiskError:
                raise
            except (OSError, pa.ArrowException) as error:
                raise ValueError(
                    f"the evaluation sets at {address} cannot be copied to {copy} ({_without_secret(str(error))}); "
                    "check the address, the credentials and the network"
                ) from error
        return copy


def _mirror(address: str, copy: Path) -> None:
    """Make a folder equal to what is read of the sets at an address."""
    store, base = fs.FileSystem.from_uri(address)
    listed = store.get_file_info(fs.FileSelector(base, recursive=True))
    files = {PurePosixPath(info.path).relative_to(base): info for info in listed if info.type == fs.FileType.File}
    files = {path: info for path, info in files.items() if _is_read(path)}
    if not files:
        raise OSError("there is no evaluation set")
    _remove_others(copy, files)
    changed = [(info, copy / path) for path, info in files.items() if not _is_same(info, copy / path)]
    with ThreadPoolExecutor(COPIES_AT_ONCE) as pool:
        list(pool.map(lambda one: _copy(store, *one), changed))  # the list raises what a thread raised


def _is_read(path: PurePosixPath) -> bool:
    """Whether scoring reads a file: names, templates, numbers and test shards, but no shards for training."""
    hidden = any(part.startswith(".") for part in path.parts)  # and no way out of the folder
    return not hidden and (path.suffix == ".txt" or (path.suffix == ".tar" and path.parent.name == "test"))


def _remove_others(copy: Path, files: Container[PurePosixPath]) -> None:
    for path in sorted(copy.rglob("*"), reverse=True):  # what is in a folder comes before the folder
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif PurePosixPath(path.relative_to(copy)) not in files:
            path.unlink()


def _is_same(info: fs.FileInfo, target: Path) -> bool:
    if not target.exists():
        return False
    found = target.stat()
    return (found.st_size, found.st_mtime_ns) == (info.size, info.mtime_ns or 0)


def _copy(store: fs.FileSystem, info: fs.FileInfo, target: Path) -> None:
    """Copy one file, whole or not at all, with its time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}{UNFINISHED}")
    with store.open_input_stream(info.path, compression=None) as source, unfinished.open("wb") as file:
        shutil.copyfileobj(source, file, BUFFER)
        file.flush()
        os.fsync(file.fileno())
    if unfinished.stat().st_size != info.size:
        raise OSError(f"{info.path} has changed while it was copied")
    os.utime(unfinished, ns=(info.mtime_ns or 0, info.mtime_ns or 0))
    unfinished.replace(target)


def _without_secret(text: str) -> str:
    """Return a text without the key and secret that an address may hold."""
    return re.sub(r"//[^/@\s]*:[^/@\s]*@", "//", text)
