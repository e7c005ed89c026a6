"""What is shown of a subset, read from the tables: `python -m clipcov_assets.galleries` makes the page of any subset.

However large the pool, a page shows a bounded number of latent classes and pairs, and only the images that are shown
are read.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipcov_assets.export.gallery import Thumbnail, thumbnail
from clipcov_assets.export.gallery_page import (
    ClassSection,
    Cut,
    Fault,
    Gallery,
    Quarantine,
    Shown,
    Subset,
    gallery_page,
)
from clipcov_assets.methods import KNOWN, RANKED
from clipcov_assets.partitions import check_crawl_name
from clipcov_assets.pool_tables import class_names, places_of
from clipcov_assets.subset_pairs import pairs_of_pool
from clipcov_assets.tables import PLACE, QUARANTINE, RANKING
from resources.lance_store import LanceStore

SHOWN_CLASSES = 20  # of one subset; half as many of two, which takes as many images
SHOWN_PAIRS = 6  # first picks of a class, and as many of its last ones and of the rejected
SHOWN_FAULTS = 4  # of each reason
SIDE = 96  # pixels
DECODERS = 4  # threads; each may hold an image of 256 MiB
SUBSET = "_subset"

Look = tuple[str, Thumbnail]  # caption, and image if any
Key = tuple[int, str]  # number and name of a latent class: another crawl may have other classes


def gallery_name(asset: str, partition: str, *, beside: tuple[str, str] | None = None) -> str:
    """Name of a gallery's page on the shelf: `galleries/crawl-2/f20/clipcov_subset.html`.

    Args:
        asset: Such as `clipcov_subset`.
        partition: Such as `crawl-2|f20`.
        beside: Asset and partition of the other subset.

    Raises:
        ValueError: There is no such method, or the partition is no crawl and fraction.
    """
    _, crawl, fraction = _parts(asset, partition)
    other = f"_beside_{beside[0]}-{'-'.join(_parts(*beside)[1:])}" if beside else ""
    return f"galleries/{crawl}/{fraction}/{asset}{other}.html"


def gallery_of(store: LanceStore, asset: str, partition: str, *, beside: tuple[str, str] | None = None) -> Gallery:
    """Read what is shown of a subset, or of two side by side.

    Args:
        store: Holds the subsets, their rankings, pools and crawls.
        asset: Such as `clipcov_subset`.
        partition: Such as `crawl-2|f20`.
        beside: Asset and partition of another subset: of another method, fraction or crawl.

    Raises:
        KeyError: A table is not there; the message says what to materialize.
        ValueError: There is no such method, the partition is no crawl and fraction, or a table does not hold a pair
            that another one names.
    """
    sides = [_Side(store, *one) for one in [(asset, partition), beside] if one is not None]
    if len(sides) > 1:
        for one, other in (sides, sides[::-1]):
            one.compare(other)
    keys = _largest_classes(sides)
    shown_keys = keys[: SHOWN_CLASSES // len(sides)]
    divided = [[side.divide(key) for key in [None, *shown_keys]] for side in sides]
    uids: dict[str, set[str]] = {side.subset.crawl: set() for side in sides}
    for side, parts in zip(sides, divided, strict=True):
        uids[side.subset.crawl].update(side.uids(parts))
    looks = {crawl: _looks(store, crawl, wanted) for crawl, wanted in uids.items()}
    cuts = [side.cuts(parts, looks[side.subset.crawl]) for side, parts in zip(sides, divided, strict=True)]
    names = ["The whole pool", *(name for _, name in shown_keys)]
    whole, *classes = (ClassSection(name, tuple(of_name)) for name, *of_name in zip(names, *cuts, strict=True))
    return Gallery(
        subsets=tuple(side.subset for side in sides),
        whole=whole,
        classes=tuple(classes),
        all_classes=len(keys),
        quarantines=tuple(_quarantine(store, crawl) for crawl in uids),
    )


@dataclass(frozen=True, eq=False)
class _Divided:
    """A latent class, or the whole pool, divided by a subset.

    Attributes:
        pairs: Of the class in the pool.
        picks: Rows of a side, in the order of the ranks.
        rejected: Likewise; none where the subset has no ranking.
    """

    pairs: int
    picks: np.ndarray
    rejected: np.ndarray

    @property
    def shown(self) -> list[np.ndarray]:
        """First picks, last picks and best of the rejected."""
        return [self.picks[:SHOWN_PAIRS], self.picks[SHOWN_PAIRS:][-SHOWN_PAIRS:], self.rejected[:SHOWN_PAIRS]]


class _Side:
    """A subset and what its ranking left out, in the order of the ranks: the picks come first.

    Attributes:
        subset: Which one it is.
        class_sizes: Pairs of every latent class of the pool that has any.
    """

    def __init__(self, store: LanceStore, asset: str, partition: str) -> None:
        """Read the latent class of every pair, and the order of those that are ranked; no caption and no image.

        Raises:
            KeyError: The subset, its ranking or its pool is not materialized.
            ValueError: There is no such subset, or a pair is not in the pool.
        """
        method, crawl, fraction = _parts(asset, partition)
        self.subset = Subset(method, KNOWN[method].summary, crawl, float(fraction[1:].replace("p", ".")) / 100)
        picks = store.read(asset, partition, RANKING.names).sort_by("rank")
        self._picked = len(picks)
        self._ranking = _ranking(store, method, crawl)
        self._rows = picks if self._ranking is None else pa.concat_tables([picks, _without(self._ranking, picks)])
        pool = store.read("pool", crawl, ["uid", "latent_class"])
        places = places_of(self._rows["uid"], pool["uid"], f"the pool of {crawl}")
        self._latent_class = pool["latent_class"].take(places).to_numpy()
        names = class_names(store, crawl)
        classes, counts = (one.tolist() for one in np.unique(pool["latent_class"].to_numpy(), return_counts=True))
        # Counted in the pool: a combination has no ranking that holds all of it.
        self.class_sizes: dict[Key, int] = {(k, names[k]): count for k, count in zip(classes, counts, strict=True)}
        self._held_beside: np.ndarray | None = None

    def compare(self, other: "_Side") -> None:
        """Find the pairs that another subset holds, too."""
        held = other._rows["uid"].slice(0, other._picked).combine_chunks()
        self._held_beside = pc.is_in(self._rows["uid"], value_set=held).to_numpy()

    def divide(self, key: Key | None) -> _Divided:
        """Divide a latent class into picks and rejected, or the whole pool where the key is None."""
        rows, pairs = np.arange(len(self._rows)), sum(self.class_sizes.values())
        if key is not None:
            pairs = self.class_sizes.get(key, 0)
            rows = np.flatnonzero(self._latent_class == key[0]) if pairs else rows[:0]
        return _Divided(pairs, *np.split(rows, [np.searchsorted(rows, self._picked)]))

    def uids(self, parts: Iterable[_Divided]) -> list[str]:
        """Uids of what is shown of some classes."""
        uids: list[str] = self._rows["uid"].take(pa.array(_rows_shown(parts))).to_pylist()
        return uids

    def cuts(self, parts: Sequence[_Divided], looks: Mapping[str, Look]) -> list[Cut]:
        """What is shown of some classes, with the looks of their pairs."""
        shown = self._shown(_rows_shown(parts), looks)
        return [self._cut(one, shown) for one in parts]

    def _cut(self, part: _Divided, shown: Mapping[int, Shown]) -> Cut:
        first, last, rejected = (tuple(shown[row] for row in rows.tolist()) for rows in part.shown)
        return Cut(
            pairs=part.pairs,
            picked=len(part.picks),
            first=first,
            last=last,
            rejected=None if self._ranking is None else rejected,
            shared=None if self._held_beside is None else int(self._held_beside[part.picks].sum()),
        )

    def _shown(self, places: np.ndarray, looks: Mapping[str, Look]) -> dict[int, Shown]:
        rows = self._rows.take(pa.array(places))
        notes = _notes(self._ranking, rows["uid"])
        held = np.zeros(len(places), bool) if self._held_beside is None else self._held_beside[places]
        return {
            place: Shown(
                row["uid"],
                *looks[row["uid"]],
                rank=row["rank"],
                gain=None if self._ranking is None else row["gain"],
                note=note,
                held_beside=is_held,
            )
            for place, row, note, is_held in zip(places.tolist(), rows.to_pylist(), notes, held.tolist(), strict=True)
        }


def _rows_shown(parts: Iterable[_Divided]) -> np.ndarray:
    """Rows of a side that are shown, each once."""
    rows: np.ndarray = np.unique(np.concatenate([rows for one in parts for rows in one.shown]))
    return rows


def _parts(asset: str, partition: str) -> tuple[str, str, str]:
    """Method, crawl and fraction of a subset."""
    method = asset.removesuffix(SUBSET)
    if method == asset or method not in KNOWN:
        raise ValueError(f"no subset is called {asset!r}: choose from {', '.join(name + SUBSET for name in KNOWN)}")
    crawl, _, fraction = partition.partition("|")
    if re.fullmatch(r"f[0-9]+(p[0-9]+)?", fraction) is None:
        raise ValueError(f"partition {partition!r} is no crawl and fraction: write it as 'crawl-2|f20'")
    return method, check_crawl_name(crawl), fraction


def _ranking(store: LanceStore, method: str, crawl: str) -> pa.Table | None:
    """A method's order of the pool with the reasons of each pick; the full pool and combinations have none."""
    if method == "full" or method not in RANKED:
        return None
    return store.read(f"{method}_ranking", crawl, [*RANKING.names, *RANKED[method].reasons]).sort_by("rank")


