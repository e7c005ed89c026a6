"""Crawls become the pool that everything is selected from."""

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipcov_assets.assets.embeddings import PROXY
from clipcov_assets.assets.groups import OWNERS, POOL
from clipcov_assets.assets.latent_classes import class_size_table
from clipcov_assets.automation import when_inputs_change
from clipcov_assets.core.statistics import no_statistics
from clipcov_assets.partitions import crawl_order, crawls
from clipcov_assets.pool_tables import (
    CLASS_EMBEDDINGS,
    CRAWL_PRODUCTS,
    CRAWL_STATISTICS,
    POOL_PRODUCTS,
    POOL_STATISTICS,
    ROWS_TAKEN,
    PooledCrawl,
    cross_product_rows,
    load_class_embeddings,
    load_cross_products,
    load_statistics,
    pooled_crawls_metadata,
    statistics_rows,
    sums_of,
)
from clipcov_assets.provenance import content_version, latest_input, materialized
from clipcov_assets.tables import EMBEDDINGS, column_schema
from clipcov_assets.tables import POOL as POOL_SCHEMA
from resources.lance_store import LanceStore, StoredRows, WrittenTable

# What the pool needs of each crawl, and what of it is read through the pool, at the Lance versions that it pins.
CRAWL_ASSETS = ("raw_pairs", "embeddings", "latent_classes")
CRAWL_TABLES = ("raw_pairs", "latent_classes", CRAWL_STATISTICS)


@dg.asset(
    partitions_def=crawls,
    deps=["embeddings", "latent_classes"],
    group_name=POOL,
    owners=OWNERS,
    kinds={"lancedb", "arrow"},
    tags={"clipcov/stage": "pool"},
    code_version="2",
    automation_condition=when_inputs_change,
    metadata={"dagster/column_schema": column_schema(POOL_SCHEMA)},
)
def pool(context: dg.AssetExecutionContext, store: LanceStore) -> dg.MaterializeResult:
    """Everything that can be selected as of this crawl: its pairs and those of all earlier crawls, one row a uid.

    Crawls are in the order of their names, numbers counting as numbers. A pair that several crawls deliver counts
    once, with the oldest crawl's copy. Earlier crawls that have no embeddings yet are left out and named, so that
    one dead crawl does not freeze the others. All crawls must be embedded by the same proxy.
    """
    crawl = context.partition_key
    included, left_out = _included_crawls(context, store, crawl)
    _one_proxy(store, included)
    joined = JoinedCrawls(store, included)
    rows, pooled, statistics = joined.rows, joined.crawls, joined.statistics
    written = joined.write(store, crawl)
    context.log.info(f"{crawl}: pool of {len(rows)} pairs from {len(pooled)} crawls")
    return materialized(
        written,
        content_version(rows),
        inputs=[latest_input(context, asset, name) for name in included for asset in CRAWL_ASSETS],
        metadata={
            "crawls": len(pooled),
            "pairs": len(rows),
            "new_pairs": pooled[-1].new_pairs,
            "already_known": pooled[-1].pairs - pooled[-1].new_pairs,
            "mean_clip_score": pc.mean(rows["clip_score"]).as_py(),
            "classes_with_pairs": int((statistics.counts > 0).sum()),
            "left_out": ", ".join(left_out) or "none",
            "composition": _composition(pooled),
            "class_sizes": class_size_table(_class_names(store, crawl), statistics.counts),
        },
    )


def _included_crawls(context: dg.AssetExecutionContext, store: LanceStore, crawl: str) -> tuple[list[str], list[str]]:
    """This crawl and the earlier ones, oldest first, and those of them that are not ready."""
    known = context.instance.get_dynamic_partitions("crawl")
    earlier = sorted((name for name in known if crawl_order(name) < crawl_order(crawl)), key=crawl_order)
    ready = [name for name in earlier if all(store.exists(asset, name) for asset in CRAWL_ASSETS)]
    return [*ready, crawl], [name for name in earlier if name not in ready]


