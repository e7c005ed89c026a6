"""Pairs in the tables of their crawls, read a run at a time: what grows with images is never held at once."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipcov_assets.pool_tables import places_of, pooled_crawls
from resources.lance_store import LanceStore, StoredRows

# A run: enough pairs for a random read to be cheap, and never many images that are large.
RUN_PAIRS, RUN_BYTES = 4_096, 16 * 2**20


@dataclass(frozen=True, eq=False)
class CrawlTables:
    """Tables of raw pairs, each as it was at a version; every process opens them at `uri` itself.

    Attributes:
        uri: Address of the database.
        versions: Crawl and Lance version of each table.
    """

    uri: str
    versions: tuple[tuple[str, int], ...]

    @classmethod
    def of_pool(cls, store: LanceStore, crawl: str) -> "CrawlTables":
        """Those that the pool as of a crawl recorded, oldest first."""
        return cls(store.uri, tuple((one.crawl, one.versions["raw_pairs"]) for one in pooled_crawls(store, crawl)))

    @cached_property
    def opened(self) -> list[StoredRows]:
        """The open tables."""
        store = LanceStore(uri=self.uri)
        return [store.rows("raw_pairs", crawl, version=version) for crawl, version in self.versions]

    def read(self, table: np.ndarray, row: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Read some rows, each of the table with that number, in the order given."""
        parts, back, read = [], np.empty(len(row), np.int64), 0
        for number in np.unique(table):
            mine = np.flatnonzero(table == number)
            parts.append(self.opened[number].take(row[mine], list(columns)))
            back[mine] = np.arange(read, read + len(mine))
            read += len(mine)
        return parts[0] if len(parts) == 1 else pa.concat_tables(parts).take(pa.array(back))

    def __getstate__(self) -> dict[str, object]:
        return {"uri": self.uri, "versions": self.versions}  # open tables stay in their process


