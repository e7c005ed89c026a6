"""The jobs that people start, each named for what it does, with fields that say what they take.

A job that covers partitions of several kinds starts a backfill, which Dagster shows as one piece of work.
"""

import time
from collections.abc import Iterator, Mapping

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.definitions.partitions.subset import PartitionsSubset
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.utils import make_new_backfill_id
from pydantic import Field

from clipcov_assets.export.subset_files import FORMATS
from clipcov_assets.methods import COMBINED, COMPARED, SELECTIONS
from clipcov_assets.partitions import (
    FRACTIONS,
    class_shards,
    crawl_by_shard,
    crawl_order,
    crawls,
    fractions_of,
    of_crawl,
    partitions_of,
)
from clipcov_assets.scales import SCALE
from resources.crawl_catalog import CrawlCatalog
from resources.report_shelf import ReportShelf

NEWEST = "The newest crawl with a pool where empty."
TRAINED = [name for name, share in FRACTIONS.items() if share in SCALE.trained.fractions]


class Reselect(dg.Config):
    """What is selected anew."""

    crawl: str = Field(default="", description=f"Crawl whose pool, rankings and subsets are made again. {NEWEST}")


class TrainAndScore(dg.Config):
    """What is trained and scored."""

    crawl: str = Field(default="", description=f"Crawl whose subsets are trained on. {NEWEST}")
    methods: list[str] = Field(
        default=list(SCALE.trained.methods),
        description=f"Any of {', '.join(SELECTIONS)}; by default those that CLIPCOV_TRAINED_METHODS names.",
    )
    fractions: list[str] = Field(default=TRAINED, description=f"Any of {', '.join(FRACTIONS)}; `full` has its own.")
    again: bool = Field(default=False, description="Train and score again what has a checkpoint already.")


class Export(dg.Config):
    """What leaves for other tools."""

    crawl: str = Field(default="", description=f"Crawl of the subset. {NEWEST}")
    method: str = Field(default="clipcov", description=f"One of {', '.join(SELECTIONS)}.")
    fraction: str = Field(default=next(iter(FRACTIONS)), description=f"One of {', '.join(FRACTIONS)}; f100 for full.")
    formats: list[str] = Field(default=["parquet"], description=f"Any of {', '.join(FORMATS)}.")


class Withdraw(dg.Config):
    """What is taken back."""

    # Empty ones are refused; they are there because a launchpad shows fields that have a default.
    crawl: str = Field(default="", description="Crawl that is no longer selected from.")
    reason: str = Field(default="", description="Why, for whoever looks for it later.")


@dg.op(out=dg.Out(dg.Nothing))
def start_reselection(context: dg.OpExecutionContext, config: Reselect, shelf: ReportShelf) -> None:
    """Start the backfill of a crawl's pool, rankings and subsets."""
    crawl = chosen_crawl(context.instance, config.crawl)
    check_made(context.instance, "latent_classes", [crawl])
    work = {"pool": crawls.subset_with_partition_keys([crawl])}
    if "clipcov" in COMPARED:
        shards = [of_crawl(crawl, shard) for shard in class_shards.get_partition_keys()]
        work["clipcov_class_ranking"] = crawl_by_shard.subset_with_partition_keys(shards)
    for method in SELECTIONS:
        if method in COMPARED and method != "full" and is_ready(context.instance, method, crawl):
            work[f"{method}_ranking"] = work["pool"]
        if method == "full" or is_ready(context.instance, method, crawl):
            work[f"{method}_subset"] = partitions_of(method).subset_with_partition_keys(
                [of_crawl(crawl, fraction) for fraction in fractions_of(method)]
            )
    start(context, f"reselect {crawl}", work, {"clipcov/crawl": crawl}, shelf)


