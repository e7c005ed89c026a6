"""The loops that decide an order, compiled: rows of embeddings enter, picks and sums of similarities leave.

Every product of two rows runs through `dot` and never through a matrix library, so that equal rows give
equal bits and ties are exact. Import this module where it is used: numba takes a while to load.
"""

# n pairs of one class, d width of an embedding, t picks so far, e a pair. A row of `pairs` is (image, text),
# (2d,); with its halves swapped it is (text, image), so that sim(i, j) = <pairs[i], swapped pairs[j]>.

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from clipcov_assets.core.pool import Array

BLOCK = 32  # rows that stay in a core's cache while all others pass by
# Heap places that are evaluated together: three levels. One alone leaves a core waiting for its row; more would
# evaluate what never comes up.
HEAD = 7


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile to run without the interpreter's lock; keep the machine code where a directory allows it."""
    options = {"nogil": True, "fastmath": {"reassoc", "contract"}}
    kernel: Callable[..., Any]
    try:
        kernel = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no directory that it may write to
        kernel = numba.njit(**options)(function)
    return kernel


def readable(rows: Array) -> Array:
    """Return rows as the kernels take them: numba has no float16, so its bits stand for it."""
    return rows.view(np.uint16) if rows.dtype == np.float16 else rows


@intrinsic  # type: ignore[untyped-decorator]
def widened(_typing: Any, value: Any) -> Any:  # noqa: ANN401  (numba's own types)
    """Return a float64 of the bits of a float16, of a float32 or of a float64, each without rounding."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        (number,) = arguments
        if value == types.uint16:
            number = builder.bitcast(number, ir.HalfType())
        return number if value == types.float64 else builder.fpext(number, ir.DoubleType())

    return types.float64(value), generate


@compiled
def dot(a: Array, b: Array) -> float:
    """Return the float64 product of two rows."""
    total = 0.0
    for i in range(a.shape[0]):
        total += widened(a[i]) * widened(b[i])
    return total


@compiled
def add_rows(sums: Array, rows: Array, group: Array, order: Array) -> None:
    """Add each row to the float64 sum of its group, in this order of rows."""
    for e in order:
        total = sums[group[e]]
        for i in range(rows.shape[1]):
            total[i] += widened(rows[e, i])


@compiled
def row_sum(rows: Array) -> Array:
    """Return (width,) float64 sum of the rows."""
    total = np.zeros(rows.shape[1])
    for e in range(rows.shape[0]):
        for i in range(rows.shape[1]):
            total[i] += widened(rows[e, i])
    return total


@compiled
def squared_lengths(rows: Array) -> Array:
    """Return (n,) float64 product of each row with itself."""
    squares = np.empty(rows.shape[0])
    for e in range(rows.shape[0]):
        squares[e] = dot(rows[e], rows[e])
    return squares


@compiled
def equal_to_next(rows: Array, order: Array) -> Array:
    """Return (n - 1,) whether a row equals the one after it, in this order of rows."""
    equal = np.ones(order.shape[0] - 1, np.bool_)
    for t in range(order.shape[0] - 1):
        for i in range(rows.shape[1]):
            if rows[order[t], i] != rows[order[t + 1], i]:
                equal[t] = False
                break
    return equal


@compiled
def first_look(pairs: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Return (m, n) products of m weights with each pair, (n,) sim(e, e), (n,) <x_e, x_e>: each pair is read once."""
    n, d = pairs.shape[0], pairs.shape[1] // 2
    products, similarities, squares = np.empty((weights.shape[0], n)), np.empty(n), np.empty(n)
    for e in range(n):
        pair = pairs[e]
        for j in range(weights.shape[0]):
            products[j, e] = dot(pair, weights[j])
        similarities[e] = 2 * dot(pair[:d], pair[d:])
        squares[e] = dot(pair, pair)
    return products, similarities, squares


@compiled
def four_products(pairs: Array, a: int, b: int, c: int, d: int, weight: Array) -> tuple[float, float, float, float]:
    """Return the float64 products of the rows a, b, c and d with one weight, which is read once for all of them."""
    of_a, of_b, of_c, of_d = 0.0, 0.0, 0.0, 0.0
    for i in range(weight.shape[0]):
        of_a += widened(pairs[a, i]) * weight[i]
        of_b += widened(pairs[b, i]) * weight[i]
        of_c += widened(pairs[c, i]) * weight[i]
        of_d += widened(pairs[d, i]) * weight[i]
    return of_a, of_b, of_c, of_d


@compiled
def sift_down(heap: Array, bounds: Array, size: int, place: int, gains: Array) -> None:
    """Restore the heap below a place: largest bound first, then largest gain, then smallest row.

    Args:
        heap: Rows; the first `size` count.
        bounds: Upper bound of the gain of each row of the heap, place by place.
        size: Rows in the heap.
        place: Where a bound fell.
        gains: (n,) last known gain of each row.
    """
    row, bound = heap[place], bounds[place]
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        other = child + 1
        if other < size and precedes(bounds[other], heap[other], bounds[child], heap[child], gains):
            child = other
        if not precedes(bounds[child], heap[child], bound, row, gains):
            break
        heap[place], bounds[place] = heap[child], bounds[child]
        place = child
    heap[place], bounds[place] = row, bound


