"""Crawls become the pool that everything is selected from."""

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from clipcov_assets.assets.embeddings import PROXY
from clipcov_assets.assets.groups import OWNERS, POOL
from clipcov_assets.assets.latent_classes import class_size_table
from clipcov_assets.automation import when_inputs_change
from clipcov_assets.core.statistics import class_statistics
from clipcov_assets.partitions import crawl_order, crawls
from clipcov_assets.pool_tables import (
    CLASS_EMBEDDINGS,
    STATISTICS,
    PooledCrawl,
    gather,
    load_pool,
    pooled_crawls_metadata,
    statistics_rows,
)
from clipcov_assets.provenance import content_version, latest_input, materialized
from clipcov_assets.tables import POOL as POOL_SCHEMA
from clipcov_assets.tables import column_schema
from resources.lance_store import LanceStore

# What the pool reads of each crawl, and pins by Lance version.
CRAWL_ASSETS = ("raw_pairs", "embeddings", "latent_classes")


@dg.asset(
    partitions_def=crawls,
    deps=["embeddings", "latent_classes"],
    group_name=POOL,
    owners=OWNERS,
    kinds={"lancedb", "arrow"},
    tags={"clipcov/stage": "pool"},
    code_version="1",
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
    pooled, rows = _join_by_uid(store, included)
    for asset, column in (("latent_classes", "latent_class"), ("embeddings", "clip_score")):
        rows = gather(store, pooled, asset, [column], rows)
    written = store.write("pool", crawl, rows, pooled_crawls_metadata(pooled))
    statistics = class_statistics(load_pool(store, crawl))
    store.write(STATISTICS, crawl, statistics_rows(statistics))
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
    proxies = {name: store.metadata("embeddings", name)[PROXY] for name in included}
    if len(set(proxies.values())) > 1:
        listed = ", ".join(f"{name} by {sha256[:12]}" for name, sha256 in proxies.items())
        raise dg.Failure(
            f"a pool cannot mix embeddings of two proxies: {listed}. Materialize the embeddings of these crawls "
            "again with the present proxy_checkpoint",
            allow_retries=False,
        )


def _join_by_uid(store: LanceStore, included: list[str]) -> tuple[list[PooledCrawl], pa.Table]:
    """Columns uid and crawl of the pool, each uid with the oldest crawl that holds it."""
    pooled: list[PooledCrawl] = []
    rows = pa.schema([POOL_SCHEMA.field("uid"), POOL_SCHEMA.field("crawl")]).empty_table()
    for name in included:
        uid = store.read("embeddings", name, ["uid"])["uid"]
        new = uid.filter(pc.invert(pc.is_in(uid, rows["uid"].combine_chunks())))
        added = pa.table({"uid": new, "crawl": pa.array([name] * len(new), pa.string())}, schema=rows.schema)
        rows = pa.concat_tables([rows, added])
        versions = {asset: store.version(asset, name) for asset in CRAWL_ASSETS}
        pooled.append(PooledCrawl(name, len(uid), len(new), versions))
    return pooled, rows


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
            {"crawl": "string", "pairs": "int", "new_pairs": "int", **dict.fromkeys(CRAWL_ASSETS, "int")}
        ),
    )
