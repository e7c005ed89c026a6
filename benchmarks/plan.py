"""What a pool of any size costs: its pairs and this machine's rates enter; bytes, hours and what breaks first leave.

`python -m benchmarks.plan` prints tables for CC3M to DataComp's 12.8 billion pairs, `--measure` measures first what
this machine can measure, and `--rate` takes what you know better. The model is of this project's code, step by
step: what each process holds and reads, and which of the loops is divided among workers.

Every number remembers the rates that it was computed from (`Quantity`), so every line says where it comes from.
"""

import argparse
import heapq
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache, partial
from pathlib import Path

import numpy as np

from benchmarks.machine import description
from benchmarks.measure import three_digits
from benchmarks.plan_rates import BASE_WIDTH, CLASS_BASE, kmeans_operations, measured_rates, tell
from benchmarks.report import amount, put_between
from clipcov_assets.scales import PAPER_FRACTIONS, RECIPES, SCALES

DAY, HOUR = 86_400.0, 3_600.0
METHODS = 6
FRAGMENT_ROWS = 2**20
WORKERS = (1, 8, 64, 512)
PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
BEGIN, END = "<!-- plan: written by benchmarks.plan -->", "<!-- end of the plan -->"


class Origin(StrEnum):
    """Where a rate comes from."""

    MEASURED = "measured"
    GIVEN = "given"
    ASSUMED = "assumed"


@dataclass(frozen=True)
class Rate:
    """A number that the plan rests on.

    Attributes:
        value: In the unit.
        unit: In words.
        origin: Measured in this run, given by the user, or assumed.
        source: Why this value.
    """

    value: float
    unit: str
    origin: Origin
    source: str


@dataclass(frozen=True)
class Quantity:
    """A number and the names of the rates that it was computed from; arithmetic keeps both."""

    value: float
    uses: frozenset[str] = frozenset()

    def _with(self, other: "Number", value: Callable[[float, float], float]) -> "Quantity":
        second = quantity(other)
        return Quantity(value(self.value, second.value), self.uses | second.uses)

    def __add__(self, other: "Number") -> "Quantity":
        return self._with(other, lambda a, b: a + b)

    def __mul__(self, other: "Number") -> "Quantity":
        return self._with(other, lambda a, b: a * b)

    def __truediv__(self, other: "Number") -> "Quantity":
        return self._with(other, lambda a, b: a / b)

    def __pow__(self, other: "Number") -> "Quantity":
        return self._with(other, lambda a, b: a**b)

    __radd__, __rmul__ = __add__, __mul__

    def __rtruediv__(self, other: float) -> "Quantity":
        return quantity(other) / self


Number = Quantity | float


def quantity(number: Number) -> Quantity:
    """Return a number that rests on no rate as a quantity, and a quantity as it is."""
    return number if isinstance(number, Quantity) else Quantity(number)


def largest(*numbers: Number) -> Quantity:
    """Return the largest number; which one it is depends on the rates of all of them."""
    found = [quantity(number) for number in numbers]
    return Quantity(max(one.value for one in found), frozenset().union(*(one.uses for one in found)))


class Rates:
    """All rates by name; `rates["embed"]` is a quantity that remembers its name."""

    def __init__(self, known: Mapping[str, Rate]) -> None:
        self.known = dict(known)

    def __getitem__(self, name: str) -> Quantity:
        return Quantity(self.known[name].value, frozenset({name}))

    def replaced(self, values: Mapping[str, float], origin: Origin, source: str) -> "Rates":
        """Return these rates with other values.

        Raises:
            ValueError: There is no rate of that name.
        """
        known = dict(self.known)
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"unknown rate {name!r}: choose from {', '.join(known)}")
            known[name] = replace(known[name], value=value, origin=origin, source=source)
        return Rates(known)

    def origin(self, found: Quantity) -> str:
        """Say where a computed number comes from: the weakest origin of its rates, and which they are.

        A number from measured rates alone is "from measured": it was computed for a size that nobody ran.
        """
        for origin in (Origin.ASSUMED, Origin.GIVEN):
            names = sorted(name for name in found.uses if self.known[name].origin is origin)
            if names:
                return f"{origin}: {', '.join(names)}"
        return f"from {Origin.MEASURED}" if found.uses else Origin.GIVEN


@dataclass(frozen=True)
class Proxy:
    """A model that embeds: width of its rows, and operations a pair (counted by torch's FlopCounterMode)."""

    width: int
    operations: float


