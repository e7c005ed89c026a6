"""A crawl's tables as the assets write them: class sizes enter, a LanceDB database on disk leaves."""

import time
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from benchmarks.measure import peak_memory
from benchmarks.pools import WIDTH, Columns, Geometry, uids
from clipcov_assets.assets.latent_classes import ClassOrder
from clipcov_assets.assets.pool import JoinedCrawls
from clipcov_assets.core.similarity import clip_scores
from clipcov_assets.pool_tables import (
    CLASS_EMBEDDINGS,
    CRAWL_PRODUCTS,
    CRAWL_STATISTICS,
    cross_product_rows,
    list_column,
    statistics_rows,
)
from clipcov_assets.tables import class_embeddings_schema, embeddings_schema
from resources.lance_store import LanceStore

CRAWL = "crawl-1"
ROWS_AT_ONCE = 20_000


def write_pool(directory: str, sizes: Sequence[int], seed: int = 0) -> Columns:
    """Write the tables of a pool of one crawl, whose pairs came in random order.

    Returns:
        Seconds that the class order and the pool took, and the peak memory in bytes: what happens once a crawl,
        between the embeddings and the rankings.
    """
    store, random = LanceStore(uri=directory), np.random.default_rng(seed)
    latent_class = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    geometry, uid = Geometry(len(sizes), WIDTH, random), uids(len(latent_class), random)
    schema = embeddings_schema(WIDTH)

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(uid), ROWS_AT_ONCE):
            some = slice(start, start + ROWS_AT_ONCE)
            made = geometry.pairs(latent_class[some], random)
            image, text = (rows.astype(np.float16) for rows in made.values())
            columns = {
                "uid": uid[some],
                "content": pa.array([bytes.fromhex(one) for one in uid[some].tolist()], pa.binary(16)),
                "image_embedding": list_column(image),
                "text_embedding": list_column(text),
                "clip_score": clip_scores(image, text),
            }
            yield pa.RecordBatch.from_pydict(columns, schema=schema)

    store.write("embeddings", CRAWL, pa.RecordBatchReader.from_batches(schema, batches()))
    store.write("raw_pairs", CRAWL, pa.table({"uid": pa.array(uid)}))
    numbers = np.arange(len(sizes), dtype=np.int32)
    classes = [numbers, numbers.astype(str).tolist(), list_column(geometry.class_embeddings)]
    store.write(CLASS_EMBEDDINGS, CRAWL, pa.table(classes, schema=class_embeddings_schema(WIDTH)))
    start = time.perf_counter()
    order_by_class(store, uid, latent_class, len(sizes))
    ordered = time.perf_counter()
    JoinedCrawls(store, [CRAWL]).write(store, CRAWL)
    return {"class_order": ordered - start, "pool": time.perf_counter() - ordered, "once": peak_memory()}


def order_by_class(store: LanceStore, uid: np.ndarray, latent_class: np.ndarray, classes: int) -> None:
    """Write `latent_classes` and the sums of the crawl."""
    labels = pa.table({"uid": uid, "latent_class": latent_class.astype(np.int32), "place": np.arange(len(uid))})
    labels = labels.append_column("margin", pa.array(np.zeros(len(uid), np.float32)))
    labels = labels.sort_by([("latent_class", "ascending"), ("uid", "ascending")])
    rows = ClassOrder(store, CRAWL, labels, (classes, WIDTH))
    store.write("latent_classes", CRAWL, rows.reader())
    store.write(CRAWL_STATISTICS, CRAWL, statistics_rows(rows.statistics))
    store.write(CRAWL_PRODUCTS, CRAWL, cross_product_rows(rows.products))
