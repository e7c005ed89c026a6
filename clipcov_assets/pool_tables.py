"""How a pool is kept in tables, and read back as the core's `Pool`.

The pool's own table names the pairs; what belongs to a pair stays in the tables of the crawl that brought it,
and is read at the Lance versions that the pool recorded.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipcov_assets.core import Pool
from clipcov_assets.core.statistics import ClassStatistics
from clipcov_assets.tables import statistics_schema
from resources.lance_store import LanceStore

CLASS_EMBEDDINGS = "class_embeddings"
STATISTICS = "pool_statistics"
CRAWLS = "crawls"


@dataclass(frozen=True)
class PooledCrawl:
    """What one crawl contributes to a pool, and the Lance version of each of its tables by asset."""

    crawl: str
    pairs: int
    new_pairs: int
    versions: Mapping[str, int]


def pooled_crawls(store: LanceStore, crawl: str) -> list[PooledCrawl]:
    """The crawls that the pool as of `crawl` holds, oldest first."""
    return [PooledCrawl(**one) for one in json.loads(store.metadata("pool", crawl)[CRAWLS])]


def pooled_crawls_metadata(crawls: Iterable[PooledCrawl]) -> dict[str, str]:
    """The same, as the metadata of the pool's table."""
    return {CRAWLS: json.dumps([asdict(one) for one in crawls])}


def gather(
    store: LanceStore, crawls: Iterable[PooledCrawl], asset: str, columns: list[str], rows: pa.Table
) -> pa.Table:
    """Read columns of an asset's tables for rows of a pool.

    Args:
        store: The tables.
        crawls: The pool's crawls, with the versions to read.
        asset: Whose tables: `raw_pairs`, `embeddings` or `latent_classes`.
        columns: To read, besides uid.
        rows: Columns uid and crawl of the wanted pairs, in any order.

    Returns:
        Columns uid, crawl, whatever else `rows` has, and `columns`; sorted by uid.

    Raises:
        KeyError: A pair of the pool is not in the table of its crawl.
    """
    parts = []
    for one in crawls:
        wanted = rows.filter(pc.equal(rows["crawl"], one.crawl))
        table = store.read(asset, one.crawl, ["uid", *columns], version=one.versions[asset])
        places = pc.index_in(wanted["uid"], value_set=table["uid"].combine_chunks())
        if places.null_count:
            lost = wanted["uid"].filter(pc.is_null(places))[0].as_py()
            raise KeyError(f"pair {lost} of the pool is not in {asset} of {one.crawl}: materialize {asset} again")
        found = table.take(places)
        for column in columns:
            wanted = wanted.append_column(column, found[column])
        parts.append(wanted)
    return pa.concat_tables(parts).sort_by("uid")


def load_pool(store: LanceStore, crawl: str, *, latent_classes: Iterable[int] | None = None) -> Pool:
    """Read the pool as of a crawl, rows by uid: uid, embeddings, latent classes and class embeddings.

    Args:
        store: The tables.
        crawl: The pool's partition.
        latent_classes: Only the pairs of these classes.
    """
    rows = store.read("pool", crawl, ["uid", "crawl", "latent_class"])
    if latent_classes is not None:
        rows = rows.filter(pc.is_in(rows["latent_class"], pa.array(list(latent_classes), pa.int32())))
    classes = store.read(CLASS_EMBEDDINGS, crawl, ["latent_class", "embedding"]).sort_by("latent_class")
    embedded = gather(store, pooled_crawls(store, crawl), "embeddings", ["image_embedding", "text_embedding"], rows)
    return Pool(
        uid=np.array(embedded["uid"].to_pylist()),
        image_embeddings=row_matrix(embedded["image_embedding"]),
        text_embeddings=row_matrix(embedded["text_embedding"]),
        latent_class=embedded["latent_class"].to_numpy(),
        class_embeddings=row_matrix(classes["embedding"]),
    )


def load_pairs(store: LanceStore, crawl: str, columns: list[str], *, uid: pa.ChunkedArray | None = None) -> pa.Table:
    """Read captions or images of the pool as of a crawl, sorted by uid.

    Args:
        store: The tables.
        crawl: The pool's partition.
        columns: Of `raw_pairs`, such as `caption` and `image`.
        uid: Only these pairs; all of the pool where None.
    """
    rows = store.read("pool", crawl, ["uid", "crawl"])
    if uid is not None:
        rows = rows.filter(pc.is_in(rows["uid"], uid.combine_chunks()))
    return gather(store, pooled_crawls(store, crawl), "raw_pairs", columns, rows)


def row_matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A column of n fixed-size lists as an (n, d) array."""
    lists = column.combine_chunks()
    # flatten(), unlike values, respects the offset of a slice.
    values: np.ndarray = lists.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(-1, lists.type.list_size)


def list_column(values: np.ndarray) -> pa.FixedSizeListArray:
    """An (n, d) array as a column of n fixed-size lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def statistics_rows(statistics: ClassStatistics) -> pa.Table:
    """The pool's statistics as a table, one row a latent class."""
    return pa.table(
        {
            "latent_class": pa.array(range(len(statistics.counts)), pa.int32()),
            "count": statistics.counts,
            "image_sum": list_column(statistics.image_sums),
            "text_sum": list_column(statistics.text_sums),
        },
        schema=statistics_schema(statistics.image_sums.shape[1]),
    )


def load_statistics(store: LanceStore, crawl: str) -> ClassStatistics:
    """Read the statistics of the pool as of a crawl."""
    rows = store.read(STATISTICS, crawl).sort_by("latent_class")
    return ClassStatistics(
        counts=rows["count"].to_numpy(),
        image_sums=row_matrix(rows["image_sum"]),
        text_sums=row_matrix(rows["text_sum"]),
    )
