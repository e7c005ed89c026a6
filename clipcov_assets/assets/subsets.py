"""A ranking becomes subsets: the heads of its order."""

import math

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipcov_assets.assets.groups import OWNERS, SUBSETS
from clipcov_assets.automation import when_inputs_change
from clipcov_assets.core.covariance import cross_covariance, cross_covariance_error
from clipcov_assets.core.subset import subset_sums
from clipcov_assets.export.gallery import gallery_markdown
from clipcov_assets.methods import COMPARED
from clipcov_assets.partitions import dimension, fractions_of, of_crawl, partitions_of, the_crawl
from clipcov_assets.pool_tables import (
    POOL_PRODUCTS,
    PooledClasses,
    load_cross_products,
    pooled_crawls,
)
from clipcov_assets.provenance import content_version, latest_input, materialized
from clipcov_assets.subset_pairs import pairs_of_pool
from clipcov_assets.tables import RANKING, column_schema
from resources.lance_store import LanceStore

SHOWN_PAIRS = 8


def subset_size(fraction: float, pairs: int) -> int:
    """floor(fraction * pairs), at least 1; the fraction counts as the decimal it is written as: 29 % of 100 is 29."""
    return max(1, math.floor(fraction * pairs + 1e-9))


def subset_asset(method: str) -> dg.AssetsDefinition:
    """The subsets of one method as an asset, one partition for each crawl and fraction."""
    source = "pool" if method == "full" else f"{method}_ranking"

    @dg.asset(
        name=f"{method}_subset",
        partitions_def=partitions_of(method),
        deps=[dg.AssetDep(source, partition_mapping=the_crawl)],
        group_name=SUBSETS,
        owners=OWNERS,
        kinds={"lancedb"},
        tags={"clipcov/stage": "select", "clipcov/method": method},
        code_version="1",
        automation_condition=when_inputs_change,
        metadata={"dagster/column_schema": column_schema(RANKING)},
        description=(
            "The whole pool, to train the model that every subset is measured against: the upper line of a comparison."
            if method == "full"
            else f"The first floor(fraction x n) pairs of {method}'s ranking, to train on.\n\n"
            "Beside the pairs: latent classes covered, ClipCov's objective, how far the image-text cross-covariance "
            "is from the pool's, overlap with the other methods, and what changed against the previous crawl."
        ),
    )
    def subset(context: dg.AssetExecutionContext, store: LanceStore) -> dg.MaterializeResult:
        crawl, fraction = dimension(context, "crawl"), dimension(context, "fraction")
        rows = _whole(store, crawl) if method == "full" else _ranking(store, method, crawl)
        rows = rows.slice(0, subset_size(fractions_of(method)[fraction], len(rows)))
        written = store.write(f"{method}_subset", context.partition_key, rows)
        return materialized(
            written,
            content_version(rows),
            inputs=(latest_input(context, source, crawl),),
            metadata={
                "pairs": len(rows),
                "fraction": fractions_of(method)[fraction],
                **_quality(store, crawl, rows["uid"]),
                **_implied_threshold(method, rows),
                **_overlaps(store, method, crawl, rows["uid"]),
                "first_picks": _first_picks(store, crawl, rows["uid"]),
                **_churn(store, method, crawl, fraction, rows["uid"]),
            },
        )

    return subset


def _ranking(store: LanceStore, method: str, crawl: str) -> pa.Table:
    return store.read(f"{method}_ranking", crawl, RANKING.names).sort_by("rank")


def _whole(store: LanceStore, crawl: str) -> pa.Table:
    uid = store.read("pool", crawl, ["uid"])["uid"].sort()
    return pa.table({"uid": uid, "rank": np.arange(len(uid)), "gain": np.zeros(len(uid), np.float32)}, schema=RANKING)


def _quality(store: LanceStore, crawl: str, uid: pa.ChunkedArray) -> dict[str, object]:
    """What the subset keeps of the pool, method by method comparable; one class at a time is in memory."""
    pooled = PooledClasses(store, crawl)
    chosen = pc.is_in(store.read("pool", crawl, ["uid"])["uid"], value_set=uid.combine_chunks()).to_numpy()
    pool = cross_covariance(load_cross_products(store, POOL_PRODUCTS, crawl), pooled.statistics)
    found = subset_sums(pooled.runs(), pooled.load, chosen, pooled.statistics, pooled.class_embeddings)
    covered = int((found.statistics.counts > 0).sum())
    return {
        "latent_classes_covered": covered,
        "class_coverage": round(covered / int(np.count_nonzero(pooled.statistics.counts)), 4),
        "objective": round(found.objective, 4),
        "cross_covariance_error": round(
            cross_covariance_error(cross_covariance(found.products, found.statistics), pool), 4
        ),
    }


def _implied_threshold(method: str, rows: pa.Table) -> dict[str, float]:
    """The threshold with which the method, run as its authors do, would have kept this subset."""
    threshold = COMPARED[method].threshold
    if threshold is None:
        return {}
    name, implied = threshold
    return {f"implied_{name}": implied(rows["gain"][-1].as_py())}


def _first_picks(store: LanceStore, crawl: str, uid: pa.ChunkedArray) -> dg.MarkdownMetadataValue:
    """Thumbnails and captions of the first picks, in the order of the ranking."""
    first = uid.slice(0, SHOWN_PAIRS)
    found = pairs_of_pool(store, crawl, first)
    pairs = {row["uid"]: row for row in found.read(np.arange(len(found)), ["uid", "caption", "image"]).to_pylist()}
    shown = [pairs[one] for one in first.to_pylist()]
    return dg.MetadataValue.md(gallery_markdown((one["image"], one["caption"]) for one in shown))


def _overlaps(store: LanceStore, method: str, crawl: str, uid: pa.ChunkedArray) -> dict[str, float]:
    """Share of the subset that each other method, where it has a ranking of this crawl, would pick at this size."""
    if method == "full":
        return {}
    others = [name for name in COMPARED if name not in (method, "full") and store.exists(f"{name}_ranking", crawl)]
    return {f"overlap/{name}": round(_shared(store, name, crawl, uid) / len(uid), 4) for name in others}


def _shared(store: LanceStore, method: str, crawl: str, uid: pa.ChunkedArray) -> int:
    head = store.rows(f"{method}_ranking", crawl).slice(0, len(uid), ["uid"])["uid"]
    return int(pc.sum(pc.is_in(uid, value_set=head.combine_chunks())).as_py())


def _churn(store: LanceStore, method: str, crawl: str, fraction: str, uid: pa.ChunkedArray) -> dict[str, object]:
    """Pairs kept, added and dropped against the same fraction of the crawl before this one in the pool."""
    earlier = [one.crawl for one in pooled_crawls(store, crawl)][:-1]
    if not earlier or not store.exists(f"{method}_subset", of_crawl(earlier[-1], fraction)):
        return {}
    before = store.read(f"{method}_subset", of_crawl(earlier[-1], fraction), ["uid"])["uid"]
    kept = int(pc.sum(pc.is_in(uid, value_set=before.combine_chunks())).as_py())
    return {
        "previous_crawl": earlier[-1],
        "kept": kept,
        "added": len(uid) - kept,
        "dropped": len(before) - kept,
    }