def _without(ranking: pa.Table, picks: pa.Table) -> pa.Table:
    picked = pc.is_in(ranking["uid"], value_set=picks["uid"].combine_chunks())
    return ranking.select(RANKING.names).filter(pc.invert(picked))


def _notes(ranking: pa.Table | None, uid: pa.ChunkedArray) -> list[str]:
    """What the method knows of each of some picks."""
    if ranking is None or len(ranking.column_names) == len(RANKING):
        return [""] * len(uid)
    rows = ranking.select(ranking.column_names[len(RANKING) :]).take(places_of(uid, ranking["uid"], "the ranking"))
    return ["; ".join(f"{reason}: {value}" for reason, value in row.items() if value) for row in rows.to_pylist()]


def _looks(store: LanceStore, crawl: str, uids: Iterable[str]) -> dict[str, Look]:
    """Caption and thumbnail of some pairs of a pool."""
    found = pairs_of_pool(store, crawl, pa.chunked_array([pa.array(sorted(uids), pa.string())]))
    looks: dict[str, Look] = {}
    with ThreadPoolExecutor(DECODERS) as decoders:
        for run in found.stream(found.in_order_of_delivery(), ["uid", "caption", "image"]):
            small = decoders.map(partial(thumbnail, side=SIDE), run["image"].to_pylist())
            looks.update(zip(run["uid"].to_pylist(), zip(run["caption"].to_pylist(), small, strict=True), strict=True))
    return looks