class FoundPairs:
    """Pairs and where each lies in the tables of raw pairs; captions and images are read when they are asked for.

    Attributes:
        tables: Of raw pairs.
        table: (n,) int32 number of each pair's table.
        row: (n,) int64 its row there.
        bytes: (n,) int64 size of its encoded image, 0 where there is none.
        content: (n,) 16 bytes that say what it holds.
    """

    def __init__(self, tables: CrawlTables, uid: pa.ChunkedArray, crawl: pa.ChunkedArray) -> None:
        """Find every pair.

        Args:
            tables: Of the crawls.
            uid: (n,) the pairs; a place is a row of it.
            crawl: (n,) the crawl that brought each.

        Raises:
            KeyError: A crawl is not materialized.
            ValueError: A pair is not in the crawl that brought it.
        """
        self.tables = tables
        self.table, self.row = np.zeros(len(uid), np.int32), np.zeros(len(uid), np.int64)
        self.bytes, self.content = np.zeros(len(uid), np.int64), np.zeros(len(uid), "V16")
        for number, ((name, _), stored) in enumerate(zip(tables.versions, tables.opened, strict=True)):
            mine = np.flatnonzero(pc.equal(crawl, name).to_numpy())
            found = stored.slice(0, len(stored), ["uid", "bytes", "content"])
            places = places_of(uid.take(pa.array(mine)), found["uid"], f"raw_pairs of {name}")
            self.table[mine], self.row[mine] = number, places.to_numpy()
            self.bytes[mine] = pc.fill_null(found["bytes"], 0).take(places).to_numpy()
            self.content[mine] = _fixed_bytes(found["content"].take(places))

    def __len__(self) -> int:
        return len(self.row)

    @property
    def digest(self) -> str:
        """Equal where all pairs are equal in content and order, whatever table they are in."""
        return hashlib.blake2b(self.content.tobytes(), digest_size=16).hexdigest()

    def in_order_of_delivery(self) -> np.ndarray:
        """All places, crawl by crawl, oldest first, each as it was delivered."""
        order: np.ndarray = np.lexsort((self.row, self.table))
        return order

    def read(self, places: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Read columns of `raw_pairs` of some pairs in the order of `places`, all at once."""
        return self.tables.read(self.table[places], self.row[places], columns)

    def stream(self, places: np.ndarray, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Read columns of `raw_pairs` of some pairs in the order of `places`, a run at a time.

        The next run is read while the last one is used, so that memory holds three.
        """
        coming: Future[pa.Table] | None = None
        with ThreadPoolExecutor(1) as reader:
            for run in self.runs(places, most=RUN_PAIRS, with_image="image" in columns):
                following = reader.submit(self.read, run, columns)
                if coming is not None:
                    yield coming.result()
                coming = following
            if coming is not None:
                yield coming.result()

    def runs(self, places: np.ndarray, *, most: int, with_image: bool) -> Iterator[np.ndarray]:
        """Divide places into runs of at most so many pairs, with images that are not too large together."""
        sizes = self.bytes[places] if with_image else np.zeros(len(places), np.int64)
        ends = np.cumsum(sizes)
        start = 0
        while start < len(places):
            full = int(np.searchsorted(ends, ends[start] - sizes[start] + RUN_BYTES, "right"))
            end = min(max(full, start + 1), start + most)
            yield places[start:end]
            start = end


def pairs_of_pool(store: LanceStore, crawl: str, uid: pa.ChunkedArray | None = None) -> FoundPairs:
    """Find the pairs of the pool as of a crawl, or some of them, in the order of their uids.

    Raises:
        KeyError: The pool or a crawl of it is not materialized.
        ValueError: A pair is not in the pool, or not in the crawl that brought it.
    """
    pool = store.read("pool", crawl, ["uid", "crawl"])
    if uid is not None:
        pool = pool.take(places_of(uid, pool["uid"], f"the pool of {crawl}"))
    pool = pool.sort_by("uid")
    return FoundPairs(CrawlTables.of_pool(store, crawl), pool["uid"], pool["crawl"])


def pairs_of_crawl(store: LanceStore, crawl: str) -> FoundPairs:
    """Find the pairs of one crawl, as it is now, in the order of their uids.

    Raises:
        KeyError: It is not materialized.
    """
    tables = CrawlTables(store.uri, ((crawl, store.version("raw_pairs", crawl)),))
    (stored,) = tables.opened
    uid = stored.slice(0, len(stored), ["uid"]).sort_by("uid")["uid"]
    return FoundPairs(tables, uid, pa.chunked_array([pa.repeat(pa.scalar(crawl, pa.large_string()), len(uid))]))


class SubsetPairs(FoundPairs):
    """The pairs of one partition of a subset; captions and images are those of the crawls that the pool recorded.

    Attributes:
        rows: uid, rank, gain, crawl, latent_class, bytes (of the image, 0 where there is none) and content, in the
            order of the ranks. A place is a row of it.
    """

    def __init__(self, store: LanceStore, asset: str, partition: str) -> None:
        """Find every pair; no caption or image is read yet.

        Raises:
            KeyError: The subset, its pool or a crawl is not materialized.
            ValueError: A pair is not in the pool, or not in the crawl that brought it.
        """
        crawl = partition.split("|")[0]
        subset = store.read(asset, partition, ["uid", "rank", "gain"]).sort_by("rank")
        pool = store.read("pool", crawl, ["uid", "crawl", "latent_class"])
        pool = pool.take(places_of(subset["uid"], pool["uid"], f"the pool of {crawl}"))
        super().__init__(CrawlTables.of_pool(store, crawl), pool["uid"], pool["crawl"])
        self.rows = subset.append_column("crawl", pool["crawl"]).append_column("latent_class", pool["latent_class"])
        content = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(self), [None, pa.py_buffer(self.content)])
        self.rows = self.rows.append_column("bytes", pa.array(self.bytes)).append_column("content", content)


def _fixed_bytes(column: pa.ChunkedArray) -> np.ndarray:
    if not len(column):
        return np.empty(0, "V16")
    whole = column.combine_chunks()
    return np.frombuffer(whole.buffers()[1], "V16", len(whole), whole.offset * 16)