@dataclass(frozen=True)
class PoolSize:
    """A pool to plan for.

    Attributes:
        name: Of the data set.
        pairs: In it.
        image_bytes: Of an encoded image, where the user gives none.
        shards: Class shards of its scale.
        why: Where the numbers come from.
    """

    name: str
    pairs: float
    image_bytes: float
    shards: int
    why: str


PROXIES = {"ViT-B-32": Proxy(512, 14.8e9), "ViT-L-14": Proxy(768, 175.3e9)}
TRAINED = Proxy(1024, 18.2e9)  # RN50, the model of the scales cc3m and cc12m
TRAINED_PARAMETERS = 102e6
CC, DATACOMP = 26_700.0, 35_200.0
CC_WHY = "at 256 px, the 331 GB that img2dataset states for CC12M"
DATACOMP_WHY = "DataComp's README: pool size, and its disk requirements over it; no scale of ours, shards as cc12m"
SIZES = (
    PoolSize("CC3M", 3_318_333, CC, SCALES["cc3m"].class_shards, f"pairs of the published list; {CC_WHY}"),
    PoolSize("CC12M", 12_423_374, CC, SCALES["cc12m"].class_shards, f"pairs of the published list; {CC_WHY}"),
    PoolSize("DataComp medium", 128e6, DATACOMP, SCALES["cc12m"].class_shards, DATACOMP_WHY),
    PoolSize("DataComp large", 1.28e9, DATACOMP, SCALES["cc12m"].class_shards, DATACOMP_WHY),
    PoolSize("DataComp xlarge", 12.8e9, DATACOMP, SCALES["cc12m"].class_shards, DATACOMP_WHY),
)
EARLIER = "of an AMD EPYC with 2 cores; --measure measures it here"


def _assumed(value: float, unit: str, source: str = EARLIER) -> Rate:
    return Rate(value, unit, Origin.ASSUMED, source)


def default_rates(proxy: Proxy) -> Rates:
    """Return every rate before anything was measured or given: all of them are assumed."""
    flops, utilisation = 989e12, 0.2
    of_gpu = "a fifth of the H200's 989 TFLOP/s (data sheet, dense bfloat16); not run"
    return Rates(
        {
            "embed": _assumed(round(utilisation * flops / proxy.operations), "pairs/s a GPU", of_gpu),
            "train": _assumed(round(utilisation * flops / 3 / TRAINED.operations), "samples/s a GPU, RN50", of_gpu),
            "gpus_of_node": _assumed(8, "GPUs of the node that trains", "assumed"),
            "cores_of_gpu": _assumed(16, "cores that decode for a GPU", "assumed; CLIPCOV_RAY_CPUS on a Ray cluster"),
            "at_once": _assumed(4, "class shards that Dagster runs at once", "`max_concurrent_runs` in dagster.yaml"),
            "cores": _assumed(32, "cores of Dagster's machine", "assumed"),
            "memory": _assumed(256 * 2**30, "bytes of Dagster's machine", "assumed"),
            "worker_memory": _assumed(16 * 2**30, "bytes of a worker that ranks", "assumed"),
            "network": _assumed(1.25e9, "bytes/s between Dagster's machine and the store", "assumed: 10 Gbit/s"),
            "crawls": _assumed(10, "crawls of equal size that bring the pool", "assumed"),
            "classes": _assumed(1_000, "latent classes", "ImageNet's names, the default of the scales"),
            "largest_class": _assumed(
                0.16,
                "share of the largest class",
                "0.162 in the demo's pool of 1,799 pairs and 31 classes; `latent_classes` reports yours",
            ),
            "cluster_skew": _assumed(
                1.1, "sum of squared cluster sizes over that of equal ones", "k-means on the demo's 1,799 images"
            ),
            "uid_bytes": _assumed(32, "bytes of a uid", "32 hexadecimal digits, as DataComp's"),
            "caption_bytes": _assumed(60, "bytes of a caption", "about ten words"),
            "image_bytes": _assumed(CC, "bytes of an encoded image", "by pool"),
            "ingest": _assumed(2_200, "pairs/s a core, 256 px"),
            "decode": _assumed(510, "pairs/s a core, 256 px to 224, tokenised"),
            "embed_cpu": _assumed(5, "pairs/s a core, ViT-B-32"),
            "decode_speedup": _assumed(1.75, "of 2 cores that decode over 1"),
            "lance_write": _assumed(250e6, "bytes/s of embeddings"),
            "lance_read": _assumed(2e9, "bytes/s of embeddings, out of the page cache"),
            "class_order": _assumed(32_000, "pairs/s into the order of classes"),
            "pool_seconds": _assumed(9e-7, "s a pair"),
            "pool_memory": _assumed(390, "bytes a pair"),
            "class_seconds": _assumed(1.4, f"s for a class of {CLASS_BASE:,}, a core"),
            "class_exponent": _assumed(1.25, "of the time of a class in its pairs"),
            "rank_speedup": _assumed(1.5, "of 2 workers over 1"),
            "merge_seconds": _assumed(1.6e-6, "s a pair"),
            "merge_memory": _assumed(620, "bytes a pair"),
            "random_seconds": _assumed(1.6e-6, "s a pair"),
            "random_memory": _assumed(490, "bytes a pair"),
            "clip_score_seconds": _assumed(1.2e-6, "s a pair"),
            "clip_score_memory": _assumed(490, "bytes a pair"),
            "metaclip_seconds": _assumed(2.5e-5, "s a pair"),
            "metaclip_memory": _assumed(1_750, "bytes a pair"),
            "images_seconds": _assumed(8e-6, "s a pair to load image embeddings"),
            "images_memory": _assumed(3_800, f"bytes a pair of width {BASE_WIDTH}"),
            "kmeans": _assumed(50e9, "FLOP/s a core"),
            "duplication": _assumed(30e9, "FLOP/s a core"),
            "subset": _assumed(60_000, "pairs/s a core to describe a subset"),
            "subset_memory": _assumed(380, "bytes a pair"),
        }
    )


