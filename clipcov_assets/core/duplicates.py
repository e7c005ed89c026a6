"""The largest product of a row with others: rows of embeddings enter, exact products and their partners leave.

A matrix library multiplies tiles in float32; what could be the largest is multiplied again by `dot`. So the
speed is the library's and the bits are `dot`'s: they depend on the two rows alone, not on their place, the
library, or the number of cores. Import this module where it is used: numba takes a while to load.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import faiss
import numpy as np
from threadpoolctl import threadpool_limits

from clipcov_assets.core.cores import core_count
from clipcov_assets.core.kernels import compiled, dot, equal_to_next, readable, squared_lengths
from clipcov_assets.core.pool import Array

Item = TypeVar("Item")

TILE = 1024  # rows; a tile's products stay in a core's cache


def on_single_cores(function: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Run the function on all items, one to a core: matrix libraries on many threads at once wait for each other."""
    alone = faiss.omp_set_num_threads
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(core_count(), initializer=alone, initargs=(1,)) as executor,
    ):
        for _ in executor.map(function, items):
            pass


def float32_rows(rows: Array, order: Array) -> Array:
    """Return (m, d) float32 copies of the rows of `order`."""
    copies: Array = np.take(rows, order, axis=0).astype(np.float32, copy=False)
    return copies


def rounding(width: int) -> float:
    """Return how far a float32 product of two rows can be from the exact one, whatever the order of the sum.

    The rows are of unit length within the tolerance of a pool; the factor covers that tolerance, the rounding
    of the float64 product, and numbers that are too small for float32.

    Source: Higham 2002, Accuracy and Stability of Numerical Algorithms, Eq. (3.5).
    """
    unit = width * 2.0**-24
    return 1.01 * unit / (1 - unit)


def nearest(rows: Array, order: Array, others: Array) -> tuple[Array, Array]:
    """Return the other row with which each row has the largest product, and that product.

    Args:
        rows: (n, d) float16 or float32 unit rows.
        order: (n,) all rows, in the order in which they are read.
        others: (m, d) float32 unit rows; ties go to the earlier one.

    Returns:
        (n,) int64 and (n,) float64, both in the order of `rows`.
    """
    partner, largest = np.empty(len(rows), np.int64), np.empty(len(rows))
    names = np.arange(len(others))

    def compare(start: int) -> None:
        block = order[start : start + TILE]
        found, products = np.full(len(block), -1), np.full(len(block), -np.inf)
        some = float32_rows(rows, block)
        raise_largest(some @ others.T, some, others, names, len(others), rounding(rows.shape[1]), products, found)
        partner[block], largest[block] = found, products

    on_single_cores(compare, range(0, len(order), TILE))
    return partner, largest


def largest_earlier(rows: Array, walk: Array, rank: Array, group: Array) -> tuple[Array, Array]:
    """Return the largest product of each row with an earlier row of its group, at least 0, and that row.

    Memory is a few tiles for each core, however large a group is.

    Args:
        rows: (n, d) float16 or float32 unit rows.
        walk: (n,) all rows, group after group: which rows are earlier.
        rank: (n,) place of each row's uid; among equal products the smaller uid is the partner.
        group: (n,) group of each row.

    Returns:
        (n,) float64 and (n,) int64, both in the order of `rows`; -1 where no product is above 0.
    """
    # A copy of the row before it, with a larger uid, adds nothing for later rows, and its own answer follows from
    # that row's: a crawl may hold one picture ten thousand times.
    copy = np.zeros(len(walk), bool)
    copy[1:] = equal_to_next(readable(rows), walk) & (np.diff(group[walk]) == 0) & (np.diff(rank[walk]) > 0)
    originals = walk[~copy]
    found, names = _of_distinct_rows(rows, originals, rank, group)
    of = np.cumsum(~copy) - 1
    found, names, original = found[of], names[of], rank[originals][of]
    copies = np.flatnonzero(copy)
    for start in range(0, len(copies), TILE):
        some = copies[start : start + TILE]
        own = squared_lengths(float32_rows(rows, walk[some]))
        nearer = (own > found[some]) | ((own == found[some]) & (original[some] < names[some]))
        names[some] = np.where(nearer, original[some], names[some])
        found[some] = np.maximum(own, found[some])
    largest, partner = np.empty(len(rows)), np.empty(len(rows), np.int64)
    by_rank = np.append(np.argsort(rank), -1)  # the last one answers to -1
    largest[walk], partner[walk] = found, by_rank[names]
    return largest, partner


def _of_distinct_rows(rows: Array, walk: Array, rank: Array, group: Array) -> tuple[Array, Array]:
    """Return the same for distinct rows, in the order of the walk and with ranks instead of rows."""
    largest, partner, margin = np.zeros(len(walk)), np.full(len(walk), -1), rounding(rows.shape[1])
    starts = np.flatnonzero(np.diff(group[walk], prepend=-1))
    bounds = zip(starts.tolist(), [*starts[1:].tolist(), len(walk)], strict=True)
    blocks = [(start, first, min(first + TILE, stop)) for start, stop in bounds for first in range(start, stop, TILE)]

    def compare(block: tuple[int, int, int]) -> None:
        start, first, stop = block
        later = float32_rows(rows, walk[first:stop])
        mine = slice(first, stop)
        for place in range(start, stop, TILE):
            others = walk[place : min(place + TILE, stop)]
            earlier = later if place == first else float32_rows(rows, others)
            products = later @ earlier.T
            raise_largest(products, later, earlier, rank[others], first - place, margin, largest[mine], partner[mine])

    on_single_cores(compare, blocks)
    return largest, partner


@compiled
def raise_largest(
    products: Array,
    rows: Array,
    others: Array,
    names: Array,
    earlier: int,
    margin: float,
    largest: Array,
    partner: Array,
) -> None:
    """Raise each row's largest product so far to that with some others, and name the partner.

    Args:
        products: (m, b) float32 products of rows and others, each off by at most `margin`.
        rows: (m, d) float32.
        others: (b, d) float32.
        names: (b,) int64, what a partner is called; the smallest name wins a tie.
        earlier: Row r meets only the first `earlier` + r others.
        margin: See `rounding`.
        largest: (m,) float64. Overwritten.
        partner: (m,) int64, -1 for none so far. Overwritten.
    """
    for r in range(rows.shape[0]):
        limit = largest[r] - margin
        for c in range(min(others.shape[0], earlier + r)):
            if products[r, c] >= limit:
                product = dot(rows[r], others[c])
                if product > largest[r] or (product == largest[r] and names[c] < partner[r]):
                    largest[r], partner[r] = product, names[c]
                    limit = product - margin
