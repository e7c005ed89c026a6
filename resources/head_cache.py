"""Zero-shot heads on disk: a class name is embedded once for a model, whatever sets name it under equal templates."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import BadZipFile

import dagster as dg
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from resources.pieces import UNFINISHED, disk_of


class HeadCache(dg.ConfigurableResource):
    """Keeps the row of every class name, in one file for a model and its templates.

    A head of 1,000 classes takes about 2 MB. Models that have not been evaluated for the longest time are forgotten.
    """

    directory: str = Field(description="Directory of the heads; it can be removed at any time.")
    models: int = Field(default=100, ge=1, description="Models whose heads are kept: those evaluated last.")

    def rows(
        self,
        made_with: str,
        templates: Sequence[str],
        class_names: Sequence[str],
        embed: Callable[[Sequence[str]], NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        """Return the rows (K, d) of class names, which may repeat; only unknown ones are embedded.

        Two processes may do this at once: each writes a whole file, and what the later one replaces is embedded again
        when it is wanted.

        Args:
            made_with: All that a row depends on besides its name and the templates, such as the weights' sha256.
            templates: Of the prompts, in order.
            class_names: In the order of the labels.
            embed: Makes (m, d) of m names; a row must depend on its own name only, or results would depend on which
                set was evaluated first.

        Raises:
            FullDiskError: There is no room.
        """
        file = Path(self.directory) / _digest(made_with) / f"{_digest(list(templates))}.npz"
        known = _read(file)
        missing = [name for name in dict.fromkeys(class_names) if name not in known]
        if missing:
            known |= zip(missing, embed(missing), strict=True)
            _write(file, known)
        os.utime(file.parent)  # it was wanted now
        self._forget()
        return np.stack([known[name] for name in class_names])

    def _forget(self) -> None:
        """Remove the heads of the models that were not wanted for the longest time."""
        for path in sorted(Path(self.directory).iterdir(), key=_last_wanted)[: -self.models]:
            shutil.rmtree(path, ignore_errors=True)


def _last_wanted(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:  # another process has just forgotten it
        return 0


def _digest(value: object) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()


def _read(file: Path) -> dict[str, NDArray[np.float32]]:
    """The known rows by name: none where there is no file, or a damaged one, which is then made again."""
    try:
        with np.load(file) as found:
            return dict(zip(json.loads(found["names"].tobytes()), found["rows"], strict=True))
    except (FileNotFoundError, BadZipFile, EOFError, ValueError):
        return {}


def _write(file: Path, known: dict[str, NDArray[np.float32]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}{UNFINISHED}")
    names = np.frombuffer(json.dumps(list(known)).encode(), np.uint8)
    with disk_of(file.parent):
        with unfinished.open("wb") as stream:
            np.savez(stream, names=names, rows=np.stack(list(known.values())))
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(file)