# ---- what is stored


@dataclass(frozen=True)
class Stored:
    """A kind of table: bytes a pair before Lance packs them, and of how many pairs there are rows.

    Attributes:
        name: In words.
        row: Bytes of a pair.
        crawl: Bytes that the newest crawl adds.
        total: Bytes after all crawls.
    """

    name: str
    row: Quantity
    crawl: Quantity
    total: Quantity


def row_bytes(rates: Rates, width: int) -> dict[str, Quantity]:
    """Return the bytes of a row of each table, from its schema (clipcov_assets/tables.py).

    Text counts with its 4 bytes of offset. Lance packs text: hexadecimal uids take about 21 of their 36 bytes.
    """
    uid, embeddings = rates["uid_bytes"] + 4, 4 * width
    place, crawl = (9 + 4) + (9 + 4) + 8, 8 + 4
    ranking = uid + 8 + 4
    return {
        "raw pairs": uid + rates["caption_bytes"] + 4 + rates["image_bytes"] + 8 + place + 8 + 16,
        "embeddings": uid + 16 + embeddings + 8,
        "latent classes": uid + 4 + 4 + 8 + embeddings,
        "pool": uid + crawl + 4 + 8,
        "class rankings": uid + 4 + 8 + 8,
        "ranking": ranking,
        "rankings of all methods": METHODS * ranking + uid + 24,  # a partner and an entry
    }


def stored(size: PoolSize, rates: Rates, width: int) -> list[Stored]:
    """Return what lies in the store: what a pair has once, and what every crawl's pool has anew."""
    rows, crawls = row_bytes(rates, width), rates["crawls"]
    once, anew = size.pairs / crawls, size.pairs * (crawls + 1) / 2  # 1/c + 2/c + .. + c/c pools
    subset = rows["ranking"]
    found = [
        Stored(name, rows[name], once * rows[name], rows[name] * size.pairs)
        for name in ("raw pairs", "embeddings", "latent classes")
    ]
    found += [
        Stored(name, rows[name], rows[name] * size.pairs, anew * rows[name])
        for name in ("pool", "class rankings", "rankings of all methods")
    ]
    subsets = METHODS * sum(PAPER_FRACTIONS) + 1  # and the full one
    checkpoint = quantity(4 * TRAINED_PARAMETERS)
    return [
        *found,
        Stored("one subset, 10 %", subset, subset * size.pairs * 0.1, anew * subset * 0.1),
        Stored(f"all subsets, {METHODS} x {len(PAPER_FRACTIONS)} + 1", subset, subset * size.pairs * subsets,
               anew * subset * subsets),
        Stored("one checkpoint, RN50", Quantity(0), checkpoint, checkpoint * crawls),
    ]  # fmt: skip


def files(pairs: float) -> Quantity:
    """Return how many files the tables of raw pairs, embeddings and latent classes have."""
    return quantity(3 * math.ceil(pairs / FRAGMENT_ROWS))


# ---- what runs


WHERE = {
    "crawl": "Dagster's process, crawl by crawl",
    "Dagster": "Dagster's process",
    "driver": "one process: Dagster's, or the driver of the Ray job",
    "node": "one node, whose GPUs train one model",
    "GPUs": "workers with a GPU each, crawl by crawl; one process writes the table",
    "workers": "workers with a core each",
}


