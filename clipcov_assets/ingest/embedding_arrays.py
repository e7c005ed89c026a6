"""Ready-made embeddings in npy and npz files, some rows at a time; nothing is unpickled."""

import zipfile
import zlib
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np

WIDEST = 16_384
UNIT_TOLERANCE = 1e-2  # of a norm; float16 rows are off by a thousandth

DAMAGE = (OSError, ValueError, LookupError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


class EmbeddingsError(Exception):
    """Embeddings that cannot be read, or not be trusted as a whole."""


class EmbeddingArray:
    """An array (n, d) of floats in a file, read in the order of its rows; close it, or use it in a `with`.

    Attributes:
        shape: Rows and width, as the header declares them.
    """

    def __init__(self, path: Path, key: str | None = None) -> None:
        """Open a file; only the header is read.

        Args:
            path: An .npy, or an .npz.
            key: Of the array in an .npz; None for an .npy.

        Raises:
            EmbeddingsError: It is damaged, or no two-dimensional array of floats in row order.
        """
        self._label = path.name if key is None else f"{key} of {path.name}"
        self._stack = ExitStack()
        try:
            self._file: IO[bytes] = self._stack.enter_context(path.open("rb"))
            if key is not None:
                archive = self._stack.enter_context(zipfile.ZipFile(self._file))
                self._file = self._stack.enter_context(archive.open(f"{key}.npy"))
            shape, by_columns, self._dtype = _read_header(self._file)
            self._data = self._file.tell()
        except DAMAGE as error:
            self._stack.close()
            raise self._unreadable(error) from error
        if len(shape) != 2 or not 0 < shape[1] <= WIDEST or by_columns or self._dtype.kind != "f":
            self._stack.close()
            raise EmbeddingsError(f"{self._label} is {self._dtype} {shape}, not rows of floats")
        self.shape: tuple[int, int] = (shape[0], shape[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def read(self, first: int, count: int) -> np.ndarray:
        """Return rows `first` to `first + count` as float16 (count, d); what is skipped in an .npz is read over.

        Raises:
            EmbeddingsError: They are not there, or damaged.
        """
        width = self.shape[1] * self._dtype.itemsize
        try:
            self._file.seek(self._data + first * width)
            content = self._file.read(count * width)
        except DAMAGE as error:
            raise self._unreadable(error) from error
        if len(content) != count * width:
            raise EmbeddingsError(f"{self._label} is cut short at row {first + len(content) // width}")
        with np.errstate(over="ignore"):  # beyond float16 is infinite, which `are_unit_rows` sees
            return np.frombuffer(content, self._dtype).reshape(count, self.shape[1]).astype(np.float16)

    def _unreadable(self, error: BaseException) -> EmbeddingsError:
        return EmbeddingsError(f"{self._label} cannot be read ({type(error).__name__}: {error})"[:200])


def are_unit_rows(rows: np.ndarray) -> np.ndarray:
    """Return for every row of (n, d) whether it is finite and of norm 1: (n,) booleans."""
    norms = np.linalg.norm(rows.astype(np.float32), axis=1)
    sound: np.ndarray = np.abs(norms - 1) <= UNIT_TOLERANCE  # false where the norm is no number
    return sound


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"npy version {version}")
