"""Finished parts of unfinished work, on disk: each is added whole or not at all, so a killed run goes on where it was.

Worker processes import this module: it needs neither Dagster nor LanceDB.
"""

import errno
import fcntl
import json
import os
import platform
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

UNFINISHED = ".unfinished"


class InUseError(RuntimeError):
    """Another run works on the same partition; the message says which process and since when."""


class FullDiskError(OSError):
    """The disk is full; the message says which, and that what was there is intact."""


@dataclass(frozen=True)
class Pieces:
    """The finished pieces of something that is being made, each one or more tables under a key.

    It can be sent to other processes. Of two that add the same key, as after a worker was taken for lost, the first
    one's piece stays: equal keys mean equal content.
    """

    directory: Path

    @property
    def place(self) -> str:
        """Directory or address where they are kept; other files of unfinished work may lie there, too."""
        return str(self.directory)

    def __contains__(self, key: str) -> bool:
        return (self.directory / key).is_dir()

    def finished(self, keys: Collection[str]) -> set[str]:
        """Which of these pieces are there."""
        return {key for key in keys if key in self}

    def add(self, key: str, tables: Mapping[str, pa.RecordBatchReader]) -> None:
        """Keep the tables of a piece: all of them, or none if this process dies on the way.

        The tables are read one after the other, batch by batch.

        Raises:
            FullDiskError: There is no room.
        """
        unfinished = self.directory / f"{key}.{platform.node()}-{os.getpid()}{UNFINISHED}"
        shutil.rmtree(unfinished, ignore_errors=True)
        with disk_of(self.directory):
            unfinished.mkdir(parents=True)
            for name, rows in tables.items():
                with (unfinished / f"{name}.arrow").open("wb") as file:
                    with pa.ipc.new_file(file, rows.schema) as writer:
                        for batch in rows:
                            writer.write_batch(batch)
                    file.flush()
                    os.fsync(file.fileno())
            try:
                unfinished.rename(self.directory / key)
            except OSError:
                if key not in self:
                    raise
                shutil.rmtree(unfinished)

    def batches(self, key: str, table: str) -> Iterator[pa.RecordBatch]:
        """Read a table of a piece as it was added, batch by batch, out of the page cache."""
        opened = pa.ipc.open_file(pa.memory_map(str(self.directory / key / f"{table}.arrow")))
        for number in range(opened.num_record_batches):
            yield opened.get_batch(number)

    def keep(self, keys: Collection[str]) -> None:
        """Remove every other piece, and what a killed run left half done."""
        for path in self.directory.iterdir():
            if path.name not in keys:
                shutil.rmtree(path)


@contextmanager
def only_one(lock: Path, work: str) -> Iterator[None]:
    """Hold a lock file; the kernel lets go of it when this process ends, however it ends.

    Raises:
        InUseError: Another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUseError(f"another run works on {work} ({_holder(lock)}): wait for its end, or stop it") from error
        file.truncate(0)
        file.write(json.dumps({"process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}))
        file.flush()
        yield


def _holder(lock: Path) -> str:
    try:
        found = json.loads(lock.read_text())
    except ValueError:
        return "a process that is just starting"
    return f"process {found['process']}, since {found['since']}"


@contextmanager
def disk_of(path: Path | str) -> Iterator[None]:
    """Turn the many ways in which writers say that a disk is full into one `FullDiskError`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        if not full:
            raise
        raise FullDiskError(
            f"the disk of {path} is full: free some room and run again; "
            "finished pieces are kept, and what was stored before is intact"
        ) from error


def removed(directory: Path, *, dry_run: bool = False) -> int:
    """Remove a directory with all that is in it, or only look, and return the bytes of its files."""
    size = sum(path.lstat().st_size for path in directory.rglob("*") if not path.is_dir())
    if not dry_run:
        shutil.rmtree(directory)
    return size
