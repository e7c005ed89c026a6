"""How a pool is kept in tables, and read back: class by class for what grows with the pool, else column by column.

The pool's own table names the pairs; what belongs to a pair stays in the tables of the crawl that brought it, and
is read at the Lance versions that the pool recorded. Both the pool's table and a crawl's `latent_classes` are in the
order of latent class and uid, so that a class is a run of neighbouring rows, found by the counts of the classes.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipcov_assets.core import Pool
from clipcov_assets.core.class_pairs import ClassPairs
from clipcov_assets.core.covariance import cross_products
from clipcov_assets.core.pool import check_unit_rows
from clipcov_assets.core.statistics import ClassStatistics, sums_by_class
from clipcov_assets.tables import EMBEDDINGS, cross_products_schema, statistics_schema
from resources.lance_store import LanceStore, StoredRows

CLASS_EMBEDDINGS = "class_embeddings"
# Sums of one crawl, and of the pool as of a crawl.
CRAWL_STATISTICS, POOL_STATISTICS = "class_statistics", "pool_statistics"
CRAWL_PRODUCTS, POOL_PRODUCTS = "cross_products", "pool_cross_products"
CRAWLS, SUMS = "crawls", "sums"
ROWS_AT_ONCE = 16_384
ROWS_TAKEN = 65_536  # a random read is cheaper for many rows at once
READERS = 8  # threads that open or search the tables of many crawls


@dataclass(frozen=True)
class PooledCrawl:
    """What one crawl contributes to a pool, and what of it went in.

    Attributes:
        crawl: Its name.
        pairs: That it has.
        new_pairs: That no older crawl of the pool has.
        versions: Lance version of each of its tables that are read through the pool, by name.
        data_versions: Dagster's data version of each asset that went in, by name; none in pools of an earlier version
            of this project.
    """

    crawl: str
    pairs: int
    new_pairs: int
    versions: Mapping[str, int]
    data_versions: Mapping[str, str] = field(default_factory=dict)


def pooled_crawls(store: LanceStore, crawl: str, *, version: int | None = None) -> list[PooledCrawl]:
    """The crawls that the pool as of `crawl` holds, oldest first; of its table now, or as it was at a version.

    Dagster keeps the inputs of a pool's own crawl; the others, which grow with every crawl, stand only here.
    """
    return [PooledCrawl(**one) for one in json.loads(store.metadata("pool", crawl, version=version)[CRAWLS])]


def pooled_crawls_metadata(crawls: Iterable[PooledCrawl], sums: Mapping[str, int] | None = None) -> dict[str, str]:
    """The same, as the metadata of the pool's table, with the Lance versions of the tables of its sums."""
    return {CRAWLS: json.dumps([asdict(one) for one in crawls]), SUMS: json.dumps(dict(sums or {}))}


def versions_of_sums(store: LanceStore, crawl: str, version: int | None = None) -> dict[str, int]:
    """Lance versions of the sums that belong to the pool as of `crawl`; none where they were not recorded."""
    recorded: dict[str, int] = json.loads(store.metadata("pool", crawl, version=version).get(SUMS, "{}"))
    return recorded