@dg.op(out=dg.Out(dg.Nothing))
def start_training(context: dg.OpExecutionContext, config: TrainAndScore, shelf: ReportShelf) -> None:
    """Start the backfill of checkpoints and scorecards."""
    crawl = chosen_crawl(context.instance, config.crawl)
    check_known("method", config.methods, SELECTIONS)
    check_known("fraction", config.fractions, FRACTIONS)
    work: dict[str, PartitionsSubset] = {}
    for method in config.methods:
        wanted = [of_crawl(crawl, one) for one in fractions_of(method) if method == "full" or one in config.fractions]
        check_made(context.instance, f"{method}_subset", wanted)
        trained, scored = (made(context.instance, f"{method}_{noun}") for noun in ("checkpoint", "scorecard"))
        untrained = [one for one in wanted if config.again or one not in trained]
        # A scorecard that is older than its checkpoint is one of the weights before.
        unscored = [one for one in wanted if one in untrained or scored.get(one, 0) < trained[one]]
        for noun, lacking in (("checkpoint", untrained), ("scorecard", unscored)):
            if lacking:
                work[f"{method}_{noun}"] = partitions_of(method).subset_with_partition_keys(lacking)
    if not work:
        context.log.info(f"all of it is trained and scored for {crawl}: set `again` to train and score it again")
        return
    start(context, f"train and score {crawl}", work, {"clipcov/crawl": crawl}, shelf)


@dg.op(out=dg.Out(dg.Nothing))
def start_export(context: dg.OpExecutionContext, config: Export, shelf: ReportShelf) -> None:
    """Start the export of one subset."""
    check_known("method", [config.method], SELECTIONS)
    check_known("fraction", [config.fraction], fractions_of(config.method))
    check_known("format", config.formats, FORMATS)
    crawl = chosen_crawl(context.instance, config.crawl)
    partition, asset = of_crawl(crawl, config.fraction), f"{config.method}_export"
    check_made(context.instance, f"{config.method}_subset", [partition])
    run_config = {"ops": {asset: {"config": {"formats": config.formats}}}}
    work = {asset: partitions_of(config.method).subset_with_partition_keys([partition])}
    start(context, f"export {config.method} {crawl} {config.fraction}", work, {}, shelf, run_config)


@dg.op(out=dg.Out(dg.Nothing))
def take_back(context: dg.OpExecutionContext, config: Withdraw, catalog: CrawlCatalog) -> None:
    """Mark the crawl and delete its partitions; tables and reports of the past stay as they are."""
    crawl, instance = config.crawl, context.instance
    check_crawl(instance, crawl)
    check_idle(instance, crawl)
    catalog.withdraw(crawl, config.reason)
    instance.delete_dynamic_partition("crawl", crawl)
    context.log.info(f"{crawl} is withdrawn: {config.reason}. The newest pool is made again without it by itself")


@dg.job(
    description="Make pool, rankings and subsets of a crawl anew. By themselves they follow changed inputs and code."
)
def reselect() -> None:
    """One op that starts a backfill."""
    start_reselection()


@dg.job(description="Train on subsets of a crawl and score them; by default what the policy names and lacks.")
def train_and_score() -> None:
    """One op that starts a backfill."""
    start_training()


@dg.job(description="Write a subset as files for other tools.")
def export() -> None:
    """One op that starts a backfill."""
    start_export()


@dg.job(description="Take a crawl back: the newest pool is made again without it. Tables and past results stay.")
def withdraw() -> None:
    """One op that marks the crawl and deletes its partitions."""
    take_back()


look_at_deliveries = dg.define_asset_job(
    "look_at_deliveries",
    selection=dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("raw_pairs"), "deliveries_unchanged")),
    description="Find deliveries whose content is no longer what was ingested.",
)
early_look = dg.ScheduleDefinition(
    name="early_look_at_deliveries",
    job=look_at_deliveries,
    cron_schedule="0 5 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every morning: find deliveries that changed under the same name.",
)


def start(
    context: dg.OpExecutionContext,
    title: str,
    work: Mapping[str, PartitionsSubset],
    tags: Mapping[str, str],
    shelf: ReportShelf,
    run_config: Mapping[str, object] | None = None,
) -> None:
    """Start a backfill of partitions, asset by asset, and say where it is seen."""
    backfill = PartitionBackfill.from_asset_graph_subset(
        backfill_id=make_new_backfill_id(),
        backfill_timestamp=time.time(),
        tags=dict(tags),
        dynamic_partitions_store=context.instance,
        asset_graph_subset=AssetGraphSubset({dg.AssetKey(asset): one for asset, one in work.items()}),  # type: ignore[call-arg]
        title=title,
        description=None,
        run_config=run_config,
    )
    context.instance.add_backfill(backfill)
    context.add_output_metadata(
        {
            "started": dg.MetadataValue.url(f"{shelf.dagster_ui}/runs/b/{backfill.backfill_id}"),
            "partitions": sum(map(len, work.values())),
        }
    )