@dataclass(frozen=True)
class Step:
    """One step at one size.

    Attributes:
        name: In words.
        where: One of `WHERE`.
        seconds: On so many workers, of all crawls together.
        memory: Bytes of the largest process; of one crawl where it works on one.
        moved: Bytes between the store and the processes.
    """

    name: str
    where: str
    seconds: Callable[[int], Quantity]
    memory: Quantity
    moved: Quantity

    @property
    def divided(self) -> bool:
        """Whether workers help."""
        return self.where in ("workers", "GPUs")


def class_sizes(pairs: float, rates: Rates) -> np.ndarray:
    """Return (K,) pairs of each class: the largest share first, the others equal."""
    classes, share = round(rates["classes"].value), rates["largest_class"].value
    others = np.full(classes - 1, pairs * (1 - share) / max(classes - 1, 1))
    return np.concatenate([[pairs * share], others])


def rank_seconds(pairs: float, rates: Rates, width: int) -> np.ndarray:
    """Return (K,) seconds of one core for each class: reading it, and its greedy order."""
    sizes = class_sizes(pairs, rates)
    greedy = rates["class_seconds"].value * (sizes / CLASS_BASE) ** rates["class_exponent"].value * width / BASE_WIDTH
    reading = 4 * width * sizes / rates["lance_read"].value
    seconds: np.ndarray = greedy + reading
    return seconds


def efficiency(rates: Rates, speedup: str) -> Quantity:
    """Return how fast a worker is beside others, as a share of one alone: at most 1, whatever was measured."""
    share = rates[speedup] / 2
    return replace(share, value=min(share.value, 1.0))


def makespan(seconds: Iterable[float], workers: int) -> float:
    """Return when the last task ends if each worker that is free takes the next one."""
    free = [0.0] * workers
    for one in seconds:
        heapq.heappush(free, heapq.heappop(free) + one)
    return max(free)


def ranking(pairs: float, shards: int, workers: int, rates: Rates, width: int) -> Quantity:
    """Return the seconds of clipcov's class shards on so many workers of one core.

    A shard is a run of neighbouring classes, one task and one step of Dagster, which runs so many `at_once`. Time falls
    with workers by Amdahl's law, whose serial part is what 2 workers fell short of twice the rate, until the shard of
    the largest class bounds it.
    """
    names = ("class_seconds", "class_exponent", "lance_read", "classes", "largest_class")
    parts = [float(part.sum()) for part in np.array_split(rank_seconds(pairs, rates, width), shards)]
    whole = Quantity(sum(parts), frozenset(names))
    if workers == 1:
        return whole
    at_once = rates["at_once"]
    busy = max(1, min(workers, shards, int(at_once.value)))
    divided = largest(whole * amdahl(rates["rank_speedup"], busy), makespan(parts, busy))
    return replace(divided, uses=divided.uses | at_once.uses)


def amdahl(speedup: Quantity, workers: int) -> Quantity:
    """Return the time on so many workers as a share of that on one, from the speed-up of 2 workers, 1 to 2."""
    serial = min(max(2 / speedup.value - 1, 0.0), 1.0)
    return replace(speedup, value=serial + (1 - serial) / workers)


def part_pairs() -> int:
    """Return how many pairs semdedup's clusters are compared together."""
    from clipcov_assets.jobs.rank import PART_PAIRS

    return PART_PAIRS


def largest_part(pairs: float, rates: Rates) -> float:
    """Return the pairs of semdedup's largest part: as many whole clusters as fit into one, at least one."""
    return min(max(part_pairs(), 2 * rates["cluster_skew"].value * math.sqrt(pairs)), pairs)


def duplication(pairs: float, workers: int, rates: Rates, width: int) -> Quantity:
    """Return the seconds of the similarities inside sqrt(n) clusters, whose parts are divided among workers.

    A cluster's images lie anywhere in the tables, so they are read like those of the order of classes.
    """
    operations = width * pairs * math.sqrt(pairs) * rates["cluster_skew"]
    reading = pairs * width / BASE_WIDTH / rates["class_order"]
    busy = min(workers, math.ceil(pairs / part_pairs()))
    return (operations / rates["duplication"] + reading) / busy


def embedding(pairs: float, workers: int, rates: Rates, width: int) -> Quantity:
    """Return the seconds of embedding with so many GPUs: the model, or decoding beside it, then one table's write."""
    rows = row_bytes(rates, width)["embeddings"] * pairs
    return fed(rates) * pairs / workers + rows / rates["lance_write"]


