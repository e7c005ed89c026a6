"""`make demo`: every crawl of the crawls directory from raw pairs to the scoreboard, in this process.

It materializes what is missing, in the order of the road, and nothing that is there already.
"""

import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from clipcov_assets.assets.comparison import comparison_tables, in_words
from clipcov_assets.crawl_sensor import find_deliveries
from clipcov_assets.definitions import defs, resources
from clipcov_assets.export.report import report_name
from clipcov_assets.export.scoreboard import scoreboard
from clipcov_assets.ingest.delivery import DeliveryError
from clipcov_assets.methods import COMPARED, SELECTIONS
from clipcov_assets.partitions import class_shards, fractions_of, of_crawl
from resources.crawl_catalog import CrawlCatalog
from resources.lance_store import LanceStore
from resources.report_shelf import ReportShelf

LINE = 110  # characters of a line of words
# A line for each step is enough on a terminal; Dagster keeps every event in its own log.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Step:
    """Assets of one partition that run together.

    Attributes:
        gathers: Whether it is made again when any step of its crawl was.
    """

    assets: tuple[str, ...]
    partition: str | None
    gathers: bool = False


def road(crawl: str) -> Iterator[Step]:
    """The steps that carry one crawl from its delivery to the comparison, in order."""
    yield Step(("raw_pairs",), crawl)
    yield Step(("proxy_checkpoint",), None)
    yield Step(("embeddings", "latent_classes", "pool"), crawl)
    for shard in class_shards.get_partition_keys():
        yield Step(("clipcov_class_ranking",), of_crawl(crawl, shard))
    if "c_rho" in COMPARED:
        yield Step(("partial_checkpoint",), crawl)
    yield Step(tuple(f"{method}_ranking" for method in COMPARED if method != "full"), crawl)
    for method in SELECTIONS:
        for fraction in fractions_of(method):
            chain = tuple(f"{method}_{noun}" for noun in ("subset", "checkpoint", "scorecard"))
            yield Step(chain, of_crawl(crawl, fraction))
    yield Step(("comparison",), crawl, gathers=True)


class StepFailedError(Exception):
    """A step that did not succeed; the message is the one that its asset gave."""


def main() -> int:
    """Run the demo; returns the exit status."""
    definitions = defs()
    job = definitions.resolve_implicit_global_asset_job_def()
    world = resources()
    try:
        crawls = _crawls(world["catalog"])
    except (DeliveryError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    began = time.perf_counter()
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("crawl", crawls)
        finished = [crawl for crawl in crawls if _carry(job, instance, crawl)]
    if finished:
        _report(world["store"], world["shelf"], finished[-1], time.perf_counter() - began)
    return 0 if finished == crawls else 1


def _carry(job: dg.JobDefinition, instance: dg.DagsterInstance, crawl: str) -> bool:
    """Carry one crawl down the road; a failure ends its road, not that of the others."""
    steps, made = list(road(crawl)), False
    for number, step in enumerate(steps, start=1):
        again = made and step.gathers
        try:
            made |= _run(job, instance, step, f"{crawl} [{number}/{len(steps)}]", again=again)
        except StepFailedError as failure:
            print(f"error: {', '.join(step.assets)} of {crawl}: {failure}", file=sys.stderr)
            return False
    return True


def _crawls(catalog: CrawlCatalog) -> list[str]:
    """Complete deliveries, oldest first; says which folders it passes over."""
    complete, passed_over = find_deliveries(catalog)
    for reason in passed_over:
        print(f"passed over: {reason}", file=sys.stderr)
    if not complete:
        raise DeliveryError(
            f"no complete delivery in {catalog.shown}: put one folder a crawl there, in one of the formats of "
            "docs/deliveries.md"
        )
    return complete


def _run(job: dg.JobDefinition, instance: dg.DagsterInstance, step: Step, progress: str, *, again: bool) -> bool:
    """Materialize what is missing of a step, or all of it again, and print one line about it; return whether it did."""
    missing = [asset for asset in step.assets if again or not is_there(instance, asset, step.partition)]
    if not missing:
        return False
    began = time.perf_counter()
    result = job.execute_in_process(
        asset_selection=[dg.AssetKey(asset) for asset in missing],
        partition_key=step.partition,
        run_config=QUIET,
        instance=instance,
        raise_on_error=False,
    )
    if not result.success:
        raise StepFailedError(failure_reason(result))
    where = (step.partition or "").partition("|")[2]
    print(f"{progress:20} {', '.join(missing):76} {where:5}{time.perf_counter() - began:6.1f} s", flush=True)
    return True


def failure_reason(result: dg.ExecuteInProcessResult) -> str:
    """What the failed asset or check said."""
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data is not None and data.user_failure_data.description:
                return str(data.user_failure_data.description)
            if data.error is not None:
                raised = data.error.cause or data.error  # Dagster's own error stands around what the asset raised
                return str(raised.message).strip()
    return "the run failed; its log is in Dagster"


def _report(store: LanceStore, shelf: ReportShelf, crawl: str, seconds: float) -> None:
    """Print the scoreboard, what it says in words, and where to look further."""
    tables = comparison_tables(store, crawl, print)
    print(f"\n{scoreboard(tables.scores, crawl)}")
    print(f"{textwrap.fill(in_words(tables, crawl), LINE)}\n")
    print(f"report:  {Path(shelf.directory) / report_name(crawl)}")
    print("Dagster: make ui, then open http://127.0.0.1:3000 (MLflow: http://127.0.0.1:5000)")
    print(f"done in {seconds:.0f} s")


def is_there(instance: dg.DagsterInstance, asset: str, partition: str | None) -> bool:
    """Whether the asset's partition was materialized by a run that succeeded, its blocking checks included."""
    partitions = None if partition is None else [partition]
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=partitions)
    records = instance.fetch_materializations(wanted, limit=1).records
    if not records:
        return False
    run = instance.get_run_by_id(records[0].event_log_entry.run_id)
    return run is None or run.is_success


if __name__ == "__main__":
    sys.exit(main())
