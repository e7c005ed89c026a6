"""The pairs of a subset, read a run at a time: what grows with images is never held at once."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipcov_assets.pool_tables import places_of, pooled_crawls
from resources.lance_store import LanceStore

# A run: enough pairs for a random read to be cheap, and never many images that are large.
RUN_PAIRS, RUN_BYTES = 4_096, 16 * 2**20


class SubsetPairs:
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
        sizes, contents = np.zeros(len(subset), np.int64), np.zeros(len(subset), "V16")
        self._crawl = np.zeros(len(subset), np.int32)  # number of the crawl that brought the pair
        self._row = np.zeros(len(subset), np.int64)  # row of its table of raw pairs
        self._stored = []
        for number, one in enumerate(pooled_crawls(store, crawl)):
            stored = store.rows("raw_pairs", one.crawl, version=one.versions["raw_pairs"])
            self._stored.append(stored)
            mine = np.flatnonzero(pc.equal(pool["crawl"], one.crawl).to_numpy())
            found = stored.slice(0, len(stored), ["uid", "bytes", "content"])
            places = places_of(subset["uid"].take(pa.array(mine)), found["uid"], f"raw_pairs of {one.crawl}")
            self._crawl[mine], self._row[mine] = number, places.to_numpy()
            sizes[mine] = pc.fill_null(found["bytes"], 0).take(places).to_numpy()
            contents[mine] = _fixed_bytes(found["content"].take(places))
        self._sizes = sizes
        self.rows = subset.append_column("crawl", pool["crawl"]).append_column("latent_class", pool["latent_class"])
        self.rows = self.rows.append_column("bytes", pa.array(sizes)).append_column(
            "content", pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(subset), [None, pa.py_buffer(contents)])
        )

    def in_order_of_delivery(self) -> np.ndarray:
        """All places, crawl by crawl, oldest first, each as it was delivered."""
        order: np.ndarray = np.lexsort((self._row, self._crawl))
        return order

    def stream(self, places: np.ndarray, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Read columns of `raw_pairs` of some pairs in the order of `places`, a run at a time.

        The next run is read while the last one is used, so that memory holds three.
        """
        coming: Future[pa.Table] | None = None
        with ThreadPoolExecutor(1) as reader:
            for run in self._runs(places, with_image="image" in columns):
                following = reader.submit(self._read, run, list(columns))
                if coming is not None:
                    yield coming.result()
                coming = following
            if coming is not None:
                yield coming.result()

    def _runs(self, places: np.ndarray, *, with_image: bool) -> Iterator[np.ndarray]:
        sizes = self._sizes[places] if with_image else np.zeros(len(places), np.int64)
        ends = np.cumsum(sizes)
        start = 0
        while start < len(places):
            full = int(np.searchsorted(ends, ends[start] - sizes[start] + RUN_BYTES, "right"))
            end = min(max(full, start + 1), start + RUN_PAIRS)
            yield places[start:end]
            start = end

    def _read(self, run: np.ndarray, columns: list[str]) -> pa.Table:
        parts, back, read = [], np.empty(len(run), np.int64), 0
        for number, stored in enumerate(self._stored):
            mine = np.flatnonzero(self._crawl[run] == number)
            if mine.size:
                parts.append(stored.take(self._row[run[mine]], columns))
                back[mine] = np.arange(read, read + len(mine))
                read += len(mine)
        return parts[0] if len(parts) == 1 else pa.concat_tables(parts).take(pa.array(back))


def _fixed_bytes(column: pa.ChunkedArray) -> np.ndarray:
    if not len(column):
        return np.empty(0, "V16")
    whole = column.combine_chunks()
    return np.frombuffer(whole.buffers()[1], "V16", len(whole), whole.offset * 16)
