"""Facts that must hold for a partition; a failing blocking check keeps the next step from running on it.

Each check reads the stored tables again, so it also finds what happened to them after they were written.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipcov_assets.assets.raw_pairs import DELIVERY_FINGERPRINT, DELIVERY_LOOK
from clipcov_assets.assets.subsets import subset_size
from clipcov_assets.core.pool import UNIT_TOLERANCE
from clipcov_assets.core.set_algebra import Combination
from clipcov_assets.ingest.delivery import DeliveryError, delivery_fingerprint
from clipcov_assets.ingest.find import find_delivery
from clipcov_assets.jobs.fetch import look_again
from clipcov_assets.methods import COMBINED, COMPARED, SELECTIONS
from clipcov_assets.partitions import crawl_order, crawls, dimension, fractions_of, partitions_of
from clipcov_assets.pool_tables import ROWS_AT_ONCE, pooled_crawls, row_matrix
from clipcov_assets.provenance import latest_input
from clipcov_assets.tables import EMBEDDINGS, scores_table
from resources.crawl_catalog import CrawlCatalog
from resources.lance_store import LanceStore

# Whether a combination holds a pair, by whether its two subsets do.
HOLDS: dict[str, np.ufunc] = {"&": np.logical_and, "|": np.logical_or, "-": np.greater}
MOST_LOOKED_AT, LOOKS_AT_ONCE = 30, 8  # deliveries of `deliveries_unchanged`


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
    """The newest 30 deliveries have the content that was ingested; else a warning, since what was stored is intact.

    Names, sizes and times of their files are looked at; older crawls are not. Where these differ in a directory, the
    files are read: a delivery that is touched but equal passes. Of one in an object store nothing is downloaded here,
    so a touched one is a warning. One that was cleared away or withdrawn passes. Materialize the raw pairs of a crawl
    that is named here to take its new content over; whatever depends on them follows, and equal content changes
    nothing.
    """
    ingested = context.instance.get_materialized_partitions(dg.AssetKey("raw_pairs"))
    try:
        there = sorted(ingested & set(catalog.crawls()), key=crawl_order)
    except OSError as error:
        return _warns_unless(False, not_reached=str(error), looked_at=0)
    newest = there[-MOST_LOOKED_AT:]
    with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        looks = dict(zip(newest, pool.map(partial(_look, catalog), newest), strict=True))
    found = {crawl: _standing(context, catalog, crawl, look) for crawl, look in looks.items()}
    named = {
        word: [crawl for crawl in newest if found[crawl] == word] for word in ("changed", "touched", "not_reached")
    }
    return _warns_unless(
        not any(named.values()),
        **{word: ", ".join(ones) or "none" for word, ones in named.items()},
        looked_at=len(newest),
        older_and_not_looked_at=len(there) - len(newest),
    )


def _warns_unless(passed: bool, **metadata: object) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=passed, severity=dg.AssetCheckSeverity.WARN, metadata=dict[str, Any](metadata))


def _look(catalog: CrawlCatalog, crawl: str) -> str | None:
    """What a delivery looks like now; None where it cannot be reached."""
    try:
        return look_again(catalog, crawl)
    except OSError:
        return None


def _standing(context: dg.AssetCheckExecutionContext, catalog: CrawlCatalog, crawl: str, look: str | None) -> str:
    """How a delivery stands to what was ingested, in one word."""
    if look is None:
        return "not_reached"
    reported = latest_input(context, "raw_pairs", crawl).metadata
    if reported[DELIVERY_LOOK].value == look:
        return "unchanged"
    if catalog.is_remote:
        return "touched"
    try:
        shards = find_delivery(catalog.folder(crawl)).shards
    except DeliveryError:
        return "changed"
    found = delivery_fingerprint((shard.name, shard.fingerprint()) for shard in shards)
    return "unchanged" if reported[DELIVERY_FINGERPRINT].value == found else "changed"


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


def combination_check(combination: Combination) -> dg.AssetChecksDefinition:
    """A combined subset holds what the subsets of its two methods say, each pair once."""

    @dg.asset_check(
        asset=f"{combination.name}_subset",
        name="combines_its_subsets",
        partitions_def=partitions_of(combination.name),
        blocking=True,
        description=f"The subset holds exactly this, each pair once, with ranks 0 to n - 1: {combination.summary}",
    )
    def combines_its_subsets(context: dg.AssetCheckExecutionContext, store: LanceStore) -> dg.AssetCheckResult:
        names = (*combination.methods, combination.name)
        *parts, rows = (store.read(f"{name}_subset", context.partition_key, ["uid", "rank"]) for name in names)
        first, second, subset = (one["uid"].combine_chunks() for one in (*parts, rows))
        either = pa.concat_arrays([first, second]).unique()
        in_first, in_second, held = (
            pc.is_in(either, value_set=one).to_numpy(zero_copy_only=False) for one in (first, second, subset)
        )
        wrong = int(np.count_nonzero(held != HOLDS[combination.operator](in_first, in_second)))
        outside = len(subset) - int(pc.sum(pc.is_in(subset, value_set=either)).as_py() or 0)
        once = len(subset.unique()) == len(subset)
        ranked = np.array_equal(np.sort(rows["rank"].to_numpy()), np.arange(len(subset)))
        return _passes(
            once and ranked and not wrong and not outside,
            pairs=len(subset),
            missing_or_too_many=wrong,
            in_neither_subset=outside,
            each_pair_once=once,
            ranked=ranked,
        )

    return combines_its_subsets


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
    return [
        *of_crawls,
        *(ranking_check(method) for method in COMPARED if method != "full"),
        loss_check("partial_checkpoint", crawls),
        *(loss_check(f"{name}_checkpoint", partitions_of(name)) for name in SELECTIONS),
        *(subset_check(method) for method in COMPARED),
        *map(combination_check, COMBINED.values()),
        *(scorecard_check(name) for name in SELECTIONS),
    ]
