"""What failed becomes an alert that a person understands without opening a log."""

import json
from collections.abc import Iterator

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill

from resources.alerts import Alerts, paragraph
from resources.report_shelf import ReportShelf

LOOKED_AT = 50  # of the backfills that failed, the newest


@dg.run_failure_sensor(
    name="failures",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=15,
    description="Writes an alert for every failed run to var/alerts.log, and to CLIPCOV_ALERT_WEBHOOK where it is set.",
)
def failures(context: dg.RunFailureSensorContext, alerts: Alerts, shelf: ReportShelf) -> None:
    """Tell what failed, where, why, and what to do."""
    if trouble := alerts.tell(alert(context, shelf.dagster_ui)):
        context.log.warning(trouble)


@dg.sensor(
    name="failed_backfills",
    target=None,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=60,
    description="Writes an alert for every backfill that Dagster gave up, beside those for its failed runs.",
)
def failed_backfills(context: dg.SensorEvaluationContext, alerts: Alerts, shelf: ReportShelf) -> dg.SkipReason:
    """Tell once of each backfill that failed as a whole: there may be no run that did. The past is not told."""
    failed = context.instance.get_backfills(BulkActionsFilter(statuses=[BulkActionStatus.FAILED]), limit=LOOKED_AT)
    ids = [one.backfill_id for one in failed]
    told = json.loads(context.cursor) if context.cursor else ids
    news = [one for one in failed if one.backfill_id not in told]
    for backfill in reversed(news):
        if trouble := alerts.tell(_backfill_alert(backfill, shelf.dagster_ui)):
            context.log.warning(trouble)
    context.update_cursor(json.dumps(ids))
    return dg.SkipReason(f"backfills that failed since the last tick: {len(news)}")


def alert(context: dg.RunFailureSensorContext, dagster_ui: str) -> str:
    """Say in a few lines what failed, why, whether it is tried again, and where to look."""
    run = context.dagster_run
    partition = run.tags.get("dagster/partition")
    steps = [event.step_key or "" for event in context.get_step_failure_events()]
    what = ", ".join(dict.fromkeys(steps)) or _work(run)
    reasons = list(_reasons(context)) or [context.failure_event.message or "the run failed"]
    whole = f"{what} of {partition}" if partition else what
    return paragraph(f"{whole} failed", reasons, _what_to_do(run), f"{dagster_ui}/runs/{run.run_id}")


def _backfill_alert(backfill: PartitionBackfill, dagster_ui: str) -> str:
    return paragraph(
        f"backfill {backfill.title or backfill.backfill_id} failed",
        [backfill.error.message if backfill.error else "no reason was given"],
        "it starts nothing more: what a person started is to be started again, the rest is asked for again by itself",
        f"{dagster_ui}/runs/b/{backfill.backfill_id}",
    )


def _work(run: dg.DagsterRun) -> str:
    """The assets of a run, or the name of its job."""
    assets = sorted(key.to_user_string() for key in run.asset_selection or ())
    return ", ".join(assets) or run.job_name


def _reasons(context: dg.RunFailureSensorContext) -> Iterator[str]:
    for event in context.get_step_failure_events():
        failure = event.step_failure_data
        told = failure.user_failure_data.description if failure.user_failure_data else None
        raised = failure.error and (failure.error.cause or failure.error)
        yield f"{event.step_key}: {told or (raised.message if raised else '') or 'no reason was given'}"


def _what_to_do(run: dg.DagsterRun) -> str:
    if run.tags.get("dagster/will_retry") == "true":
        return "it is tried again by itself"
    return "mend what it names and materialize the partition again, unless a later run has; what follows runs by itself"
