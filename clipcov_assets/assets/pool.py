"""Crawls become the pool that everything is selected from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipcov_assets.assets.groups import POOL
from clipcov_assets.assets.latent_classes import class_size_table
from clipcov_assets.assets.road_asset import road_asset
from clipcov_assets.automation import repool
from clipcov_assets.core.statistics import no_statistics
from clipcov_assets.drifts import drift_metadata
from clipcov_assets.input_versions import EARLIER_CRAWLS, version_of
from clipcov_assets.partitions import crawls
from clipcov_assets.pool_tables import (
    CRAWL_PRODUCTS,
    CRAWL_STATISTICS,
    POOL_PRODUCTS,
    POOL_STATISTICS,
    ROWS_TAKEN,
    PooledCrawl,
    class_names,
    cross_product_rows,
    load_class_embeddings,
    load_cross_products,
    load_statistics,
    pooled_crawls,
    pooled_crawls_metadata,
    statistics_rows,
    sums_of,
    versions_of_sums,
)
from clipcov_assets.pooling import earlier_crawls, sound_crawls
from clipcov_assets.provenance import content_version, latest_input, legible, materialized
from clipcov_assets.tables import EMBEDDINGS, PROXY_SHA256, column_schema
from clipcov_assets.tables import POOL as POOL_SCHEMA
from resources.lance_store import LanceStore, StoredRows, WrittenTable

# What the pool needs of each crawl, and what of it is read through the pool, at the Lance versions that it pins.
CRAWL_ASSETS = ("raw_pairs", "embeddings", "latent_classes")
CRAWL_TABLES = ("raw_pairs", "latent_classes", CRAWL_STATISTICS, CRAWL_PRODUCTS)
SHOWN_CRAWLS = 20  # in Dagster, which keeps every materialization for ever


@road_asset(
    partitions_def=crawls,
    deps=["embeddings", "latent_classes"],
    group_name=POOL,
    kinds={"lancedb", "arrow"},
    stage="pool",
    code_version="2",
    automation_condition=repool,
    metadata={"dagster/column_schema": column_schema(POOL_SCHEMA)},
)
def pool(context: dg.AssetExecutionContext, store: LanceStore) -> dg.MaterializeResult:
    """Everything that can be selected as of this crawl: its pairs and those of all earlier crawls, one row a uid.

    Crawls are in the order of their names, numbers counting as numbers. A pair that several crawls deliver counts
    once, with the oldest crawl's copy. Earlier crawls that have no embeddings yet, or failed a check, are left out and
    named, so that one dead crawl does not freeze the others. All crawls must be embedded by the same proxy.
    """
    crawl = context.partition_key
    earlier = sound_crawls(context.instance, crawl)
    joined = JoinedCrawls(store, [*earlier, crawl], lambda name: _data_versions(context, name))
    rows, pooled, statistics = joined.rows, joined.crawls, joined.statistics
    included = {one.crawl for one in pooled}
    written = joined.write(store, crawl)
    context.log.info(f"{crawl}: pool of {len(rows)} pairs from {len(pooled)} crawls")
    return materialized(
        written,
        content_version(rows, load_class_embeddings(store, crawl)),
        # Its own crawl; the earlier ones stand in the table's metadata, which Dagster need not repeat every day.
        inputs=[latest_input(context, asset, crawl) for asset in CRAWL_ASSETS],
        metadata={
            "crawls": len(pooled),
            "pairs": len(rows),
            "new_pairs": pooled[-1].new_pairs,
            "already_known": pooled[-1].pairs - pooled[-1].new_pairs,
            "mean_clip_score": legible(pc.mean(rows["clip_score"]).as_py()),
            "classes_with_pairs": int((statistics.counts > 0).sum()),
            "left_out": _named([name for name in earlier_crawls(context.instance, crawl) if name not in included]),
            EARLIER_CRAWLS: version_of(earlier),
            "composition": _composition(pooled),
            "class_sizes": class_size_table(class_names(store, crawl), statistics.counts),
            **drift_metadata(store, crawl),
        },
    )


def _data_versions(context: dg.AssetExecutionContext, crawl: str) -> dict[str, str]:
    return {asset: latest_input(context, asset, crawl).data_version for asset in CRAWL_ASSETS}


@dataclass(frozen=True)
class CrawlTables:
    """The tables of a crawl as they are now.

    Attributes:
        versions: Lance version by name.
        proxy: sha256 of the weights that embedded it.
    """

    versions: Mapping[str, int]
    proxy: str


def _tables_of(store: LanceStore, crawl: str) -> CrawlTables:
    opened = {name: store.rows(name, crawl) for name in CRAWL_TABLES}
    versions = {name: rows.version for name, rows in opened.items()}
    return CrawlTables(versions, opened["latent_classes"].metadata.get(PROXY_SHA256, ""))


def _one_proxy(included: Mapping[str, CrawlTables]) -> None:
    if len({tables.proxy for tables in included.values()}) > 1:
        listed = ", ".join(f"{name} by {tables.proxy[:12]}" for name, tables in included.items())
        raise dg.Failure(
            f"a pool cannot mix embeddings of two proxies: {listed}. Materialize the embeddings of these crawls "
            "again with the present proxy_checkpoint",
            allow_retries=False,
        )


class JoinedCrawls:
    """The pool's rows, each uid with the oldest crawl that holds it, and its statistics: those of the crawls, added.

    What an earlier crawl has brought already is taken out again, so that only pairs that come twice are read. It
    goes on from the newest pool that holds the oldest of the crawls as they are now: a crawl is read once, however
    many come after it, and the result is the same, byte for byte.

    Args:
        store: Holds `latent_classes` and the statistics of each crawl.
        crawls: The crawls, oldest first. Those that have no tables yet are left out, except for the last one.
        data_versions: From the name of a crawl to Dagster's data versions of its assets.

    Raises:
        KeyError: The last crawl has no tables; the message says what to materialize.
        dagster.Failure: They were embedded by several proxies.
    """

    def __init__(
        self,
        store: LanceStore,
        crawls: Sequence[str],
        data_versions: Callable[[str], Mapping[str, str]] = lambda name: {},
    ) -> None:
        """Join the crawls one after the other."""
        self.rows = POOL_SCHEMA.empty_table()
        self.crawls: list[PooledCrawl] = []
        self.statistics = no_statistics(load_class_embeddings(store, crawls[-1]).shape)
        self.products = np.zeros((self.statistics.image_sums.shape[1],) * 2)
        included = self._ready(store, crawls)
        _one_proxy(included)
        versions = {name: tables.versions for name, tables in included.items()}
        self._go_on(store, versions)
        for name in list(versions)[len(self.crawls) :]:
            self._add(store, name, versions[name], data_versions(name))
        self.rows = self.rows.sort_by([("latent_class", "ascending"), ("uid", "ascending")])

    @staticmethod
    def _ready(store: LanceStore, crawls: Sequence[str]) -> dict[str, CrawlTables]:
        found = {}
        for name in crawls:
            try:
                found[name] = _tables_of(store, name)
            except KeyError:
                if name == crawls[-1]:
                    raise
        return found

    def write(self, store: LanceStore, crawl: str) -> WrittenTable:
        """Write the pool as of a crawl and its sums."""
        sums = {
            POOL_STATISTICS: store.write(POOL_STATISTICS, crawl, statistics_rows(self.statistics)).version,
            POOL_PRODUCTS: store.write(POOL_PRODUCTS, crawl, cross_product_rows(self.products)).version,
        }
        return store.write("pool", crawl, self.rows, pooled_crawls_metadata(self.crawls, sums))

    def _go_on(self, store: LanceStore, versions: Mapping[str, Mapping[str, int]]) -> None:
        """Begin with an earlier pool, if one holds the first of the crawls and nothing else."""
        included = list(versions)
        for count in range(len(included) - 1, 0, -1):
            crawl = included[count - 1]
            if not store.exists("pool", crawl):
                continue
            version = store.version("pool", crawl)
            pooled, sums = pooled_crawls(store, crawl, version=version), versions_of_sums(store, crawl, version)
            if sums and [(one.crawl, one.versions) for one in pooled] == list(versions.items())[:count]:
                self.rows = store.read("pool", crawl, POOL_SCHEMA.names, version=version).cast(POOL_SCHEMA)
                self.crawls = pooled
                self.statistics += load_statistics(store, POOL_STATISTICS, crawl, version=sums[POOL_STATISTICS])
                self.products += load_cross_products(store, POOL_PRODUCTS, crawl, version=sums[POOL_PRODUCTS])
                return

    def _add(self, store: LanceStore, name: str, versions: Mapping[str, int], data_versions: Mapping[str, str]) -> None:
        rows = store.read(
            "latent_classes", name, ["uid", "latent_class", "clip_score"], version=versions["latent_classes"]
        )
        known = pc.is_in(rows["uid"], value_set=self.rows["uid"].combine_chunks())
        new = rows.filter(pc.invert(known))
        new = new.append_column("crawl", pa.repeat(pa.scalar(name, pa.large_string()), len(new)))
        self.rows = pa.concat_tables([self.rows, new.select(POOL_SCHEMA.names).cast(POOL_SCHEMA)])
        self.crawls.append(PooledCrawl(name, len(rows), len(new), versions, data_versions))
        self.statistics += load_statistics(store, CRAWL_STATISTICS, name, version=versions[CRAWL_STATISTICS])
        self.products += load_cross_products(store, CRAWL_PRODUCTS, name, version=versions[CRAWL_PRODUCTS])
        stored = store.rows("latent_classes", name, version=versions["latent_classes"])
        self._take_out(stored, np.flatnonzero(known.to_numpy()))

    def _take_out(self, stored: StoredRows, known: np.ndarray) -> None:
        for start in range(0, len(known), ROWS_TAKEN):
            rows = stored.take(known[start : start + ROWS_TAKEN], ["latent_class", *EMBEDDINGS])
            statistics, products = sums_of(rows, len(self.statistics.counts))
            self.statistics -= statistics
            self.products -= products


def _composition(pooled: list[PooledCrawl]) -> dg.TableMetadataValue:
    """The newest crawls; the table's own metadata holds all of them, with the versions that went in."""
    columns = ("crawl", "pairs", "new_pairs")
    return dg.MetadataValue.table(
        [dg.TableRecord({name: getattr(one, name) for name in columns}) for one in reversed(pooled[-SHOWN_CRAWLS:])],
        schema=dg.TableSchema.from_name_type_dict({"crawl": "string", "pairs": "int", "new_pairs": "int"}),
    )


def _named(crawls: list[str]) -> str:
    """Some crawls by name, the newest first, and how many more there are."""
    shown = list(reversed(crawls[-SHOWN_CRAWLS:]))
    more = len(crawls) - len(shown)
    return ", ".join([*shown, *([f"and {more} more"] if more else [])]) or "none"
