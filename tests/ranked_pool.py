"""A small pool with its rankings and subsets in LanceDB, made by the project's own functions."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from clipcov_assets.assets.combined_subsets import combined
from clipcov_assets.assets.latent_classes import ClassOrder
from clipcov_assets.assets.pool import JoinedCrawls
from clipcov_assets.core.set_algebra import Combination
from clipcov_assets.core.similarity import clip_scores
from clipcov_assets.methods import COMBINED, KNOWN, RANKED
from clipcov_assets.partitions import fractions_of, of_crawl
from clipcov_assets.pool_tables import (
    CLASS_EMBEDDINGS,
    CRAWL_PRODUCTS,
    CRAWL_STATISTICS,
    cross_product_rows,
    list_column,
    load_pool,
    statistics_rows,
)
from clipcov_assets.tables import (
    QUARANTINE,
    RANKING,
    RAW_PAIRS,
    class_embeddings_schema,
    embeddings_schema,
    ranking_schema,
)
from resources.crawl_catalog import CrawlCatalog
from resources.lance_store import LanceStore
from tests.subsets import raw_pair

CLASSES, WIDTH = ("cats", "dogs", "<b>cows</b>"), 6
# Ten pairs come twice; pair 99 is damaged, 100 comes after the pool of crawl-2.
DELIVERED = {"crawl-1": range(40), "crawl-2": range(30, 70)}
DAMAGED = 99


def uid_of(pair: int) -> str:
    return f"{pair:032x}"


def unit_rows(seed: int, count: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, WIDTH)) + 1.5 * np.eye(WIDTH)[0]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


IMAGES, TEXTS, NAMES = unit_rows(1, 200), unit_rows(2, 200), unit_rows(3, len(CLASSES)).astype(np.float32)


def write_crawl(store: LanceStore, crawl: str, pairs: range) -> None:
    """All tables of a crawl: pair i has the same embeddings and class i % 3 whichever crawl brings it."""
    number = np.array(pairs)
    rows = [raw_pair(pair, file=f"{crawl}.tar", key=f"{place:08d}") for place, pair in enumerate(pairs)]
    store.write("raw_pairs", crawl, pa.Table.from_pylist(rows, schema=RAW_PAIRS))
    store.write("quarantine", crawl, QUARANTINE.empty_table())
    uid, content = [row["uid"] for row in rows], pa.array([row["content"] for row in rows], pa.binary(16))
    image, text = IMAGES[number], TEXTS[number]
    columns = [uid, content, list_column(image), list_column(text), clip_scores(image, text)]
    store.write("embeddings", crawl, pa.table(columns, schema=embeddings_schema(WIDTH)))
    label = pa.array(number % len(CLASSES), pa.int32())
    labels = pa.table({"uid": uid, "latent_class": label, "margin": np.zeros(len(uid), np.float32)})
    labels = labels.append_column("place", pa.array(np.arange(len(uid))))
    labels = labels.sort_by([("latent_class", "ascending"), ("uid", "ascending")])
    order = ClassOrder(store, crawl, labels, NAMES.shape)
    store.write("latent_classes", crawl, order.reader())
    store.write(CRAWL_STATISTICS, crawl, statistics_rows(order.statistics))
    store.write(CRAWL_PRODUCTS, crawl, cross_product_rows(order.products))
    names = pa.array(range(len(CLASSES)), pa.int32()), list(CLASSES), list_column(NAMES)
    store.write(CLASS_EMBEDDINGS, crawl, pa.table(names, schema=class_embeddings_schema(WIDTH)))


def rank(store: LanceStore, method: str, crawl: str, own: Mapping[str, object] | None = None) -> None:
    """The ranking of a method, and all of its subsets."""
    reads = [column for column in RANKED[method].reads if column != "partial_clip_score"]
    pool = load_pool(store, crawl, reads)
    if "partial_clip_score" in RANKED[method].reads:
        pool = replace(pool, partial_clip_score=np.linspace(-1, 1, len(pool)))
    ranked = RANKED[method](pool, len(pool), **(own or {}))
    reasons = {name: ranked.reasons[name] for name in RANKED[method].reasons}
    if "partner" in reasons:
        reasons["partner"] = [pool.uid[row] if row >= 0 else None for row in reasons["partner"]]
    if "entry" in reasons:
        reasons["entry"] = [entry or None for entry in reasons["entry"]]
    columns = {"uid": pool.uid[ranked.order].tolist(), "rank": np.arange(len(pool)), "gain": ranked.gains}
    rows = pa.table({**columns, **reasons}, schema=ranking_schema(reasons))
    if method != "full":
        store.write(f"{method}_ranking", crawl, rows)
    for key, fraction in fractions_of(method).items():
        store.write(f"{method}_subset", of_crawl(crawl, key), rows.slice(0, int(fraction * len(pool))))


def combine(store: LanceStore, combination: Combination, crawl: str) -> None:
    """All subsets of a combination, made of those of its methods."""
    for partition in (of_crawl(crawl, key) for key in fractions_of(combination.name)):
        first, second = (store.read(f"{method}_subset", partition, RANKING.names) for method in combination.methods)
        store.write(f"{combination.name}_subset", partition, combined(combination, first, second))


@contextmanager
def known(*combinations: Combination) -> Iterator[None]:
    """As if CLIPCOV_COMBINATIONS named these."""
    with pytest.MonkeyPatch.context() as patch:
        for one in combinations:
            patch.setitem(COMBINED, one.name, one)
            patch.setitem(KNOWN, one.name, one)
        yield


def catalog_of(store: LanceStore) -> CrawlCatalog:
    """The catalog whose marks lie beside the tables of a ranked pool."""
    return CrawlCatalog(directory=str(Path(store.uri).parent))


def ranked_pool(home: Path, *methods: str) -> LanceStore:
    """Two crawls, the pool as of each, rankings of the second, and one damaged pair."""
    store = LanceStore(uri=str(home / "lance"))
    for number, (crawl, pairs) in enumerate(DELIVERED.items()):
        write_crawl(store, crawl, pairs)
        JoinedCrawls(store, list(DELIVERED)[: number + 1]).write(store, crawl)
    fault = {"file": "00002.tar", "key": "00000007", "row": None, "uid": uid_of(DAMAGED)}
    fault |= {"reason": "image_corrupt", "detail": "truncated"}
    store.write("quarantine", "crawl-1", pa.Table.from_pylist([fault], schema=QUARANTINE))
    for method in methods:
        rank(store, method, "crawl-2")
    return store