def fed(rates: Rates) -> Quantity:
    """Return the seconds of a pair on one GPU: those of the model, or of the cores that decode for it.

    Cores that decode beside each other are as much slower than one alone as 2 cores were.
    """
    decoded = rates["decode"] * rates["cores_of_gpu"] * efficiency(rates, "decode_speedup")
    return largest(1 / rates["embed"], 1 / decoded)


def steps(size: PoolSize, rates: Rates, width: int) -> list[Step]:
    """Return every step from the delivery to the subsets; workers are GPUs for embedding, cores for rankings.

    Args:
        size: The pool.
        rates: Of the machines.
        width: d of the proxy.
    """
    n, rows = size.pairs, row_bytes(rates, width)
    crawl, wide = n / rates["crawls"], width / BASE_WIDTH
    uid, cores = rates["uid_bytes"] + 4, rates["cores"]
    moved = {name: row * n for name, row in rows.items()}

    def alone(name: str, seconds: Quantity, memory: Quantity, moves: Quantity, where: str = "Dagster") -> Step:
        return Step(name, where, lambda workers: seconds, memory, moves)

    def scored(name: str, reads: Quantity) -> Step:
        memory = rates[f"{name}_memory"] * n
        return alone(name, rates[f"{name}_seconds"] * n, memory, reads + moved["ranking"])

    largest_class = rates["largest_class"] * n
    images = 2 * width * n
    loaded = rates["images_memory"] * wide * n
    twice = largest(moved["raw pairs"] / rates["lance_write"], 2 * moved["raw pairs"] / rates["network"])
    return [
        alone(
            "ingest",
            n / rates["ingest"] / cores + twice,
            150 * crawl,  # uids twice, contents, a dictionary and flags: Census in jobs/ingest.py
            2 * moved["raw pairs"],
            "crawl",
        ),
        Step(
            "embeddings",
            "GPUs",
            lambda workers: embedding(n, workers, rates, width),
            28 * crawl,  # contents, places and items; the model and a batch beside
            moved["raw pairs"] + 2 * (4 * width * n) + moved["embeddings"],
        ),
        alone(
            "latent classes",
            wide * n / rates["class_order"],
            130 * crawl,  # uid, class, margin and place, sorted into a second copy: _labels
            (rows["embeddings"] + 2 * width) * n + moved["latent classes"],
            "crawl",
        ),
        alone("pool", rates["pool_seconds"] * n, rates["pool_memory"] * n, 2 * moved["pool"]),
        Step(
            "clipcov, class shards",
            "workers",
            lambda workers: ranking(n, size.shards, workers, rates, width),
            # The largest class with what greedy knows of each pair, and the picks of its shard.
            largest_class * (4 * width + 300) + 100 * n / size.shards,
            moved["latent classes"] + moved["class rankings"] + moved["pool"] + uid * n,
        ),
        alone(
            "clipcov, merge",
            rates["merge_seconds"] * n,
            rates["merge_memory"] * n,
            moved["class rankings"] + uid * n + moved["ranking"],
        ),
        alone(
            "semdedup, k-means",
            rates["images_seconds"] * n * wide + kmeans_operations(n, width) / rates["kmeans"] / cores,
            loaded,
            images + moved["pool"],
            "driver",
        ),
        Step(
            "semdedup, duplication",
            "workers",
            lambda workers: duplication(n, workers, rates, width),
            # A part's images, as read and as float32, and which pairs they are.
            quantity(largest_part(n, rates) * (8 * width + 100)),
            quantity(images) + 64 * n,
        ),
        scored("clip_score", moved["pool"]),
        alone(
            "c_rho, its partial model",
            5 * n / rates["train"] / rates["gpus_of_node"],
            150 * quantity(n),  # where each pair lies, its size and content, and uids: FoundPairs
            5 * moved["raw pairs"],
            "node",
        ),
        alone(
            "c_rho",
            n * fed(rates) + rates["clip_score_seconds"] * n,
            rates["clip_score_memory"] * n + 150 * n,
            moved["raw pairs"] + moved["ranking"],
        ),
        scored("metaclip", (uid + rates["caption_bytes"] + 4) * n),
        scored("random", moved["pool"]),
        alone(
            f"the {METHODS * len(PAPER_FRACTIONS) + 1} subsets, all together",
            (METHODS * len(PAPER_FRACTIONS) + 1)
            * n
            * largest(wide / rates["subset"] / cores, rows["latent classes"] / rates["network"]),
            rates["subset_memory"] * n,
            (METHODS * len(PAPER_FRACTIONS) + 1) * (moved["latent classes"] + moved["pool"]),
        ),
    ]


