"""The candidates of a selection: columns of arrays enter, checked columns leave."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]

UNIT_TOLERANCE = 1e-3  # rounding a unit row to float16 moves its norm by at most 5e-4


@dataclass(frozen=True, eq=False)
class Pool:
    """The pairs that a method may select from, one row a pair; a method reads the columns that it names.

    Args:
        uid: (n,) strings or integers of 64 bits, unique. The order of uids breaks every tie.
        image_embeddings: (n, d) unit rows, float16 or float32; wider floats are narrowed to float32.
        text_embeddings: (n, d) unit rows, like `image_embeddings`.
        latent_class: (n,) integers in [0, K).
        class_embeddings: (K, d) unit rows, one a class; classes without pairs are welcome.
        captions: n strings.
        partial_clip_score: (n,) clip score under the partially trained model.
        clip_score: (n,) clip score under the proxy, where it is known already; else it is computed.

    Raises:
        ValueError: the pool is empty, columns disagree in length or width, a uid repeats, a row is not
            finite or not of unit length, or a class is outside [0, K). The message names the column, the
            first such row and its uid.
    """

    uid: Array
    image_embeddings: Array | None = None
    text_embeddings: Array | None = None
    latent_class: Array | None = None
    class_embeddings: Array | None = None
    captions: Sequence[str] | None = None
    partial_clip_score: Array | None = None
    clip_score: Array | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "uid", as_uids(self.uid))
        if not len(self):
            raise ValueError("uid is empty: a pool needs at least one pair")
        ordered = self.uid[self.by_uid]
        repeated = np.flatnonzero(ordered[1:] == ordered[:-1])
        if repeated.size:
            raise ValueError(f"uid {ordered[repeated[0]].item()!r} appears more than once: keep one row a uid")
        readers = {
            "image_embeddings": self._unit_rows,
            "text_embeddings": self._unit_rows,
            "class_embeddings": self._unit_rows,
            "latent_class": self._classes,
            "captions": self._strings,
            "partial_clip_score": self._scores,
            "clip_score": self._scores,
        }
        for name, reader in readers.items():
            column = getattr(self, name)
            if column is not None:
                object.__setattr__(self, name, reader(name, column))
        self._check_widths()

    def __len__(self) -> int:
        return len(self.uid)

    @cached_property
    def by_uid(self) -> NDArray[np.int64]:
        """(n,) rows in ascending order of uid: the order in which every method first sees the pool."""
        return np.argsort(self.uid, kind="stable").astype(np.int64)

    @cached_property
    def uid_rank(self) -> NDArray[np.int64]:
        """(n,) place of each row's uid in ascending order; compares like the uid and sorts faster."""
        rank = np.empty(len(self), np.int64)
        rank[self.by_uid] = np.arange(len(self))
        return rank

    def require(self, *columns: str, method: str) -> tuple[Any, ...]:
        """Return the named columns.

        Raises:
            ValueError: the pool lacks one of them; the message names it and the method that reads it.
        """
        for name in columns:
            if getattr(self, name) is None:
                raise ValueError(f"{method} reads the column {name}, which this pool lacks: pass Pool({name}=...)")
        return tuple(getattr(self, name) for name in columns)

    def _fail(self, name: str, row: int, fault: str) -> ValueError:
        where = f"class {row}" if name == "class_embeddings" else f"row {row} (uid {self.uid[row].item()!r})"
        return ValueError(f"{name}: {where} {fault}")

    def _check_length(self, name: str, length: int) -> None:
        if name != "class_embeddings" and length != len(self):
            raise ValueError(f"{name} has {length} rows and uid has {len(self)}: pass one row a pair")

    def _check_widths(self) -> None:
        widths = {
            name: getattr(self, name).shape[1]
            for name in ("image_embeddings", "text_embeddings", "class_embeddings")
            if getattr(self, name) is not None
        }
        if len(set(widths.values())) > 1:
            found = ", ".join(f"{name} {width}" for name, width in widths.items())
            raise ValueError(f"embeddings disagree in width ({found}): use one proxy model for all of them")

    def _unit_rows(self, name: str, column: ArrayLike) -> Array:
        rows = np.asarray(column)
        if rows.ndim != 2 or rows.dtype.kind != "f" or 0 in rows.shape:
            raise ValueError(f"{name} must be a two-dimensional array of floats, not {rows.dtype} {rows.shape}")
        self._check_length(name, len(rows))
        rows = rows if rows.dtype in (np.float16, np.float32) else rows.astype(np.float32)
        fault = check_unit_rows(rows)
        if fault is not None:
            raise self._fail(name, *fault)
        return rows

    def _classes(self, name: str, column: ArrayLike) -> Array:
        classes = np.asarray(column)
        if classes.ndim != 1 or classes.dtype.kind not in "iu":
            raise ValueError(f"{name} must be a row of integers, not {classes.dtype} {classes.shape}")
        self._check_length(name, len(classes))
        count = np.inf if self.class_embeddings is None else len(self.class_embeddings)
        bad = np.flatnonzero((classes < 0) | (classes >= count))
        if bad.size:
            raise self._fail(name, int(bad[0]), f"is {classes[bad[0]]}, outside [0, {count})")
        return classes.astype(np.int64)

    def _strings(self, name: str, column: Sequence[str]) -> tuple[str, ...]:
        strings = tuple(column)
        self._check_length(name, len(strings))
        for row, string in enumerate(strings):
            if not isinstance(string, str):
                raise self._fail(name, row, f"is {type(string).__name__}, not a string")
        return strings

    def _scores(self, name: str, column: ArrayLike) -> Array:
        scores = np.asarray(column, dtype=np.float64)
        if scores.ndim != 1:
            raise ValueError(f"{name} must be a row of numbers, not {scores.shape}")
        self._check_length(name, len(scores))
        bad = np.flatnonzero(~np.isfinite(scores))
        if bad.size:
            raise self._fail(name, int(bad[0]), "is not finite")
        return scores


def check_unit_rows(rows: Array) -> tuple[int, str] | None:
    """Return the first of the rows (n, d) that is not finite or not of unit length, and what is wrong with it."""
    from clipcov_assets.core import kernels

    lengths = np.sqrt(kernels.squared_lengths(kernels.readable(rows)))
    bad = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))
    if not bad.size:
        return None
    row = int(bad[0])
    finite = np.isfinite(rows[row]).all()
    return row, f"has length {lengths[row]:.4g}, not 1: normalise it" if finite else "is not finite"


def as_uids(column: ArrayLike) -> Array:
    """Return uids as a (n,) array of strings or integers, which sorts as Python sorts them.

    Raises:
        ValueError: something else than strings or 64-bit integers.
    """
    uids = np.asarray(column)
    if uids.dtype.kind in "OT":
        uids = np.asarray(uids.tolist())
    if uids.size and (uids.ndim != 1 or uids.dtype.kind not in "iuU"):
        raise ValueError(f"uid must be a row of strings or 64-bit integers, not {uids.dtype} {uids.shape}")
    return uids


def rows_by_class(pool: Pool) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield each class that has pairs, with its rows in ascending order of uid."""
    (latent_class,) = pool.require("latent_class", method="a walk over classes")
    rows = pool.by_uid[np.argsort(latent_class[pool.by_uid], kind="stable")]
    classes, starts = np.unique(latent_class[rows], return_index=True)
    yield from zip(classes.tolist(), np.split(rows, starts[1:]), strict=True)