def _largest_classes(sides: Iterable[_Side]) -> list[Key]:
    sizes: Counter[Key] = Counter()
    for side in sides:
        sizes.update(side.class_sizes)
    return sorted(sizes, key=lambda key: (-sizes[key], key))


def _quarantine(store: LanceStore, crawl: str) -> Quarantine:
    reason = store.read("quarantine", crawl, ["reason"])["reason"]
    counts = {one["values"]: one["counts"] for one in reason.value_counts().to_pylist()}
    reasons = dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))
    some = [np.flatnonzero(pc.equal(reason, one).to_numpy())[:SHOWN_FAULTS] for one in reasons]
    rows = store.rows("quarantine", crawl).take(np.concatenate([np.empty(0, np.int64), *some]), QUARANTINE.names)
    return Quarantine(crawl, reasons, tuple(map(_fault, rows.to_pylist())))


def _fault(row: Mapping[str, object]) -> Fault:
    place = ", ".join(f"{name} {row[name]}" for name in PLACE if row[name] is not None)
    return Fault(place, str(row["uid"] or ""), str(row["reason"]), str(row["detail"] or ""))


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    from clipcov_assets.definitions import resources  # they import this module

    options = parser().parse_args(arguments)
    beside = tuple(options.beside) if options.beside else None
    world = resources()
    try:
        name = gallery_name(options.subset, options.partition, beside=beside)
        page = gallery_page(gallery_of(world["store"], options.subset, options.partition, beside=beside)).encode()
        if options.to:
            Path(options.to).write_bytes(page)
            print(options.to)
        else:
            print(world["shelf"].write(name, page))
            print(world["shelf"].address(name))
    except (ValueError, KeyError, OSError) as error:
        print(f"error: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """Return what the command line understands."""
    command = argparse.ArgumentParser(
        "python -m clipcov_assets.galleries", description="Show what a subset picked and what it left out, as a page."
    )
    command.add_argument("subset", help="such as clipcov_subset")
    command.add_argument("partition", help='crawl and fraction, such as "crawl-2|f20"')
    command.add_argument(
        "--beside",
        nargs=2,
        metavar=("SUBSET", "PARTITION"),
        help="another subset to show side by side: of another method, fraction or crawl",
    )
    command.add_argument("--to", metavar="FILE", help="where the page goes; beside the reports by default")
    return command


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