class PooledClasses:
    """The latent classes of the pool as of a crawl, read a run at a time; may be used from several threads.

    Attributes:
        statistics: Counts and sums of the pool's classes.
        class_embeddings: (K, d) unit rows.
    """

    def __init__(self, store: LanceStore, crawl: str) -> None:
        """Open the pool's tables; no pair is read yet, and the tables of a crawl are opened once a class needs them."""
        self.statistics = load_statistics(store, POOL_STATISTICS, crawl)
        self.class_embeddings = load_class_embeddings(store, crawl)
        self._pool = store.rows("pool", crawl)
        self._starts = starts(self.statistics.counts, self._pool)
        self._open = partial(_CrawlClasses, store)
        self._pooled = {one.crawl: one for one in pooled_crawls(store, crawl)}
        self._opened: dict[str, _CrawlClasses] = {}
        self._opening = Lock()

    def runs(self, latent_classes: Iterable[int] | None = None) -> list[list[int]]:
        """Those of the classes that have pairs, small neighbours together: their rows are read in one go."""
        wanted = range(len(self.statistics.counts)) if latent_classes is None else latent_classes
        runs: list[list[int]] = []
        for k in wanted:
            if not self.statistics.counts[k]:
                continue
            neighbour = runs and self._starts[k] == self._end(runs[-1][-1])
            if neighbour and self._end(k) <= self._starts[runs[-1][0]] + ROWS_AT_ONCE:
                runs[-1].append(k)
            else:
                runs.append([k])
        return runs

    def load(self, run: Sequence[int]) -> Iterator[ClassPairs]:
        """Read all pairs of neighbouring classes; a pair's uid is its row of the pool's table, which ascends likewise.

        Raises:
            ValueError: A pair is not in its crawl's table, or an embedding is not finite or not of unit length; the
                message names the crawl and the uid.
        """
        start, end = int(self._starts[run[0]]), self._end(run[-1])
        wanted = self._pool.slice(start, end - start, ["uid", "crawl"])
        pairs = np.empty((end - start, 2 * self.class_embeddings.shape[1]), np.float16)
        for one in self._crawls(pc.unique(wanted["crawl"]).to_pylist()):
            one.fill(pairs, run, wanted)
        for k in run:
            rows = np.arange(self._starts[k], self._end(k))
            yield ClassPairs(k, rows, pairs[rows[0] - start : rows[-1] - start + 1])

    def _crawls(self, names: Sequence[str]) -> list["_CrawlClasses"]:
        """Some crawls, each of which is opened once, whichever thread asks for it first."""
        with self._opening, ThreadPoolExecutor(READERS) as readers:
            missing = [name for name in names if name not in self._opened]
            opened = readers.map(self._open, [self._pooled[name] for name in missing])
            self._opened.update(zip(missing, opened, strict=True))
        return [self._opened[name] for name in names]

    def _end(self, latent_class: int) -> int:
        return int(self._starts[latent_class] + self.statistics.counts[latent_class])


class _CrawlClasses:
    """The latent classes of one crawl, as a pool recorded them."""

    def __init__(self, store: LanceStore, pooled: PooledCrawl) -> None:
        self._crawl = pooled.crawl
        self._rows = store.rows("latent_classes", pooled.crawl, version=pooled.versions["latent_classes"])
        version = pooled.versions[CRAWL_STATISTICS]
        classes = store.read(CRAWL_STATISTICS, pooled.crawl, ["latent_class", "count"], version=version)
        self._counts = classes.sort_by("latent_class")["count"].to_numpy()
        self._starts = starts(self._counts, self._rows)

    def fill(self, pairs: np.ndarray, run: Sequence[int], wanted: pa.Table) -> None:
        """Read this crawl's part of some classes of a pool, piece by piece, so that only the pairs are held.

        Args:
            pairs: (m, 2d) float16, where the embeddings go.
            run: Neighbouring classes; the pool has pairs of this crawl in them.
            wanted: Columns uid and crawl of these classes, m rows.
        """
        places = np.flatnonzero(pc.equal(wanted["crawl"], self._crawl).to_numpy())
        uid = wanted["uid"].take(pa.array(places))
        start, end = int(self._starts[run[0]]), int(self._starts[run[-1]] + self._counts[run[-1]])
        stored = self._rows.slice(start, end - start, ["uid"])["uid"]
        at = np.full(end - start, -1)  # the place of each of the crawl's rows in `wanted`, -1 if an older crawl has it
        at[places_of(uid, stored, f"latent_classes of {self._crawl}").to_numpy()] = places
        halves = np.split(pairs, 2, axis=1)
        for first in range(0, end - start, ROWS_AT_ONCE):
            some = at[first : first + ROWS_AT_ONCE]
            piece = self._rows.slice(start + first, len(some), EMBEDDINGS)
            for half, column in zip(halves, EMBEDDINGS, strict=True):
                half[some[some >= 0]] = self._unit_rows(piece[column], column, stored.slice(first))[some >= 0]

    def _unit_rows(self, embeddings: pa.ChunkedArray, column: str, uid: pa.ChunkedArray) -> np.ndarray:
        rows = row_matrix(embeddings)
        fault = check_unit_rows(rows)
        if fault is not None:
            row, words = fault
            raise ValueError(f"{column} of uid {uid[row].as_py()} in latent_classes of {self._crawl} {words}")
        return rows