def chosen_crawl(instance: dg.DagsterInstance, named: str) -> str:
    """The crawl that a person names, or the newest that has a pool.

    Raises:
        dagster.Failure: There is no such crawl.
    """
    if not named:
        return newest_crawl(instance)
    check_crawl(instance, named)
    return named


def newest_crawl(instance: dg.DagsterInstance) -> str:
    """The newest crawl that has a pool.

    Raises:
        dagster.Failure: No crawl has one.
    """
    pooled = made(instance, "pool").keys() & set(instance.get_dynamic_partitions("crawl"))
    if not pooled:
        raise dg.Failure("no crawl has a pool yet: deliver a crawl first (docs/operations.md)", allow_retries=False)
    return max(pooled, key=crawl_order)


def made(instance: dg.DagsterInstance, asset: str) -> dict[str, int]:
    """The partitions of an asset that have been materialized, each with a number that grows with time."""
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    return dict(instance.event_log_storage.get_latest_storage_id_by_partition(dg.AssetKey(asset), kind))


def is_ready(instance: dg.DagsterInstance, method: str, crawl: str) -> bool:
    """Whether a method, or each of a combination, has all that it ranks by: C-RHO's model is trained at night."""
    methods = COMBINED[method].methods if method in COMBINED else [method]
    needs_model = any("partial_clip_score" in COMPARED[one].reads for one in methods)
    return not needs_model or crawl in made(instance, "partial_checkpoint")


def check_crawl(instance: dg.DagsterInstance, crawl: str) -> None:
    """Raises: dagster.Failure: It is no crawl, or none any more; the message lists those that there are."""
    there = instance.get_dynamic_partitions("crawl")
    if crawl not in there:
        raise dg.Failure(f"{crawl!r} is no crawl; there are: {', '.join(there) or 'none'}", allow_retries=False)


def check_idle(instance: dg.DagsterInstance, crawl: str) -> None:
    """Raises: dagster.Failure: Work on the crawl is going on or waits; the message names it and what to do."""
    for run in instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)):
        if _is_of(run.tags.get("dagster/partition", ""), crawl):
            raise dg.Failure(
                f"run {run.run_id} ({run.status.value.lower()}) is for {crawl}: wait for it or terminate it, then "
                "withdraw the crawl",
                allow_retries=False,
            )
    # Dagster fails all of a backfill as soon as one of its partitions is gone, whether or not that one is made.
    for backfill in instance.get_backfills(BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED])):
        if any(_is_of(partition, crawl) for partition in _targets(backfill)):
            raise dg.Failure(
                f"backfill {backfill.backfill_id} ({backfill.title or 'untitled'}) covers {crawl} and would fail: "
                "wait until it has ended or cancel it (Runs, Backfills), then withdraw the crawl",
                allow_retries=False,
            )


def check_made(instance: dg.DagsterInstance, asset: str, partitions: list[str]) -> None:
    """Raises: dagster.Failure: A partition is not materialized; the message names it and those that are."""
    there = made(instance, asset)
    if missing := [partition for partition in partitions if partition not in there]:
        listed = ", ".join(sorted(there)[-10:]) or "none"
        raise dg.Failure(
            f"{asset} is not materialized for {', '.join(missing)}; it is for: {listed}. Materialize it first",
            allow_retries=False,
        )


def check_known(kind: str, chosen: list[str], known: Mapping[str, object]) -> None:
    """Raises: dagster.Failure: No name, or one that is not known; the message lists those that are."""
    if not chosen:
        raise dg.Failure(f"no {kind} is named: choose from {', '.join(known)}", allow_retries=False)
    if unknown := [one for one in chosen if one not in known]:
        raise dg.Failure(f"no {kind} is called {unknown[0]!r}: choose from {', '.join(known)}", allow_retries=False)


def _targets(backfill: PartitionBackfill) -> Iterator[str]:
    """The partitions that a backfill is for, asset by asset."""
    if backfill.asset_backfill_data is not None:
        for subset in backfill.asset_backfill_data.target_subset.partitions_subsets_by_asset_key.values():
            yield from subset.get_partition_keys()


def _is_of(partition: str, crawl: str) -> bool:
    return partition.partition("|")[0] == crawl
