"""Set algebra of selections: two ranked orders of pairs enter, the order of their combination leaves."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipcov_assets.core.pool import Array


def intersection(first: ArrayLike, second: ArrayLike) -> Array:
    """Return the pairs that both orders hold, in the order of the first.

    With a head of the first order it returns a head of the same result. With heads of both it returns some of the
    same result, which need not be its head.

    Args:
        first: (n,) uids, or rows of one pool, first pick first, each once.
        second: (m,) likewise.

    Raises:
        ValueError: An order is no row of uids, or holds a pair twice, or the two name pairs in different ways.
    """
    both, ours, theirs = _numbered(first, second)
    return both[: len(ours)][np.isin(ours, theirs)]


def difference(first: ArrayLike, second: ArrayLike) -> Array:
    """Return the pairs of the first order that the second does not hold, in the order of the first.

    With a head of the first order it returns a head of the same result. With heads of both there is no such rule: a
    longer second order takes pairs away.

    Args:
        first: (n,) uids, or rows of one pool, first pick first, each once.
        second: (m,) likewise.

    Raises:
        ValueError: As `intersection`.
    """
    both, ours, theirs = _numbered(first, second)
    return both[: len(ours)][np.isin(ours, theirs, invert=True)]


def union(first: ArrayLike, second: ArrayLike) -> Array:
    """Return the pairs that either order holds, each once, by the smaller of its ranks.

    At equal ranks the pair of the first order comes before that of the second. Heads of k pairs of both return a head
    of the same result, for every k.

    Args:
        first: (n,) uids, or rows of one pool, first pick first, each once.
        second: (m,) likewise.

    Raises:
        ValueError: As `intersection`.
    """
    both, ours, theirs = _numbered(first, second)
    turns = np.argsort(np.concatenate([np.arange(len(ours)), np.arange(len(theirs))]), kind="stable")
    _, earliest = np.unique(np.concatenate([ours, theirs])[turns], return_index=True)
    return both[turns[np.sort(earliest)]]


@dataclass(frozen=True)
class Operation:
    """One way to make a selection of two.

    Attributes:
        word: Stands for it in names.
        combine: Two ranked orders -> the order of their combination.
        summary: One sentence on what is picked, with places for the names `first` and `second`.
    """

    word: str
    combine: Callable[[ArrayLike, ArrayLike], Array]
    summary: str


OPERATIONS: dict[str, Operation] = {
    "&": Operation("and", intersection, "Pairs that both {first} and {second} pick, in the order of {first}."),
    "|": Operation("or", union, "Pairs that {first} or {second} picks, the two taking turns by rank."),
    "-": Operation("without", difference, "Pairs that {first} picks and {second} does not, in the order of {first}."),
}


@dataclass(frozen=True)
class Combination:
    """A selection that is made of those of two methods.

    Attributes:
        first: Name of a method.
        operator: A key of `OPERATIONS`.
        second: Name of another method.
    """

    first: str
    operator: str
    second: str

    @property
    def methods(self) -> tuple[str, str]:
        """Both of them."""
        return self.first, self.second

    @property
    def name(self) -> str:
        """Such as `clipcov_and_semdedup`."""
        return f"{self.first}_{OPERATIONS[self.operator].word}_{self.second}"

    @property
    def summary(self) -> str:
        """One sentence on what is picked, for people who choose."""
        return OPERATIONS[self.operator].summary.format(first=self.first, second=self.second)

    def __call__(self, first: ArrayLike, second: ArrayLike) -> Array:
        """Combine two orders, those of the two methods."""
        return OPERATIONS[self.operator].combine(first, second)


def _numbered(first: ArrayLike, second: ArrayLike) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """Both orders in one row, and each as numbers, equal where pairs are: numbers are found faster than uids."""
    orders = {"first": np.asarray(first), "second": np.asarray(second)}
    for name, order in orders.items():
        if order.ndim != 1:
            raise ValueError(f"the {name} order has shape {order.shape}: give one row of uids, first pick first")
    if len({order.dtype.kind in "iu" for order in orders.values() if len(order)}) > 1:
        raise ValueError("one order is of whole numbers, the other is not: give uids in both, or rows of one pool")
    both = np.concatenate(list(orders.values()))
    uid, numbers = np.unique(both, return_inverse=True)
    ours, theirs = np.split(numbers, [len(orders["first"])])
    for name, found in zip(orders, (ours, theirs), strict=True):
        times = np.bincount(found, minlength=1)
        if times.max() > 1:
            raise ValueError(f"the {name} order holds pair {uid[times.argmax()]} twice: give every pair once")
    return both, ours, theirs