@dataclass(frozen=True)
class Training:
    """One training: its length in words, how often it sees a pair, and GPU hours."""

    budget: str
    fraction: float
    samples: float
    epochs: float
    hours: Quantity


def trainings(size: PoolSize, rates: Rates) -> list[Training]:
    """Return trainings on 10 % and 30 % of the pool with the two recipes, and as long as DataComp's of that pool."""
    epochs, samples = RECIPES["paper"].epochs or 0, RECIPES["comparable"].samples_seen or 0
    found = []
    for fraction in (0.1, 0.3):
        pairs = fraction * size.pairs
        for budget, length in (
            ("comparable", samples),
            ("paper", epochs * pairs),
            ("samples of the pool", size.pairs),
        ):
            found.append(Training(budget, fraction, length, length / pairs, length / rates["train"] / HOUR))
    return found


# ---- what breaks


@dataclass(frozen=True)
class Limit:
    """Something that a pool of more than so many pairs breaks, and what to do about it."""

    what: str
    pairs: Quantity
    remedy: str


SPLIT = "divide the deliveries among several homes, each a pool of its own, and select the same fraction in each"
REMEDIES = {
    "ingest": "more cores and a faster network for Dagster's machine; ingest several crawls at once, a machine each",
    "embeddings": "more GPUs, until the one process that writes the table is the bound; then smaller crawls",
    "latent classes": "smaller crawls: each is put in order alone",
    "pool": f"a machine with more memory for Dagster; {SPLIT}",
    "clipcov, class shards": "finer class names, so that the largest class is smaller; until then a node with memory "
    "for it, and class shards (`Scale.class_shards`) up to one a class",
    "clipcov, merge": f"a machine with more memory for Dagster; {SPLIT}",
    "semdedup, k-means": "leave semdedup out (`Scale.methods`), or a machine whose memory holds the image embeddings",
    "semdedup, duplication": f"more workers, or smaller pools: it grows with n^1.5; {SPLIT}",
    "clip_score": f"a machine with more memory for Dagster; {SPLIT}",
    "c_rho, its partial model": "leave c_rho out: five epochs of the whole pool cost more than all subsets together",
    "c_rho": "leave c_rho out: it embeds the whole pool again, in one process on one GPU",
    "metaclip": f"leave metaclip out, or more memory: all captions are in one process; {SPLIT}",
    "random": f"a machine with more memory for Dagster; {SPLIT}",
}
SUBSETS_REMEDY = "fewer methods and fractions: every subset is described by reading all embeddings of the pool"


def largest_pool(cost: Callable[[float], Quantity], limit: Number, *, most: float = 1e13) -> Quantity:
    """Return how many pairs cost no more than a limit, for a cost that grows with pairs; `most` if all do."""
    low, high, bound = 1.0, most, quantity(limit)
    for _ in range(18):  # to a ten-thousandth
        middle = math.sqrt(low * high)
        low, high = (middle, high) if cost(middle).value <= bound.value else (low, middle)
    return Quantity(low, cost(low).uses | bound.uses)


def limits(size: PoolSize, rates: Rates, width: int, workers: int) -> list[Limit]:
    """Return what limits a pool, the smallest first: memory of a process, a day, and counts that do not fit."""
    found = [Limit("places of pairs in 32 bits (pool_tables.places_of)", quantity(2.0**31), SPLIT)]

    @cache  # searches begin alike
    def at(pairs: float) -> list[Step]:
        return steps(replace(size, pairs=pairs), rates, width)

    def needed(pairs: float, place: int) -> Quantity:
        return at(pairs)[place].memory

    def taken(pairs: float, place: int) -> Quantity:
        return at(pairs)[place].seconds(workers)

    for place, one in enumerate(at(size.pairs)):
        remedy = REMEDIES.get(one.name, SUBSETS_REMEDY)
        memory = rates["worker_memory"] if one.where == "workers" else rates["memory"]
        whose = "a worker" if one.where == "workers" else "one process"
        found += [
            Limit(f"memory of {whose}: {one.name}", largest_pool(partial(needed, place=place), memory), remedy),
            Limit(f"more than a day: {one.name}", largest_pool(partial(taken, place=place), DAY), remedy),
        ]
    return sorted(found, key=lambda limit: limit.pairs.value)


# ---- what is printed


