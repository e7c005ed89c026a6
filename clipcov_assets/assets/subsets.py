"""A ranking becomes subsets: the heads of its order."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipcov_assets.assets.groups import SUBSETS
from clipcov_assets.assets.road_asset import road_asset
from clipcov_assets.automation import reselect
from clipcov_assets.core.churn import Churn, churn
from clipcov_assets.core.covariance import cross_covariance, cross_covariance_error
from clipcov_assets.core.subset import subset_sums
from clipcov_assets.export.gallery import gallery_markdown
from clipcov_assets.export.gallery_page import gallery_page
from clipcov_assets.galleries import gallery_name, gallery_of
from clipcov_assets.methods import COMPARED
from clipcov_assets.partitions import dimension, fractions_of, of_crawl, partitions_of, the_crawl
from clipcov_assets.pool_tables import (
    POOL_PRODUCTS,
    PooledClasses,
    class_names,
    load_cross_products,
    places_of,
    pooled_crawls,
)
from clipcov_assets.provenance import content_version, latest_input, legible, materialized
from clipcov_assets.subset_pairs import pairs_of_pool
from clipcov_assets.tables import RANKING, column_schema
from resources.lance_store import LanceStore
from resources.report_shelf import ReportShelf

SHOWN_PAIRS = 8
CHANGED_CLASSES = 30
NO_CLASS = -1  # a pair that was withdrawn, and whose pool has it no more either


def subset_size(fraction: float, pairs: int) -> int:
    """floor(fraction * pairs), at least 1; the fraction counts as the decimal it is written as: 29 % of 100 is 29."""
    return max(1, math.floor(fraction * pairs + 1e-9))


def subset_asset(method: str) -> dg.AssetsDefinition:
    """The subsets of one method as an asset, one partition for each crawl and fraction."""
    source = "pool" if method == "full" else f"{method}_ranking"

    @road_asset(
        name=f"{method}_subset",
        partitions_def=partitions_of(method),
        deps=[dg.AssetDep(source, partition_mapping=the_crawl)],
        group_name=SUBSETS,
        kinds={"lancedb"},
        stage="select",
        method=method,
        code_version="1",
        automation_condition=reselect,
        metadata={"dagster/column_schema": column_schema(RANKING)},
        description=(
            "The whole pool, to train the model that every subset is measured against: the upper line of a comparison."
            if method == "full"
            else f"The first floor(fraction x n) pairs of {method}'s ranking, to train on.\n\n"
            "Beside the pairs: latent classes covered, ClipCov's objective, how far the image-text cross-covariance "
            "is from the pool's, overlap with the other methods, and what changed against the previous crawl."
        ),
    )
    def subset(context: dg.AssetExecutionContext, store: LanceStore, shelf: ReportShelf) -> dg.MaterializeResult:
        crawl, fraction = dimension(context, "crawl"), dimension(context, "fraction")
        rows = _whole(store, crawl) if method == "full" else _ranking(store, method, crawl)
        rows = rows.slice(0, subset_size(fractions_of(method)[fraction], len(rows)))
        written = store.write(f"{method}_subset", context.partition_key, rows)
        return materialized(
            written,
            content_version(rows),
            inputs=(latest_input(context, source, crawl),),
            metadata={
                **describe_subset(store, method, crawl, fraction, rows),
                **shelve_gallery(context.log, store, shelf, f"{method}_subset", context.partition_key),
            },
        )

    return subset


def describe_subset(store: LanceStore, method: str, crawl: str, fraction: str, rows: pa.Table) -> dict[str, Any]:
    """What Dagster shows of a subset: its size, what it keeps of the pool, its first picks, and what changed.

    Args:
        store: Holds the pool, the rankings and the earlier subsets, whose tables are called `<method>_subset`.
        method: Selection method, or the name of another kind of subset: it has no threshold and no ranking.
        crawl: Newest crawl of the pool.
        fraction: Partition key of the fraction, such as `f20`.
        rows: The subset, in the columns of RANKING and the order of the ranks.

    Raises:
        KeyError: The pool is not materialized.
        ValueError: There are no pairs, or one is not in the pool.
    """
    pool = store.read("pool", crawl, ["uid", "latent_class"])
    places = places_of(rows["uid"], pool["uid"], f"the pool of {crawl}").to_numpy()
    return {
        "pairs": len(rows),
        "fraction": fractions_of(method)[fraction],
        **_quality(store, crawl, np.isin(np.arange(len(pool)), places)),
        **_implied_threshold(method, rows),
        **_overlaps(store, method, crawl, rows["uid"], pairs=len(pool)),
        "first_picks": _first_picks(store, crawl, rows["uid"]),
        **_churn_metadata(store, f"{method}_subset", crawl, fraction, pool, places),
    }


def shelve_gallery(
    log: logging.Logger, store: LanceStore, shelf: ReportShelf, asset: str, partition: str
) -> dict[str, Any]:
    """Put the gallery of a subset, which is written already, on the shelf and link to it.

    A subset is whole without its pictures: where they cannot be shown, a warning says why, and there is no link.
    """
    try:
        name = gallery_name(asset, partition)
        shelf.write(name, gallery_page(gallery_of(store, asset, partition)).encode())
    except Exception as error:  # images and captions of all kinds are read and drawn
        log.warning(f"no gallery of {asset} {partition}: {type(error).__name__}: {error}")
        return {}
    return {"gallery": dg.MetadataValue.url(shelf.address(name))}


def _ranking(store: LanceStore, method: str, crawl: str) -> pa.Table:
    return store.read(f"{method}_ranking", crawl, RANKING.names).sort_by("rank")


def _whole(store: LanceStore, crawl: str) -> pa.Table:
    uid = store.read("pool", crawl, ["uid"])["uid"].sort()
    return pa.table({"uid": uid, "rank": np.arange(len(uid)), "gain": np.zeros(len(uid), np.float32)}, schema=RANKING)


def _quality(store: LanceStore, crawl: str, chosen: np.ndarray) -> dict[str, object]:
    """What the subset keeps of the pool, method by method comparable; one class at a time is in memory."""
    pooled = PooledClasses(store, crawl)
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
    threshold = COMPARED[method].threshold if method in COMPARED else None
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


def _overlaps(store: LanceStore, method: str, crawl: str, uid: pa.ChunkedArray, *, pairs: int) -> dict[str, float]:
    """Share of the subset that each other method, where it has ranked this pool, would pick at this size."""
    found = {}
    for other in COMPARED if method != "full" else ():
        if other not in (method, "full") and store.exists(f"{other}_ranking", crawl):
            ranking = store.rows(f"{other}_ranking", crawl)
            if len(ranking) == pairs:  # else it is of an earlier pool, and about to be made again
                head = ranking.slice(0, len(uid), ["uid"])["uid"].combine_chunks()
                found[f"overlap/{other}"] = round(pc.sum(pc.is_in(uid, value_set=head)).as_py() / len(uid), 4)
    return found


def _churn_metadata(
    store: LanceStore, asset: str, crawl: str, fraction: str, pool: pa.Table, places: np.ndarray
) -> dict[str, object]:
    """What changed against the same fraction of the newest earlier crawl of the pool that has one."""
    earlier = [one.crawl for one in pooled_crawls(store, crawl)][-2::-1]
    previous = next((one for one in earlier if store.exists(asset, of_crawl(one, fraction))), None)
    if previous is None:
        return {}
    names = class_names(store, crawl)
    before = store.read(asset, of_crawl(previous, fraction), ["uid"])["uid"]
    found = _churn(store, previous, before, names, pool, places)
    return {
        "previous_crawl": previous,
        "kept": int(found.kept.sum()),
        "added": int(found.added.sum()),
        "dropped": int(found.dropped.sum()),
        "dropped/below_the_cut": int(found.below_the_cut.sum()),
        "dropped/withdrawn": int(found.withdrawn.sum()),
        "kept_share": legible(found.kept_share),
        "jaccard": legible(found.jaccard),
        "churn": _churn_table(found, names),
    }


def _churn(
    store: LanceStore,
    previous: str,
    before: pa.ChunkedArray,
    names: Sequence[str],
    pool: pa.Table,
    places: np.ndarray,
) -> Churn:
    """Compare an earlier subset with the places that a subset takes in its pool."""
    found = pc.index_in(before, value_set=pool["uid"].combine_chunks())
    in_pool = pc.is_valid(found).to_numpy()
    # A pair stands for its place in the pool; one that is withdrawn, for a number after all of them.
    pairs, class_before = len(pool) + np.arange(len(before)), np.empty(len(before), np.int64)
    pairs[in_pool] = found.drop_null().to_numpy()
    latent_class = pool["latent_class"].to_numpy()
    class_before[in_pool] = latent_class[pairs[in_pool]]
    if not in_pool.all():
        class_before[~in_pool] = _earlier_classes(store, previous, before.filter(pc.is_null(found)), names)
    return churn(pairs, places, class_before=class_before, class_now=latent_class[places], in_pool=in_pool)


def _earlier_classes(store: LanceStore, crawl: str, uid: pa.ChunkedArray, names: Sequence[str]) -> np.ndarray:
    """Which of the latent classes some pairs of an earlier pool had; NO_CLASS where neither it nor `names` tells."""
    if not store.exists("pool", crawl):
        return np.full(len(uid), NO_CLASS)
    pool = store.read("pool", crawl, ["uid", "latent_class"])
    latent_class = pool["latent_class"].take(pc.index_in(uid, value_set=pool["uid"].combine_chunks()))
    known = pc.index_in(pa.array(class_names(store, crawl)).take(latent_class), value_set=pa.array(names))
    classes: np.ndarray = pc.fill_null(known, NO_CLASS).to_numpy()
    return classes


def _churn_table(found: Churn, names: Sequence[str]) -> dg.TableMetadataValue:
    """The latent classes with most change."""
    numbers = ("before", "now", "kept", "added", "dropped")
    rows = found.most_changed(CHANGED_CLASSES)
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "latent_class": "unknown"
                    if found.latent_class[row] == NO_CLASS
                    else names[found.latent_class[row]],
                    **{number: int(getattr(found, number)[row]) for number in numbers},
                }
            )
            for row in rows
        ],
        schema=dg.TableSchema.from_name_type_dict({"latent_class": "string", **dict.fromkeys(numbers, "int")}),
    )
