"""A failed run becomes an alert that a person understands without opening a log."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from resources.alerts import Alerts
from resources.report_shelf import ReportShelf

LONGEST = 600  # characters of what a step said


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


def alert(context: dg.RunFailureSensorContext, dagster_ui: str) -> str:
    """Say in a few lines what failed, why, whether it is tried again, and where to look."""
    run = context.dagster_run
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    partition = run.tags.get("dagster/partition")
    steps = [event.step_key or "" for event in context.get_step_failure_events()]
    what = ", ".join(dict.fromkeys(steps)) or _work(run)
    reasons = list(_reasons(context)) or [context.failure_event.message or "the run failed"]
    lines = [
        f"{when}: {what}{f' of {partition}' if partition else ''} failed",
        *(f"  why:  {reason}" for reason in reasons),
        f"  next: {_what_to_do(run)}",
        f"  see:  {dagster_ui}/runs/{run.run_id}",
    ]
    return "\n".join(lines)


def _work(run: dg.DagsterRun) -> str:
    """The assets of a run, or the name of its job."""
    assets = sorted(key.to_user_string() for key in run.asset_selection or ())
    return ", ".join(assets) or run.job_name


def _reasons(context: dg.RunFailureSensorContext) -> Iterator[str]:
    for event in context.get_step_failure_events():
        failure = event.step_failure_data
        told = failure.user_failure_data.description if failure.user_failure_data else None
        raised = failure.error and (failure.error.cause or failure.error)
        words = " ".join((told or (raised.message if raised else "") or "no reason was given").split())
        yield f"{event.step_key}: {words[:LONGEST]}"


def _what_to_do(run: dg.DagsterRun) -> str:
    if run.tags.get("dagster/will_retry") == "true":
        return "it is tried again by itself"
    return "mend what it names and materialize the partition again, unless a later run has; what follows runs by itself"