def _one_proxy(store: LanceStore, included: list[str]) -> None:
    proxies = {name: store.metadata("latent_classes", name)[PROXY] for name in included}
    if len(set(proxies.values())) > 1:
        listed = ", ".join(f"{name} by {sha256[:12]}" for name, sha256 in proxies.items())
        raise dg.Failure(
            f"a pool cannot mix embeddings of two proxies: {listed}. Materialize the embeddings of these crawls "
            "again with the present proxy_checkpoint",
            allow_retries=False,
        )


class JoinedCrawls:
    """The pool's rows, each uid with the oldest crawl that holds it, and its statistics: those of the crawls, added.

    What an earlier crawl has brought already is taken out again, so that only pairs that come twice are read.

    Args:
        store: Holds `latent_classes` and the statistics of each crawl.
        included: The crawls, oldest first.
    """

    def __init__(self, store: LanceStore, included: list[str]) -> None:
        """Join the crawls one after the other."""
        self.rows = POOL_SCHEMA.empty_table()
        self.crawls: list[PooledCrawl] = []
        self.statistics = no_statistics(load_class_embeddings(store, included[-1]).shape)
        self.products = np.zeros((self.statistics.image_sums.shape[1],) * 2)
        for name in included:
            self._add(store, name)
        self.rows = self.rows.sort_by([("latent_class", "ascending"), ("uid", "ascending")])

    def write(self, store: LanceStore, crawl: str) -> WrittenTable:
        """Write the pool as of a crawl and its sums."""
        store.write(POOL_STATISTICS, crawl, statistics_rows(self.statistics))
        store.write(POOL_PRODUCTS, crawl, cross_product_rows(self.products))
        return store.write("pool", crawl, self.rows, pooled_crawls_metadata(self.crawls))

    def _add(self, store: LanceStore, name: str) -> None:
        versions = {table: store.version(table, name) for table in CRAWL_TABLES}
        rows = store.read(
            "latent_classes", name, ["uid", "latent_class", "clip_score"], version=versions["latent_classes"]
        )
        known = pc.is_in(rows["uid"], value_set=self.rows["uid"].combine_chunks())
        new = rows.filter(pc.invert(known))
        new = new.append_column("crawl", pa.array([name]).take(pa.array(np.zeros(len(new), np.int64))))
        self.rows = pa.concat_tables([self.rows, new.select(POOL_SCHEMA.names).cast(POOL_SCHEMA)])
        self.crawls.append(PooledCrawl(name, len(rows), len(new), versions))
        self.statistics += load_statistics(store, CRAWL_STATISTICS, name, version=versions[CRAWL_STATISTICS])
        self.products += load_cross_products(store, CRAWL_PRODUCTS, name)
        stored = store.rows("latent_classes", name, version=versions["latent_classes"])
        self._take_out(stored, np.flatnonzero(known.to_numpy()))

    def _take_out(self, stored: StoredRows, known: np.ndarray) -> None:
        for start in range(0, len(known), ROWS_TAKEN):
            rows = stored.take(known[start : start + ROWS_TAKEN], ["latent_class", *EMBEDDINGS])
            statistics, products = sums_of(rows, len(self.statistics.counts))
            self.statistics -= statistics
            self.products -= products


def _class_names(store: LanceStore, crawl: str) -> tuple[str, ...]:
    return tuple(
        store.read(CLASS_EMBEDDINGS, crawl, ["latent_class", "name"]).sort_by("latent_class")["name"].to_pylist()
    )


def _composition(pooled: list[PooledCrawl]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table(
        [
            dg.TableRecord({"crawl": one.crawl, "pairs": one.pairs, "new_pairs": one.new_pairs, **one.versions})
            for one in pooled
        ],
        schema=dg.TableSchema.from_name_type_dict(
            {"crawl": "string", "pairs": "int", "new_pairs": "int", **dict.fromkeys(CRAWL_TABLES, "int")}
        ),
    )
