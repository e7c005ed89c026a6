"""The greedy order inside latent classes on an accelerator: pairs enter class by class, orders and gains leave.

Classes of like size run together, in rounds. A round takes the rows with the largest gains as candidates,
ranks them among themselves, and keeps the head of that order which no other row can have come before:

    sum over picks s of sim(e, s) = <x_e, X>, X the sum of the t picks' swapped rows
                                 = t <x_e, a> + <m, D> + <x_e - m, D>, D = X - t a
                                >= t <x_e, a> + <m, D> - |x_e - m| |D|

for any a and m; m is the mean row. With a the mean of the last round's picks, <x_e, a> is known from bringing
the gains up to date, and D is a sum of deviations that mostly cancel, so nearly all candidates are kept. Nothing
here depends on the signs of similarities. The order of the candidates is a chain of tiny steps, so it is left
to the host: one matrix crosses over in place of a launch a pick.

Import this module where it is used: torch and numba take a while to load.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from math import isqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence as pad

from clipcov_assets.core.cores import core_count
from clipcov_assets.core.kernels import compiled
from clipcov_assets.core.paper import paper_order
from clipcov_assets.core.pool import Array

# With M candidates, a pick costs the host M steps of about 1 ns and 8 M bytes of traffic; a round, some 0.8 M picks,
# costs the device a pass over the class in float64, 18 bytes a number. At 50 GB/s, 4,800 GB/s and 1,024 numbers
# a row, half of the rows left on average, both are equal near M = sqrt(2 n). Below 512 launches cost more than both.
CANDIDATES = 512
SIMILARITIES = 2**25  # entries that cross to the host at once, 256 MiB: enough to hide launches, quick to pin
TILE = 2**27  # numbers widened to float64 at once, 1 GiB
HOST_MEMORY = 2**30  # bytes, where the device is the CPU
MARGIN = 1e-6  # of a similarity, far above the rounding of a float64 bound and far below a round's progress
BATCHES = 2  # at once: the host ranks candidates of one while the device works for the other
WIDEST = 0.5  # the smallest class of a batch, as a share of the largest
CROWDED = 0.75  # a batch closes its gaps when less of it is alive


@dataclass(frozen=True, eq=False)
class HeldClass:
    """A class that waits on the device for a batch: (n, 2d) rows and the (2d,) float64 linear weight."""

    latent_class: int
    pairs: Tensor
    weight: Array


@dataclass(eq=False)
class Batch:
    """B classes of at most W distinct rows that can still be picked, padded; all but `pairs` is float64.

    Args:
        pairs: (B, W, 2d) in the dtype that they came in.
        row: (B, W) int64, the row of the class that each column holds: the first of those that equal it.
        base: (B, W) gains of the first pick; minus infinity for padding, later copies and picked rows.
        sums: (B, W) sum over the picks s of sim(e, s).
        typical: (B, W) <x_e, a>.
        direction: (B, 2d) a, the mean of the last round's swapped picks; at first of all swapped rows.
        mean: (B, 2d) m, of all rows.
        radius: (B,) largest |x_e - m|.
        penalty: (B,) 1 / n_k, or 0.
    """

    pairs: Tensor
    row: Tensor
    base: Tensor
    sums: Tensor
    typical: Tensor
    direction: Tensor
    mean: Tensor
    radius: Tensor
    penalty: Tensor

    def compact(self, alive: NDArray[np.int64]) -> None:
        """Drop columns that can no longer be picked, and classes that have none left.

        Args:
            alive: (B,) columns of each class that can still be picked.
        """
        classes = torch.from_numpy(np.flatnonzero(alive)).to(self.base.device)
        dead = torch.isneginf(self.base[classes])
        columns = dead.to(torch.uint8).sort(dim=1, stable=True).indices[:, : int(alive.max())]
        for name in ("pairs", "row", "base", "sums", "typical"):
            setattr(self, name, getattr(self, name)[classes[:, None], columns])
        for name in ("direction", "mean", "radius", "penalty"):
            setattr(self, name, getattr(self, name)[classes])


def device_orders(
    classes: Iterable[tuple[int, Array, Array]], terms: frozenset[str], *, device: str, memory: int | None = None
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.float64]]]:
    """Rank each class as `paper_order` does, many at a time; different rows whose gains differ by rounding may swap.

    Args:
        classes: Class, its (n, 2d) float16 or float32 pairs in ascending order of uid, its (2d,) float64
            row of `linear_weights`. Read as they are needed; at most `memory` bytes are held.
        terms: Which terms of Eq. (16) count.
        device: A torch device.
        memory: Bytes of the device to use; None is 0.9 of what is free. Classes that do not fit are ranked on the
            CPU.

    Yields:
        Class, its (n,) order and its (n,) gains, each class once, in no particular order.

    Raises:
        ValueError: there is no such device.

    Source: arXiv:2403.12267, Algorithm 1.
    """
    place = torch.device(device)
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f'device is {device!r}, and torch sees no GPU: pass device="cpu" or install a CUDA build')
    if memory is None:
        memory = int(0.9 * torch.cuda.mem_get_info(place)[0]) if place.type == "cuda" else HOST_MEMORY
    half = memory // 2  # one half holds what was read, the other works on it
    share = half // BATCHES
    held: list[HeldClass] = []
    size = 0
    for k, pairs, weight in classes:
        if batch_bytes(1, len(pairs), pairs.shape[1], pairs.itemsize, share) > share:
            yield k, *paper_order(pairs, weight, terms)
            continue
        if size + pairs.nbytes > half:
            yield from held_orders(held, terms, half)
            held, size = [], 0
        held.append(HeldClass(k, torch.tensor(pairs, device=place), weight))
        size += pairs.nbytes
    yield from held_orders(held, terms, half)


def batch_bytes(classes: int, longest: int, width: int, itemsize: int, memory: int) -> int:
    """Return the bytes of the device that a batch needs at most, with twice its rows for closing gaps."""
    chosen = candidate_count(longest)
    rows = longest * (2 * width * itemsize + 128)
    return classes * (rows + 16 * chosen * chosen + 48 * chosen * width) + 32 * tile_size(memory)


def tile_size(memory: int) -> int:
    """Return how many numbers are widened to float64 at once."""
    return min(TILE, memory // 128)


def candidate_count(longest: int) -> int:
    """Return the candidates of a round for classes of at most `longest` rows."""
    return min(longest, max(CANDIDATES, isqrt(2 * longest)))


def held_orders(
    held: list[HeldClass], terms: frozenset[str], memory: int
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.float64]]]:
    """Rank classes that are on the device, those of like size together. Empties the list."""
    names: list[int] = []
    batches = []
    share = memory // BATCHES
    held.sort(key=lambda one: -len(one.pairs))
    while held:
        count = batch_size(held, share)
        names.extend(one.latent_class for one in held[:count])
        batches.append(held[:count])
        del held[:count]
    with ThreadPoolExecutor(BATCHES) as executor:
        ranked = executor.map(lambda together: batch_orders(together, terms, tile_size(share)), batches)
        for k, (order, gains) in zip(names, chain.from_iterable(ranked), strict=True):
            yield k, order, gains


def batch_size(held: list[HeldClass], memory: int) -> int:
    """Return how many of the first classes, longest first, make a batch."""
    longest, width = held[0].pairs.shape
    itemsize = held[0].pairs.element_size()
    count, most = 1, min(len(held), SIMILARITIES // candidate_count(longest) ** 2)
    while (
        count < most
        and len(held[count].pairs) >= WIDEST * longest
        and batch_bytes(count + 1, longest, width, itemsize, memory) <= memory
    ):
        count += 1
    return count


def batch_orders(
    together: list[HeldClass], terms: frozenset[str], tile: int
) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Return the order and the gains of each class of a batch. Empties the list, so that rows are held once."""
    sizes = [len(one.pairs) for one in together]
    batch, twin = start(together, terms, tile)
    head = np.tile(np.arange(max(sizes)), (len(sizes), 1))  # of a row and its copies, the one that comes next
    orders = [(np.empty(n, np.int64), np.empty(n)) for n in sizes]
    ranked = [0] * len(sizes)
    classes = np.arange(len(sizes))  # of those still in the batch
    with ThreadPoolExecutor(core_count()) as executor:
        while classes.size:
            candidates = Candidates.of(batch)
            leader = to_host(candidates.row)
            picks = rank_candidates(candidates, head[classes[:, None], leader], twin[classes], executor)
            accepted, alive = to_host(keep_head(batch, candidates, picks, tile))
            for b, k in enumerate(classes):
                chosen, rows, gains = (values[b, : accepted[b]] for values in (picks.chosen, picks.row, picks.gain))
                taken = slice(ranked[k], ranked[k] + len(rows))
                orders[k][0][taken], orders[k][1][taken] = rows, gains
                head[k, leader[b, chosen]] = twin[k, rows]  # numpy keeps the last of repeated places
                ranked[k] += len(rows)
            if np.count_nonzero(alive) * alive.max() <= CROWDED * batch.base.numel():
                batch.compact(alive)
                classes = classes[alive > 0]
    return orders