@compiled
def precedes(bound: float, row: int, other_bound: float, other: int, gains: Array) -> bool:
    """Return whether a row stands above another in the heap."""
    if bound != other_bound:
        return bool(bound > other_bound)
    if gains[row] != gains[other]:
        return bool(gains[row] > gains[other])
    return bool(row < other)


@compiled
def lazy_greedy(
    pairs: Array, base: Array, penalty: float, floors: Array, heap: Array, twin: Array, budget: int
) -> tuple[Array, Array]:
    """Return (budget,) rows in greedy order and their (budget,) gains.

    The gain of e after the picks S is base[e] - penalty * sum over s in S of sim(e, s). It is evaluated
    only for the pairs with the largest upper bounds. Each pick s lowers every gain by at least penalty *
    floors[s], so a gain from an earlier time is bounded by itself minus the `drop` since then; as all
    bounds fall together, the heap keeps gain + drop at evaluation and never has to be rebuilt. The floors
    may be negative.

    Args:
        pairs: (n, 2d) float32, or the bits of float16.
        base: (n,) float64 gains of the first pick.
        penalty: 1 / n_k, or 0.
        floors: (n,) float64, floors[s] < sim(e, s) for every e.
        heap: Rows by falling `base`, ties by row, without those that are another row's twin. Overwritten.
        twin: (n,) the next row that is equal to this one, or -1.
        budget: Picks wanted, at most n.
    """
    n, d = pairs.shape[0], pairs.shape[1] // 2
    size = heap.shape[0]
    gains, bounds = base.copy(), base[heap]
    evaluated = np.zeros(n, np.int64)
    order, picked_gains = np.empty(budget, np.int64), np.empty(budget)
    picked = np.zeros(2 * d)  # (L, V): the sum of the picks' swapped rows
    drop = 0.0
    stale = np.empty(HEAD + 3, np.int64)
    for t in range(budget):
        while evaluated[heap[0]] < t:
            count = 0
            for place in range(min(HEAD, size)):
                if evaluated[heap[place]] < t:
                    stale[count] = place
                    count += 1
            stale[count : count + 3] = stale[count - 1]  # to fill the last four
            for first in range(0, count, 4):
                a, b, c, f = stale[first], stale[first + 1], stale[first + 2], stale[first + 3]
                products = four_products(pairs, heap[a], heap[b], heap[c], heap[f], picked)
                for i in range(4):
                    place = stale[first + i]
                    e = heap[place]
                    gains[e] = base[e] - penalty * products[i]
                    bounds[place] = gains[e] + drop
                    evaluated[e] = t
            for i in range(count - 1, -1, -1):
                sift_down(heap, bounds, size, stale[i], gains)
        e = heap[0]
        order[t], picked_gains[t] = e, gains[e]
        for i in range(d):
            picked[i] += widened(pairs[e, d + i])
            picked[d + i] += widened(pairs[e, i])
        drop += penalty * floors[e]
        if twin[e] >= 0:
            heap[0] = twin[e]
            gains[twin[e]], evaluated[twin[e]] = gains[e], t
        else:
            size -= 1
            heap[0], bounds[0] = heap[size], bounds[size]
        sift_down(heap, bounds, size, 0, gains)
    return order, picked_gains


@compiled
def double_greedy(pairs: Array, linear: Array, self_similarity: Array, penalty: float) -> Array:
    """Return (n,) whether each row stays, for rows in the order of the walk.

    Args:
        pairs: (n, 2d) float32, or the bits of float16.
        linear: (n,) float64, what each row adds to F apart from the quadratic term of F_class.
        self_similarity: (n,) float64 sim(e, e).
        penalty: 1 / n_k, or 0.

    Source: arXiv:2403.12267, Algorithm 1, lines 11-20.
    """
    n, d = pairs.shape[0], pairs.shape[1] // 2
    small, large = np.zeros(2 * d), np.zeros(2 * d)  # (L, V) of S_1 and of S_2
    for e in range(n):
        for i in range(d):
            large[i] += widened(pairs[e, d + i])
            large[d + i] += widened(pairs[e, i])
    stays = np.empty(n, np.bool_)
    for e in range(n):
        half = self_similarity[e] / 2
        a = linear[e] - penalty * (dot(pairs[e], small) + half)  # F(e | S_1)
        b = penalty * (dot(pairs[e], large) - half) - linear[e]  # F(S_2 without e) - F(S_2)
        stays[e] = a >= b
        sums, sign = (small, 1.0) if stays[e] else (large, -1.0)
        for i in range(d):
            sums[i] += sign * widened(pairs[e, d + i])
            sums[d + i] += sign * widened(pairs[e, i])
    return stays


@compiled
def clipped_sums(pairs: Array, others: Array) -> Array:
    """Return (n,) float64 sum over j in `others` of max(<v_e, l_j>, 0) + max(<l_e, v_j>, 0)."""
    n, d = pairs.shape[0], pairs.shape[1] // 2
    sums = np.zeros(n)
    for start in range(0, others.shape[0], BLOCK):
        for e in range(n):
            for j in range(start, min(start + BLOCK, others.shape[0])):
                sums[e] += max(dot(pairs[e, :d], others[j, d:]), 0.0)
                sums[e] += max(dot(pairs[e, d:], others[j, :d]), 0.0)
    return sums