@dataclass(frozen=True)
class Table:
    """A table of the report; the last column of every row says where its numbers come from."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    note: str = ""


def duration(seconds: float) -> str:
    """Return seconds in the unit that a person would use."""
    for unit, length in (("y", 365 * DAY), ("d", DAY), ("h", HOUR), ("min", 60.0)):
        if seconds >= length:
            return f"{three_digits(seconds / length)} {unit}"
    return f"{three_digits(seconds)} s" if seconds >= 1 else "< 1 s"


def size_of(count: float) -> str:
    """Return bytes with a decimal prefix."""
    return f"{three_digits(count / 1e15)} PB" if count >= 1e15 else amount(count, "B") or "0 B"


def counted(number: float) -> str:
    """Return a count as people say it."""
    for power, word in ((9, "billion"), (6, "million")):
        if number >= 10**power:
            return f"{three_digits(number / 10**power)} {word}"
    return f"{number:,.0f}"


Planned = Sequence[tuple[PoolSize, Rates]]


def across(planned: Planned) -> tuple[str, ...]:
    """Return the heads of columns, one a size."""
    return tuple(size.name for size, _ in planned)


def storage_table(planned: Planned, width: int) -> Table:
    """Return what lies in the store: what the newest crawl brings, and all that there is after it."""
    header = ("table", "bytes a pair", *across(planned), "origin")
    table = Table("What is stored: what the newest crawl adds / all after it", header)
    for rows in zip(*(stored(size, rates, width) for size, rates in planned), strict=True):
        first, rates = rows[0], planned[0][1]
        cells = (f"{size_of(one.crawl.value)} / {size_of(one.total.value)}" for one in rows)
        row = f"{first.row.value:,.0f}" if first.row.value else ""
        table.rows.append((first.name, row, *cells, rates.origin(largest(first.crawl, first.total))))
    cells = (counted(files(size.pairs).value) for size, _ in planned)
    table.rows.append(("files of raw pairs, embeddings and latent classes", "", *cells, Origin.GIVEN))
    return table


def hours_table(planned: Planned) -> Table:
    """Return what embedding costs, whatever it is divided among."""
    table = Table("Hours of embedding", ("work", *across(planned), "origin"))
    rates = planned[0][1]
    for name, rate in (
        ("GPU hours of the model", "embed"),
        ("core hours of decoding beside it", "decode"),
        ("core hours without a GPU, ViT-B-32", "embed_cpu"),
    ):
        spent = [size.pairs / rates[rate] / HOUR for size, _ in planned]
        table.rows.append((name, *(f"{one.value:,.1f}" for one in spent), rates.origin(spent[0])))
    needed = rates["embed"] / rates["decode"] / efficiency(rates, "decode_speedup")
    cells = (f"{needed.value:,.0f}" for _ in planned)
    table.rows.append(("cores that keep one GPU busy", *cells, rates.origin(needed)))
    return table


def trainings_table(planned: Planned) -> Table:
    """Return samples, passes over the subset and GPU hours of one training."""
    table = Table("One training of RN50: samples, epochs, GPU hours", ("subset", "budget", *across(planned), "origin"))
    for row in zip(*(trainings(size, rates) for size, rates in planned), strict=True):
        cells = (f"{counted(one.samples)}, {three_digits(one.epochs)}, {one.hours.value:,.1f} h" for one in row)
        table.rows.append((f"{row[0].fraction:.0%}", row[0].budget, *cells, planned[0][1].origin(row[0].hours)))
    return table


def steps_table(size: PoolSize, rates: Rates, width: int, workers: Sequence[int], first: Limit) -> Table:
    """Return every step of one size, and the first limit that it meets."""
    header = ("step", "where", "memory", *(f"{count} w" for count in workers), "moved", "origin")
    breaks = "the first to break is" if first.pairs.value < size.pairs else "nothing breaks; the next limit is"
    note = f"{size.why}; {breaks}: {in_words(first, rates)}"
    table = Table(f"{size.name}, {size.pairs:,.0f} pairs: what runs", header, note=note)
    for step in steps(size, rates, width):
        seconds = [step.seconds(count) for count in workers]
        shown = [duration(one.value) if step.divided or not place else "" for place, one in enumerate(seconds)]
        every = largest(step.memory, step.moved, *seconds)
        cells = (step.name, step.where, size_of(step.memory.value), *shown, size_of(step.moved.value))
        table.rows.append((*cells, rates.origin(every)))
    return table


def in_words(limit: Limit, rates: Rates) -> str:
    """Return a limit as a sentence with its origin."""
    return f"{limit.what}, at {counted(limit.pairs.value)} pairs ({rates.origin(limit.pairs)})"


def limits_table(planned: Planned, found: Sequence[Limit]) -> Table:
    """Return all limits up to the largest size, and which size is the first to meet each."""
    table = Table("What breaks, the first first", ("at pairs", "what", "met by", "remedy", "origin"))
    for limit in found:
        met = next((size.name for size, _ in planned if size.pairs > limit.pairs.value), "")
        if met:
            cells = (counted(limit.pairs.value), limit.what, met, limit.remedy)
            table.rows.append((*cells, planned[-1][1].origin(limit.pairs)))
    return table


def rates_table(rates: Rates) -> Table:
    """Return all rates with their origins and sources."""
    table = Table("Rates", ("rate", "value", "unit", "source", "origin"))
    for name, rate in rates.known.items():
        value = f"{rate.value:.3g}" if rate.value < 1e5 else f"{rate.value:.3e}"
        table.rows.append((name, value, rate.unit, rate.source, rate.origin))
    return table


def render(table: Table, *, markdown: bool) -> str:
    """Return a table for the terminal, or as Markdown."""
    lines = [table.header, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    note = f"{table.note[:1].upper()}{table.note[1:]}.\n" if table.note else ""
    if not markdown:
        body = "\n".join("  ".join(row).rstrip() for row in rows)
        return f"{table.title}\n{note}\n{body}\n"
    rule = ["-" * width for width in widths]
    body = "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rule, *rows[1:]))
    return f"### {table.title}\n\n{note and note + chr(10)}{body}\n"


# ---- the command


def main(arguments: Sequence[str]) -> None:
    """Print the plan."""
    options = parser().parse_args(arguments)
    proxy = PROXIES[options.proxy]
    rates = default_rates(proxy)
    about = f"nothing was measured; {description()}"
    if options.measure:
        about = f"{datetime.now(UTC).date().isoformat()}, {description()}"
        start = time.perf_counter()
        rates = rates.replaced(measured_rates(tell), Origin.MEASURED, "this run")
        about += f", {time.perf_counter() - start:.0f} s"
    rates = rates.replaced(dict(options.rate), Origin.GIVEN, "--rate")
    width, most = proxy.width, max(options.workers)
    planned = [(size, sized(rates, size)) for size in SIZES]
    tables = [rates_table(rates), storage_table(planned, width), hours_table(planned), trainings_table(planned)]
    found = [limits(size, own, width, most) for size, own in planned]
    tables += [
        steps_table(size, own, width, options.workers, first)
        for (size, own), (first, *_) in zip(planned, found, strict=True)
    ]
    tables += [limits_table(planned, found[-1])]
    legend = "\n".join(f"- {name}: {words}" for name, words in WHERE.items())
    report = "\n".join(render(table, markdown=options.write) for table in tables)
    report = f"Measured: {about}. Proxy: {options.proxy}.\n\n{report}\nWhere:\n\n{legend}\n"
    if options.write:
        put_between(PAGE, BEGIN, END, report)
        tell(f"{PAGE.name} is rewritten")
    else:
        sys.stdout.write(report)


def sized(rates: Rates, size: PoolSize) -> Rates:
    """Return the rates with the images of a pool, where the user gives none."""
    known = rates.known["image_bytes"]
    value = size.image_bytes if known.origin is Origin.ASSUMED else known.value
    return Rates({**rates.known, "image_bytes": replace(known, value=value)})


def parser() -> argparse.ArgumentParser:
    """Return what the command line understands."""
    command = argparse.ArgumentParser(
        "python -m benchmarks.plan",
        description="Plan storage, hours and limits of pools from 3 million to 12.8 billion pairs.",
    )
    command.add_argument("--measure", action="store_true", help="measure this machine first, in a few minutes")
    command.add_argument(
        "--rate", action="append", default=[], type=given, metavar="NAME=VALUE", help="a rate you know"
    )
    command.add_argument("--workers", type=worker_counts, default=WORKERS, help="such as 1,8,64,512")
    command.add_argument("--proxy", choices=PROXIES, default="ViT-B-32", help="the model that embeds")
    command.add_argument("--write", action="store_true", help="rewrite the tables of docs/scaling.md, print none")
    return command


def given(text: str) -> tuple[str, float]:
    """Return name and value of a rate."""
    name, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if not name or not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a name and a positive number, such as embed=3000")
    return name, value


def worker_counts(text: str) -> tuple[int, ...]:
    """Return rising numbers of workers."""
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers of workers, such as 1,8,64")
    return tuple(sorted({*map(int, parts)}))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