def starts(counts: np.ndarray, rows: StoredRows) -> np.ndarray:
    """Place of each class's first row in a table that is in the order of latent classes.

    Raises:
        ValueError: The counts are not those of the table.
    """
    ends: np.ndarray = np.cumsum(counts)
    if ends[-1] != len(rows):
        raise ValueError(f"{rows.name} has {len(rows)} rows and its statistics {ends[-1]}: materialize it again")
    first: np.ndarray = ends - counts
    return first


def places_of(wanted: pa.ChunkedArray, uid: pa.ChunkedArray, where: str) -> pa.Int32Array:
    """Place of each wanted uid among `uid`.

    Raises:
        ValueError: One is not there; the message names it and `where` it should be.
    """
    places = pc.index_in(wanted, value_set=uid)
    if places.null_count:
        lost = wanted.filter(pc.is_null(places))[0].as_py()
        raise ValueError(f"pair {lost} of the pool is not in {where}: materialize it again")
    return places.combine_chunks()


def load_pool(store: LanceStore, crawl: str, columns: Iterable[str] = ()) -> Pool:
    """Read the pool as of a crawl into memory, in the order of its table.

    Args:
        store: The tables.
        crawl: The pool's partition.
        columns: Columns of the core's `Pool` to read besides uid: any of clip_score, image_embeddings,
            text_embeddings, latent_class, class_embeddings and captions.
    """
    rows = store.read("pool", crawl, ["uid", "crawl", "latent_class", "clip_score"])
    crawls = pooled_crawls(store, crawl)
    found: dict[str, Any] = {}
    for column in columns:
        if column == "class_embeddings":
            found[column] = load_class_embeddings(store, crawl)
        elif column == "captions":
            found[column] = _column(store, crawls, "raw_pairs", "caption", rows).to_pylist()
        elif column in rows.column_names:
            found[column] = rows[column].to_numpy()
        else:
            found[column] = row_matrix(_column(store, crawls, "latent_classes", column.removesuffix("s"), rows))
    return Pool(uid=np.array(rows["uid"].to_pylist()), **found)


class PooledRows:
    """Where the pairs of a pool lie in the tables of their crawls, to read some of them at a time."""

    def __init__(self, store: LanceStore, crawl: str, asset: str) -> None:
        """Open the tables of an asset at the versions that the pool as of a crawl recorded; no row is read yet."""
        self._store, self._crawl, self._asset = store, crawl, asset
        self._crawls = pooled_crawls(store, crawl)
        self._opened = [store.rows(asset, one.crawl, version=one.versions[asset]) for one in self._crawls]

    @cached_property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Number of each pair's table (n,) int32 and its row there (n,) int64, in the order of the pool's table."""
        pool = self._store.read("pool", self._crawl, ["uid", "crawl"])
        table, row = np.zeros(len(pool), np.int32), np.zeros(len(pool), np.int64)
        for number, (one, opened) in enumerate(zip(self._crawls, self._opened, strict=True)):
            mine = np.flatnonzero(pc.equal(pool["crawl"], one.crawl).to_numpy())
            stored = opened.slice(0, len(opened), ["uid"])["uid"]
            where = f"{self._asset} of {one.crawl}"
            table[mine], row[mine] = number, places_of(pool["uid"].take(pa.array(mine)), stored, where).to_numpy()
        return table, row

    def take(self, table: np.ndarray, row: np.ndarray, column: str) -> np.ndarray:
        """Read (m, d) embeddings of some pairs, each of the table with that number, in the order given."""
        found: list[np.ndarray] = []
        places = [np.flatnonzero(table == number) for number in range(len(self._opened))]
        for opened, mine in zip(self._opened, places, strict=True):
            if mine.size:
                found.append(row_matrix(opened.take(row[mine], [column])[column]))
        embeddings: np.ndarray = np.concatenate(found)[np.argsort(np.concatenate(places))]
        return embeddings


def _column(
    store: LanceStore, crawls: Iterable[PooledCrawl], asset: str, column: str, rows: pa.Table
) -> pa.ChunkedArray:
    """A column of the crawls' tables for all rows of a pool, in their order, by reading it whole."""
    values, places = [], np.empty(len(rows), np.int64)
    read = 0
    for one in crawls:
        stored = store.read(asset, one.crawl, ["uid", column], version=one.versions[asset])
        mine = np.flatnonzero(pc.equal(rows["crawl"], one.crawl).to_numpy())
        places[mine] = read + places_of(rows["uid"].take(mine), stored["uid"], f"{asset} of {one.crawl}").to_numpy()
        values.append(stored[column])
        read += len(stored)
    return pa.chunked_array([chunk for part in values for chunk in part.chunks]).take(places)


