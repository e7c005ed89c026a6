"""Facts that must hold for a partition; a failing blocking check keeps the next step from running on it.

Each check reads the stored tables again, so it also finds what happened to them after they were written.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipcov_assets.assets.raw_pairs import DELIVERY_FINGERPRINT, DELIVERY_LOOK
from clipcov_assets.assets.scorecards import scores_table
from clipcov_assets.assets.subsets import subset_size
from clipcov_assets.core.pool import UNIT_TOLERANCE
from clipcov_assets.ingest.delivery import DeliveryError, delivery_fingerprint, look
from clipcov_assets.ingest.find import find_delivery
from clipcov_assets.methods import COMPARED
from clipcov_assets.partitions import crawls, dimension, fractions_of, partitions_of
from clipcov_assets.pool_tables import ROWS_AT_ONCE, pooled_crawls, row_matrix
from clipcov_assets.provenance import latest_input
from clipcov_assets.tables import EMBEDDINGS
from resources.crawl_catalog import CrawlCatalog
from resources.lance_store import LanceStore


def _passes(passed: bool, **metadata: object) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=bool(passed), metadata=dict[str, Any](metadata))


def _unique(uid: pa.ChunkedArray) -> dg.AssetCheckResult:
    distinct = pc.count_distinct(uid).as_py()
    return _passes(distinct == len(uid), rows=len(uid), distinct_uids=distinct)


@dg.asset_check(asset="raw_pairs", partitions_def=crawls, blocking=True)
def unique_uids(context: dg.AssetCheckExecutionContext, store: LanceStore) -> dg.AssetCheckResult:
    """Every uid of the crawl is there once."""
    return _unique(store.read("raw_pairs", context.partition_key, ["uid"])["uid"])


@dg.asset_check(asset="raw_pairs", partitions_def=crawls, blocking=True)
def pairs_accounted_for(context: dg.AssetCheckExecutionContext, store: LanceStore) -> dg.AssetCheckResult:
    """Pairs delivered = pairs stored + pairs already known + pairs quarantined."""
    crawl = context.partition_key
    reported = latest_input(context, "raw_pairs", crawl).metadata
    delivered, known = (int(str(reported[name].value)) for name in ("pairs_in", "pairs_already_known"))
    stored, quarantined = store.row_count("raw_pairs", crawl), store.row_count("quarantine", crawl)
    return _passes(
        delivered == stored + known + quarantined,
        delivered=delivered,
        stored=stored,
        already_known=known,
        quarantined=quarantined,
    )


@dg.asset_check(asset="raw_pairs", partitions_def=crawls, blocking=True)
def few_quarantined(
    context: dg.AssetCheckExecutionContext, store: LanceStore, catalog: CrawlCatalog
) -> dg.AssetCheckResult:
    """The share of quarantined pairs is at most `catalog.most_quarantined`: a crawl with more of them is suspect.

    Look at the reasons on the materialization, then deliver the crawl again, or raise CLIPCOV_MOST_QUARANTINED and
    materialize it once more.
    """
    crawl = context.partition_key
    stored, quarantined = store.row_count("raw_pairs", crawl), store.row_count("quarantine", crawl)
    share = quarantined / max(1, stored + quarantined)
    return _passes(share <= catalog.most_quarantined, share=round(share, 4), most=catalog.most_quarantined)


@dg.asset_check(asset="raw_pairs")
def deliveries_unchanged(context: dg.AssetCheckExecutionContext, catalog: CrawlCatalog) -> dg.AssetCheckResult:
    """No delivery has another content than when it was ingested; a warning, since what was stored is intact.

    A delivery that is touched but equal passes, and so does one that was cleared away. Materialize the raw pairs of a
    crawl that is named here to take its new content over; whatever depends on them follows.
    """
    ingested = context.instance.get_materialized_partitions(dg.AssetKey("raw_pairs"))
    folders = {folder.name: folder for folder in catalog.folders()}
    changed = [crawl for crawl in sorted(ingested & folders.keys()) if _has_changed(context, crawl, folders[crawl])]
    return dg.AssetCheckResult(
        passed=not changed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"changed": ", ".join(changed) or "none", "looked_at": len(ingested & folders.keys())},
    )


def _has_changed(context: dg.AssetCheckExecutionContext, crawl: str, folder: Path) -> bool:
    reported = latest_input(context, "raw_pairs", crawl).metadata
    if reported[DELIVERY_LOOK].value == look(folder):
        return False
    try:
        shards = find_delivery(folder).shards
    except DeliveryError:
        return True
    found = delivery_fingerprint((shard.name, shard.fingerprint()) for shard in shards)
    return bool(reported[DELIVERY_FINGERPRINT].value != found)


@dg.asset_check(asset="embeddings", partitions_def=crawls, blocking=True)
def unit_and_finite(context: dg.AssetCheckExecutionContext, store: LanceStore) -> dg.AssetCheckResult:
    """Every embedding is finite and of length 1."""
    worst = 0.0
    for batch in store.stream("embeddings", context.partition_key, EMBEDDINGS, batch_size=ROWS_AT_ONCE):
        for column in EMBEDDINGS:
            rows = row_matrix(batch[column]).astype(np.float32)
            distance = np.abs(np.linalg.norm(rows, axis=1) - 1)
            worst = max(worst, float(distance.max()) if np.isfinite(distance).all() else np.inf)
    return _passes(worst <= UNIT_TOLERANCE, largest_distance_from_unit=str(worst))


@dg.asset_check(asset="embeddings", partitions_def=crawls, blocking=True)
def one_embedding_a_pair(context: dg.AssetCheckExecutionContext, store: LanceStore) -> dg.AssetCheckResult:
    """As many embeddings as pairs."""
    return _equal_counts(store, context.partition_key, "raw_pairs", "embeddings")


@dg.asset_check(asset="latent_classes", partitions_def=crawls, blocking=True)
def one_class_a_pair(context: dg.AssetCheckExecutionContext, store: LanceStore) -> dg.AssetCheckResult:
    """As many latent classes as embeddings."""
    return _equal_counts(store, context.partition_key, "embeddings", "latent_classes")


def _equal_counts(store: LanceStore, crawl: str, before: str, after: str) -> dg.AssetCheckResult:
    counts = {asset: store.row_count(asset, crawl) for asset in (before, after)}
    return _passes(counts[before] == counts[after], **counts)


@dg.asset_check(asset="pool", partitions_def=crawls, blocking=True)
def unique_pool_uids(context: dg.AssetCheckExecutionContext, store: LanceStore) -> dg.AssetCheckResult:
    """Every uid of the pool is there once, whichever crawls deliver it."""
    return _unique(store.read("pool", context.partition_key, ["uid"])["uid"])


@dg.asset_check(asset="pool", partitions_def=crawls, blocking=True)
def pool_counts_match(context: dg.AssetCheckExecutionContext, store: LanceStore) -> dg.AssetCheckResult:
    """The pool holds what its crawls brought that was new, no more and no less."""
    crawl = context.partition_key
    expected = sum(one.new_pairs for one in pooled_crawls(store, crawl))
    return _passes(store.row_count("pool", crawl) == expected, pairs=store.row_count("pool", crawl), expected=expected)


def ranking_check(method: str) -> dg.AssetChecksDefinition:
    """A ranking holds every pair of its pool once, with ranks 0 to n - 1."""

    @dg.asset_check(asset=f"{method}_ranking", name="ranks_every_pair_once", partitions_def=crawls, blocking=True)
    def ranks_every_pair_once(context: dg.AssetCheckExecutionContext, store: LanceStore) -> dg.AssetCheckResult:
        """The ranking holds every pair of the pool once, with ranks 0 to n - 1."""
        ranking = store.read(f"{method}_ranking", context.partition_key, ["uid", "rank"]).sort_by("rank")
        pool = store.read("pool", context.partition_key, ["uid"])["uid"]
        ranks = ranking["rank"].to_numpy()
        complete = np.array_equal(ranks, np.arange(len(pool)))
        return _passes(complete and ranking["uid"].sort().equals(pool.sort()), ranked=len(ranking), pool=len(pool))

    return ranks_every_pair_once


def subset_check(method: str) -> dg.AssetChecksDefinition:
    """A subset is the head of its ranking, of the exact size, inside its pool."""

    @dg.asset_check(
        asset=f"{method}_subset",
        name="head_of_its_ranking",
        partitions_def=partitions_of(method),
        blocking=True,
    )
    def head_of_its_ranking(context: dg.AssetCheckExecutionContext, store: LanceStore) -> dg.AssetCheckResult:
        """The subset is the head of its ranking, has floor(fraction x n) pairs and lies inside its pool."""
        crawl = dimension(context, "crawl")
        subset = store.read(f"{method}_subset", context.partition_key, ["uid", "rank"]).sort_by("rank")["uid"]
        pool = store.read("pool", crawl, ["uid"])["uid"].sort()
        ranking = (
            pool if method == "full" else store.read(f"{method}_ranking", crawl, ["uid", "rank"]).sort_by("rank")["uid"]
        )
        size = subset_size(fractions_of(method)[dimension(context, "fraction")], len(pool))
        outside = len(subset) - int(pc.sum(pc.is_in(subset, value_set=pool.combine_chunks())).as_py())
        head = subset.equals(ranking.slice(0, len(subset)))
        return _passes(
            head and len(subset) == size and not outside,
            pairs=len(subset),
            wanted=size,
            outside_pool=outside,
            head=head,
        )

    return head_of_its_ranking


def loss_check(asset: str, partitions: dg.PartitionsDefinition) -> dg.AssetChecksDefinition:
    """Every loss of a training is finite."""

    @dg.asset_check(asset=asset, name="finite_losses", partitions_def=partitions, blocking=True)
    def finite_losses(context: dg.AssetCheckExecutionContext, store: LanceStore) -> dg.AssetCheckResult:
        """The training took at least one step and every loss is finite."""
        losses = store.read(asset, context.partition_key, ["loss"])["loss"].to_numpy()
        return _passes(len(losses) > 0 and np.isfinite(losses).all(), steps=len(losses))

    return finite_losses


def scorecard_check(method: str) -> dg.AssetChecksDefinition:
    """Accuracy is above chance; a warning, since a tiny subset may honestly be at chance."""

    @dg.asset_check(asset=f"{method}_scorecard", name="above_chance", partitions_def=partitions_of(method))
    def above_chance(context: dg.AssetCheckExecutionContext, store: LanceStore) -> dg.AssetCheckResult:
        """The main metric lies above chance on every evaluation set, with its whole 95 % interval; a warning only."""
        rows = [row for row in store.read(scores_table(method), context.partition_key).to_pylist() if row["is_main"]]
        below = [row["evaluation_set"] for row in rows if row["low"] <= row["chance"]]
        return dg.AssetCheckResult(
            passed=not below,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"not_above_chance": ", ".join(below) or "none"},
        )

    return above_chance


def all_checks() -> list[dg.AssetChecksDefinition]:
    """Every check of the graph, in the order of the road."""
    of_crawls = [
        unique_uids,
        pairs_accounted_for,
        few_quarantined,
        deliveries_unchanged,
        unit_and_finite,
        one_embedding_a_pair,
        one_class_a_pair,
        unique_pool_uids,
        pool_counts_match,
    ]
    factories: list[Callable[[str], dg.AssetChecksDefinition]] = [subset_check, scorecard_check]
    return [
        *of_crawls,
        *(ranking_check(method) for method in COMPARED if method != "full"),
        loss_check("partial_checkpoint", crawls),
        *(loss_check(f"{method}_checkpoint", partitions_of(method)) for method in COMPARED),
        *(factory(method) for factory in factories for method in COMPARED),
    ]