def start(together: list[HeldClass], terms: frozenset[str], tile: int) -> tuple[Batch, NDArray[np.int64]]:
    """Return a batch before its first pick, and (B, W) the next row that equals each row, or -1."""
    sizes = [len(one.pairs) for one in together]
    pairs = together[0].pairs[None] if len(sizes) == 1 else pad([one.pairs for one in together], batch_first=True)
    weights = torch.tensor(np.stack([one.weight for one in together]), dtype=torch.float64, device=pairs.device)
    together.clear()
    count = torch.tensor(sizes, device=pairs.device)
    penalty = ("class" in terms) / count.double()
    width = pairs.shape[2] // 2
    mean = torch.zeros_like(weights)
    for classes, _, rows in widened(pairs, tile):
        mean[classes] += rows.sum(dim=1)
    mean /= count[:, None]
    direction = mean.roll(width, dims=1)
    vectors = torch.stack([weights, direction, mean], dim=2)
    base, typical, distances = (
        torch.empty(pairs.shape[:2], dtype=torch.float64, device=pairs.device) for _ in range(3)
    )
    for classes, columns, rows in widened(pairs, tile):
        linear, typical[classes, columns], to_mean = (rows @ vectors[classes]).unbind(dim=2)
        distances[classes, columns] = (rows * rows).sum(dim=2) - 2 * to_mean
        similarity = 2 * (rows[:, :, :width] * rows[:, :, width:]).sum(dim=2)
        base[classes, columns] = linear + ("self" in terms) * similarity - penalty[classes, None] * similarity / 2
    row = torch.arange(pairs.shape[1], device=pairs.device).expand(pairs.shape[:2])
    padding = row >= count[:, None]
    twin, later = copies(pairs, padding, tile)
    base[padding | later] = -torch.inf
    squares = distances.masked_fill(padding, -torch.inf).amax(dim=1) + (mean * mean).sum(dim=1)
    radius = squares.clamp(min=0).sqrt() + MARGIN
    sums = torch.zeros_like(base)
    return Batch(pairs, row, base, sums, typical, direction, mean, radius, penalty), to_host(twin)


