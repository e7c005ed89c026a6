"""What runs by itself: named conditions, the sensor that finds crawls, the morning schedule.

The sensor says what exists outside and only adds partitions; the conditions decide what must run.
"""

from collections.abc import Collection

import dagster as dg

from clipcov_assets.ingest.find import why_incomplete
from clipcov_assets.partitions import check_crawl_name, crawl_order, crawls
from resources.crawl_catalog import CrawlCatalog

_missing = dg.AutomationCondition.missing() & ~dg.AutomationCondition.execution_failed()
_idle = ~dg.AutomationCondition.in_progress() & ~dg.AutomationCondition.any_deps_in_progress()
# Equal content again is no news: only a new data version of an input counts, or one about to be made.
_inputs_changed = dg.AutomationCondition.any_deps_match(
    dg.AutomationCondition.data_version_changed() | dg.AutomationCondition.will_be_requested()
).since_last_handled()
_wanted = (
    (_missing | _inputs_changed)
    & ~dg.AutomationCondition.any_deps_missing()
    & _idle
    & dg.AutomationCondition.all_deps_blocking_checks_passed()
)

# A crawl that is there before the first tick, or whose request was lost, is asked for again; a failed one
# waits for a person.
on_arrival = (_missing & _idle).with_label("on_arrival")

# The proxy is made once, as soon as any crawl is there, and never again by itself.
once_pairs_are_there = (
    _missing & _idle & dg.AutomationCondition.any_deps_match(~dg.AutomationCondition.missing())
).with_label("once_pairs_are_there")

# Everything up to the subsets, and scorecards after their checkpoints.
when_inputs_change = _wanted.with_label("when_inputs_change")

# Training is dear: it waits for the night.
nightly_training = (dg.AutomationCondition.cron_tick_passed("0 3 * * *") & _wanted).with_label("nightly_training")

reselection = dg.AutomationConditionSensorDefinition(
    "reselection",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Runs what the assets' conditions ask for: what is missing, and what has newer inputs.",
)


def find_deliveries(
    catalog: CrawlCatalog, *, known: Collection[str] = (), settled_seconds: float = 60
) -> tuple[list[str], list[str]]:
    """Find the deliveries that are complete.

    Args:
        catalog: Where they land.
        known: Crawls that are not looked at again.
        settled_seconds: How long nothing may have changed in a delivery whose format has no mark of completion.

    Returns:
        The names of the complete deliveries, oldest first, and why other folders are passed over.
    """
    complete, passed_over = [], []
    for folder in catalog.folders():
        if folder.name in known:
            continue
        try:
            check_crawl_name(folder.name)
            reason = why_incomplete(folder, settled_seconds=settled_seconds)
        except ValueError as error:
            reason = str(error)
        if reason is None:
            complete.append(folder.name)
        else:
            passed_over.append(reason)
    return sorted(complete, key=crawl_order), passed_over


@dg.sensor(
    target=None,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Adds a partition for every complete delivery in the crawls directory; it starts no run.",
)
def new_crawls(context: dg.SensorEvaluationContext, catalog: CrawlCatalog) -> dg.SensorResult:
    """Find complete deliveries that are not partitions yet."""
    known = context.instance.get_dynamic_partitions("crawl")
    found, passed_over = find_deliveries(catalog, known=known)
    if not found:
        return dg.SensorResult(skip_reason="; ".join([f"no new crawl in {catalog.directory}", *passed_over]))
    for reason in passed_over:
        context.log.warning(reason)
    return dg.SensorResult(dynamic_partitions_requests=[crawls.build_add_request(found)])


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

compare = dg.define_asset_job(
    "compare",
    selection=dg.AssetSelection.assets("comparison"),
    description="Compare all scorecards that a crawl has so far.",
)


@dg.schedule(
    job=compare,
    cron_schedule="0 6 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every morning: the comparison of the newest crawl, with whatever was scored in the night.",
)
def morning_comparison(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Compare the newest crawl that has a pool."""
    known = context.instance.get_dynamic_partitions("crawl")
    pooled = context.instance.get_materialized_partitions(dg.AssetKey("pool"))
    ready = [crawl for crawl in known if crawl in pooled]
    if not ready:
        return dg.SkipReason("no crawl has a pool yet")
    return dg.RunRequest(partition_key=max(ready, key=crawl_order))