def row_matrix(column: pa.ChunkedArray | pa.FixedSizeListArray) -> np.ndarray:
    """A column of n fixed-size lists as an (n, d) array."""
    lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    # flatten(), unlike values, respects the offset of a slice.
    values: np.ndarray = lists.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(-1, lists.type.list_size)


def list_column(values: np.ndarray) -> pa.FixedSizeListArray:
    """An (n, d) array as a column of n fixed-size lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def sums_of(rows: pa.Table, classes: int) -> tuple[ClassStatistics, np.ndarray]:
    """Statistics and (d, d) cross products of rows with the columns latent_class and both embeddings."""
    image, text = (row_matrix(rows[column]) for column in EMBEDDINGS)
    label = rows["latent_class"].to_numpy().astype(np.int64)
    return sums_by_class(image, text, label, classes), cross_products(image, text)


def statistics_rows(statistics: ClassStatistics) -> pa.Table:
    """Statistics as a table, one row a latent class."""
    return pa.table(
        {
            "latent_class": pa.array(range(len(statistics.counts)), pa.int32()),
            "count": statistics.counts,
            "image_sum": list_column(statistics.image_sums),
            "text_sum": list_column(statistics.text_sums),
        },
        schema=statistics_schema(statistics.image_sums.shape[1]),
    )


def load_statistics(store: LanceStore, table: str, crawl: str, *, version: int | None = None) -> ClassStatistics:
    """Read the statistics of a crawl or of the pool as of a crawl."""
    rows = store.read(table, crawl, version=version).sort_by("latent_class")
    return ClassStatistics(
        counts=rows["count"].to_numpy(),
        image_sums=row_matrix(rows["image_sum"]),
        text_sums=row_matrix(rows["text_sum"]),
    )


def class_names(store: LanceStore, crawl: str) -> tuple[str, ...]:
    """Read the names of a crawl's latent classes: the k-th is that of class k."""
    rows = store.read(CLASS_EMBEDDINGS, crawl, ["latent_class", "name"]).sort_by("latent_class")
    return tuple(rows["name"].to_pylist())


def load_class_embeddings(store: LanceStore, crawl: str) -> np.ndarray:
    """Read the (K, d) class embeddings of a crawl."""
    return row_matrix(store.read(CLASS_EMBEDDINGS, crawl).sort_by("latent_class")["embedding"])


def cross_product_rows(products: np.ndarray) -> pa.Table:
    """The (d, d) cross products as a table, one row an image dimension."""
    width = len(products)
    columns = {"image_dimension": pa.array(range(width), pa.int32()), "products": list_column(products)}
    return pa.table(columns, schema=cross_products_schema(width))


def load_cross_products(store: LanceStore, table: str, crawl: str, *, version: int | None = None) -> np.ndarray:
    """Read the (d, d) cross products of a crawl or of the pool as of a crawl."""
    return row_matrix(store.read(table, crawl, version=version).sort_by("image_dimension")["products"])