def copies(pairs: Tensor, padding: Tensor, tile: int) -> tuple[Tensor, Tensor]:
    """Find rows of a class that are equal, which matrix products may give unequal bits.

    Returns:
        (B, W) int64 the next row that equals each row, or -1, and (B, W) whether an earlier row equals it. Rows whose
        64-bit hashes are equal are compared.
    """
    random = np.random.default_rng(0)
    words = pairs.shape[2] * pairs.element_size() // 4
    factors = torch.tensor(random.integers(2**63, size=words) | 1, device=pairs.device)
    hashes = torch.empty(pairs.shape[:2], dtype=torch.int64, device=pairs.device)
    for classes, columns in tiles(pairs, tile):
        bits = (pairs[classes, columns] + 0.0).view(torch.int32)  # + 0.0 makes -0 a 0
        hashes[classes, columns] = (bits * factors).sum(dim=2)
    hashes, row = hashes.sort(dim=1, stable=True)
    alike = hashes[:, 1:] == hashes[:, :-1]
    alike &= ~padding.gather(1, row[:, 1:]) & ~padding.gather(1, row[:, :-1])
    twin, later = torch.full_like(row, -1), torch.zeros_like(padding)
    found, step = torch.nonzero(alike), max(tile // pairs.shape[2], 1)
    for first in range(0, len(found), step):
        b, place = found[first : first + step].unbind(dim=1)
        one, other = row[b, place], row[b, place + 1]
        equal = (pairs[b, one] == pairs[b, other]).all(dim=1)
        twin[b[equal], one[equal]] = other[equal]
        later[b[equal], other[equal]] = True
    return twin, later


def tiles(pairs: Tensor, tile: int) -> Iterator[tuple[slice, slice]]:
    """Cut (B, W, 2d) into slices of classes and columns with about `tile` numbers."""
    classes, longest, width = pairs.shape
    columns = min(max(tile // width, 1), longest)
    together = max(tile // (width * longest), 1)
    for b in range(0, classes, together):
        for e in range(0, longest, columns):
            yield slice(b, b + together), slice(e, e + columns)


def widened(pairs: Tensor, tile: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield slices of classes and columns, with their rows as float64."""
    for classes, columns in tiles(pairs, tile):
        yield classes, columns, pairs[classes, columns].double()


def to_host(values: Tensor) -> Array:
    """Return the values as numpy; page-locked on the way from a GPU, several times as fast."""
    if values.is_cuda:
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        values = host.copy_(values)
    array: Array = values.numpy()
    return array


@dataclass(frozen=True, eq=False)
class Candidates:
    """The M rows of each class with the largest gains, ties by row.

    Args:
        column: (B, M) int64 columns of the batch.
        row: (B, M) int64 `Batch.row` of these.
        base: (B, M) gains of the first pick.
        sums: (B, M) sum over the picks s of sim(e, s).
        penalty: (B,) 1 / n_k, or 0.
        swapped: (B, M, 2d) float64 rows, halves exchanged.
        similarity: (B, M, M) float64.
        best_outside: (B,) largest gain of the other rows.
        last_outside: (B,) the same after M more picks like those of the last round.
    """

    column: Tensor
    row: Tensor
    base: Tensor
    sums: Tensor
    penalty: Tensor
    swapped: Tensor
    similarity: Tensor
    best_outside: Tensor
    last_outside: Tensor

    @classmethod
    def of(cls, batch: Batch) -> "Candidates":
        """Take the candidates of the next round."""
        gains = batch.base - batch.penalty[:, None] * batch.sums
        count = candidate_count(gains.shape[1])
        column = gains.sort(dim=1, descending=True, stable=True).indices[:, :count]
        rows = batch.pairs[torch.arange(len(column), device=column.device)[:, None], column].double()
        swapped = rows.roll(rows.shape[2] // 2, dims=2)
        outside = gains.scatter(1, column, -torch.inf)
        return cls(
            column,
            batch.row.gather(1, column),
            batch.base.gather(1, column),
            batch.sums.gather(1, column),
            batch.penalty,
            swapped,
            rows @ swapped.transpose(1, 2),
            outside.amax(dim=1),
            (outside - count * batch.penalty[:, None] * batch.typical).amax(dim=1),
        )


@dataclass(frozen=True, eq=False)
class Picks:
    """(B, M) arrays, one entry a pick: the candidate, its row of the class, its gain, whether it has no copy left.

    Where a class has fewer rows, the gains are minus infinity.
    """

    chosen: NDArray[np.int64]
    row: NDArray[np.int64]
    gain: NDArray[np.float64]
    last: NDArray[np.bool_]


def rank_candidates(candidates: Candidates, head: Array, twin: Array, executor: ThreadPoolExecutor) -> Picks:
    """Rank the candidates of each class among themselves, on all cores.

    Args:
        candidates: Of B classes.
        head: (B, M) int64 the row that is picked when the candidate is picked next.
        twin: (B, n) int64 the row that comes next after each row is picked, or -1.
        executor: Threads to use.
    """
    shape = head.shape
    picks = Picks(np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.full(shape, -np.inf), np.zeros(shape, bool))
    arrays = [to_host(getattr(candidates, name)) for name in ("similarity", "base", "sums", "penalty")]
    share = -(-len(head) // core_count())

    def rank(first: int) -> None:
        some = slice(first, first + share)
        inputs = [values[some] for values in (*arrays, head, twin)]
        greedy_among(*inputs, picks.chosen[some], picks.row[some], picks.gain[some], picks.last[some])

    list(executor.map(rank, range(0, len(head), share)))
    return picks


@compiled
def greedy_among(
    similarity: Array,
    base: Array,
    sums: Array,
    penalty: Array,
    head: Array,
    twin: Array,
    chosen: Array,
    picked: Array,
    picked_gain: Array,
    last: Array,
) -> None:
    """Fill the picks of classes whose candidates' similarities are all known; ties go to the earlier row."""
    classes, count = base.shape
    for b in range(classes):
        row, total, value = head[b].copy(), sums[b].copy(), base[b].copy()
        for t in range(count):
            s, best = -1, -np.inf
            for e in range(count):
                gain = value[e] - penalty[b] * total[e]
                if gain > best or (gain == best and s >= 0 and row[e] < row[s]):
                    s, best = e, gain
            if s < 0:
                break
            chosen[b, t], picked[b, t], picked_gain[b, t] = s, row[s], best
            row[s] = twin[b, row[s]]
            if row[s] < 0:
                last[b, t], value[s] = True, -np.inf
            for e in range(count):
                total[e] += similarity[b, s, e]


def keep_head(batch: Batch, candidates: Candidates, picks: Picks, tile: int) -> Tensor:
    """Keep the picks that no row outside the candidates can have come before, and bring the batch up to date.

    Returns:
        (2, B) int64: how many picks each class keeps, and how many columns of it can still be picked.
    """
    place = batch.base.device
    chosen, gain, last = (torch.from_numpy(values).to(place) for values in (picks.chosen, picks.gain, picks.last))
    time = torch.arange(chosen.shape[1], device=place)
    swapped = candidates.swapped.gather(1, chosen[:, :, None].expand(-1, -1, candidates.swapped.shape[2]))
    totals = swapped.cumsum(dim=1)
    deviation = totals - swapped - time[:, None] * batch.direction[:, None]  # before the pick
    floor = (deviation @ batch.mean[:, :, None]).squeeze(2) - batch.radius[:, None] * deviation.norm(dim=2)
    del deviation, swapped
    # A largest gain is convex in the number of equal steps, so the chord from the first to the last lies above it.
    far = time / len(time)
    outside = (1 - far) * candidates.best_outside[:, None] + far * candidates.last_outside[:, None]
    outside[torch.isneginf(candidates.best_outside)] = -torch.inf
    sure = gain >= outside - batch.penalty[:, None] * (floor - MARGIN)
    sure[:, 0] = True  # the largest gain of all
    kept = (sure & ~torch.isneginf(gain)).cumprod(dim=1).sum(dim=1)

    sums = totals.gather(1, (kept - 1).clamp(min=0)[:, None, None].expand(-1, 1, totals.shape[2])).squeeze(1)
    batch.direction = sums / kept.clamp(min=1)[:, None]
    for classes, columns, rows in widened(batch.pairs, tile):
        added = (rows @ sums[classes, :, None]).squeeze(2)
        batch.sums[classes, columns] += added
        batch.typical[classes, columns] = added / kept[classes, None].clamp(min=1)
    gone = last & (time < kept[:, None])
    ends = torch.full_like(gain, torch.inf).masked_fill(gone, -torch.inf)
    batch.base.scatter_reduce_(1, candidates.column.gather(1, chosen), ends, "amin")
    return torch.stack([kept, (~torch.isneginf(batch.base)).sum(dim=1)])
