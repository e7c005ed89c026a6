"""Hashes of large files, kept between runs so that a file is read through once."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def file_state(found: os.stat_result) -> tuple[int, int]:
    """Return size and time of a file: while both stay the same, so does its content."""
    return found.st_size, found.st_mtime_ns


class ShardDigests:
    """Gives the sha256 of files, and remembers them in a JSON file where there is one."""

    def __init__(self, file: Path | None) -> None:
        self._file = file

    def of(self, path: Path) -> bytes:
        """Return the sha256 of a file; one of the size and time that are remembered is not read."""
        size, time = file_state(path.stat())
        match self._remembered().get(str(path)):
            case [int(known_size), int(known_time), str(digest)] if (known_size, known_time) == (size, time):
                return bytes.fromhex(digest)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256")
        self._remember(str(path), [size, time, found.hexdigest()])
        return found.digest()

    def _remembered(self) -> dict[str, Any]:
        if self._file is None:
            return {}
        try:
            found = json.loads(self._file.read_text())
        except (OSError, ValueError):  # not there yet, or damaged: files are read again
            return {}
        return found if isinstance(found, dict) else {}

    def _remember(self, path: str, entry: list[int | str]) -> None:
        """Add one entry, whole or not at all: a kill on the way costs the reading of one file."""
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._file.with_name(f"{self._file.name}.{os.getpid()}.unfinished")
        unfinished.write_text(json.dumps(self._remembered() | {path: entry}, indent=0))
        unfinished.replace(self._file)
