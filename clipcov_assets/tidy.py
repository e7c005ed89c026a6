"""The weekly job that frees what nobody needs any more: replaced versions of tables, old gallery pages, leftovers.

Nothing that a result was made from goes: versions that a pool recorded stay, and so do materializations and runs.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from pydantic import Field

from clipcov_assets.partitions import crawl_order
from clipcov_assets.pool_tables import pooled_crawls, versions_of_sums
from resources.lance_store import LanceStore, table_name
from resources.pieces import InUseError
from resources.report_shelf import ReportShelf
from resources.staging import Staging

GALLERIES = "galleries"
SHOWN_REASONS = 20
DAY = 24 * 60 * 60


class Tidy(dg.Config):
    """What is kept."""

    keep_days: int = Field(
        default=30,
        ge=1,
        description="Versions of tables that were replaced, and evaluations of conditions, are kept for so many days.",
    )
    keep_galleries: int = Field(
        default=30,
        ge=1,
        description="Gallery pages of so many newest crawls are kept. Others are made again when somebody wants "
        "them: python -m clipcov_assets.galleries",
    )
    dry_run: bool = Field(default=False, description="Only say what would be freed.")


@dataclass(frozen=True)
class Freed:
    """Something that was removed.

    Attributes:
        kind: What it was, in the plural.
        count: How many.
        bytes: How large they were together; 0 where nobody knows.
    """

    kind: str
    count: int
    bytes: int


@dataclass(frozen=True)
class Skipped:
    """Something that was left as it is, and why."""

    what: str
    reason: str


@dg.op(out=dg.Out(dg.Nothing))
def tidy_up(
    context: dg.OpExecutionContext, config: Tidy, store: LanceStore, shelf: ReportShelf, staging: Staging
) -> None:
    """Free what nobody needs, and say how much it was."""
    instance, dry = context.instance, config.dry_run
    crawls = sorted(instance.get_dynamic_partitions("crawl"), key=crawl_order)
    in_use = crawls_in_use(instance, context.run_id)
    outcome = [
        *forget_versions(store, timedelta(days=config.keep_days), in_use, dry_run=dry),
        *remove_galleries(shelf, crawls[-config.keep_galleries :], in_use, dry_run=dry),
        *remove_leftovers(staging, crawls, dry_run=dry),
    ]
    if not dry:
        purge_evaluations(instance, config.keep_days)
    context.add_output_metadata(told(outcome, dry_run=dry))


@dg.job(description="Free what nobody needs any more: replaced versions of tables, old gallery pages, leftovers.")
def tidy() -> None:
    """One op that removes, and says what."""
    tidy_up()


weekly_tidy = dg.ScheduleDefinition(
    name="weekly_tidy",
    job=tidy,
    cron_schedule="0 4 * * 0",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every Sunday: free what nobody needs any more.",
)


def crawls_in_use(instance: dg.DagsterInstance, own_run: str) -> dict[str, str]:
    """The crawls that runs in progress work on, each with the id of a run.

    A run that does not tell its crawl may read any of them: it stands under the empty name.
    """
    runs = instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
    working = [run for run in runs if run.run_id != own_run and (run.asset_selection or run.asset_check_selection)]
    return {run.tags.get("dagster/partition", "").partition("|")[0]: run.run_id for run in working}


def recorded_versions(store: LanceStore) -> dict[str, set[int]]:
    """Name of a table -> the versions of it that pools are read with."""
    recorded = defaultdict(set)
    for crawl in store.partitions("pool"):
        for one in pooled_crawls(store, crawl):
            for table, version in one.versions.items():
                recorded[table_name(table, one.crawl)].add(version)
        for table, version in versions_of_sums(store, crawl).items():
            recorded[table_name(table, crawl)].add(version)
    return dict(recorded)


def forget_versions(
    store: LanceStore, age: timedelta, in_use: Mapping[str, str], *, dry_run: bool
) -> Iterator[Freed | Skipped]:
    """Forget versions of tables that were replaced longer ago, but for those that pools recorded."""
    if "" in in_use:
        yield Skipped("versions of tables", f"run {in_use['']} is in progress and may read any of them")
        return
    recorded, count, size = recorded_versions(store), 0, 0
    for name in store.tables():
        if (crawl := _crawl_in(name.partition(".")[2], in_use)) is not None:
            yield Skipped(name, f"run {in_use[crawl]} is in progress on {crawl}")
            continue
        forgotten = store.forget(name, age, keep=recorded.get(name, ()), dry_run=dry_run)
        count, size = count + forgotten.versions, size + forgotten.bytes
    yield Freed("versions of tables", count, size)


def remove_galleries(
    shelf: ReportShelf, kept: Iterable[str], in_use: Mapping[str, str], *, dry_run: bool
) -> Iterator[Freed | Skipped]:
    """Remove the gallery pages of all crawls but some."""
    removed = []
    for crawl in sorted(set(shelf.folders(GALLERIES)).difference(kept), key=crawl_order):
        if crawl in in_use:
            yield Skipped(f"galleries of {crawl}", f"run {in_use[crawl]} is in progress on it")
        else:
            removed.append(shelf.remove(f"{GALLERIES}/{crawl}", dry_run=dry_run))
    yield Freed("crawls with galleries", len(removed), sum(removed))


def remove_leftovers(staging: Staging, crawls: Iterable[str], *, dry_run: bool) -> Iterator[Freed | Skipped]:
    """Remove unfinished work on crawls that are none any more; a live run holds the lock of its own."""
    removed = []
    known = list(crawls)
    for name in staging.names():
        partition = name.partition(".")[2]
        if partition in ("", "all") or _crawl_in(partition, known) is not None:
            continue
        try:
            removed.append(staging.remove(name, dry_run=dry_run))
        except InUseError as error:
            yield Skipped(name, str(error))
    yield Freed("leftovers of unfinished work", len(removed), sum(removed))


def purge_evaluations(instance: dg.DagsterInstance, keep_days: int) -> None:
    """Forget why conditions did or did not ask for runs, long ago.

    Dagster itself does so only for sensors that are not evaluated beside the assets' code, as ours is; and each
    evaluation lists partitions, so that they grow with the crawls.
    """
    storage = instance.schedule_storage
    if storage is not None:
        storage.purge_asset_evaluations(before=time.time() - keep_days * DAY)


def told(outcome: Iterable[Freed | Skipped], *, dry_run: bool) -> dict[str, dg.MetadataValue]:
    """What happened, as Dagster shows it beside the run."""
    outcome = list(outcome)
    freed = [one for one in outcome if isinstance(one, Freed)]
    skipped = [one for one in outcome if isinstance(one, Skipped)]
    return {
        "would_be_freed" if dry_run else "freed": dg.MetadataValue.table(
            [dg.TableRecord({"what": one.kind, "count": one.count, "bytes": one.bytes}) for one in freed],
            schema=dg.TableSchema.from_name_type_dict({"what": "string", "count": "int", "bytes": "int"}),
        ),
        "bytes": dg.MetadataValue.int(sum(one.bytes for one in freed)),
        "skipped": dg.MetadataValue.int(len(skipped)),
        "reasons": dg.MetadataValue.table(
            [dg.TableRecord({"what": one.what, "reason": one.reason}) for one in skipped[:SHOWN_REASONS]],
            schema=dg.TableSchema.from_name_type_dict({"what": "string", "reason": "string"}),
        ),
    }


def _crawl_in(partition: str, crawls: Iterable[str]) -> str | None:
    """Which of the crawls a partition is of, as it stands in the name of a table or a folder: `crawl-1.f20`."""
    return next((crawl for crawl in crawls if partition == crawl or partition.startswith(f"{crawl}.")), None)
