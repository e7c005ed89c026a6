"""What fails is told in words, and tried again only where the machine is at fault."""

import time

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster_shared.error import SerializableErrorInfo

from clipcov_assets.assets import road_asset as module
from clipcov_assets.failures import failed_backfills, failures
from clipcov_assets.partitions import crawl_by_fraction
from resources.alerts import Alerts
from resources.report_shelf import ReportShelf

PARTITION = "crawl-1|f20"
SHELF = ReportShelf(directory="unused", dagster_ui="http://dagster:3000")


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("crawl", ["crawl-1"])
        yield instance


def attempts_of(instance, monkeypatch, *faults):
    """Run an asset of the road that meets these faults one after the other; return the result and its attempts."""
    monkeypatch.setattr(module, "RETRIES", dg.RetryPolicy(max_retries=2, delay=0))
    left, attempts = list(faults), []

    @module.road_asset(stage="select", method="clipcov", name="clipcov_subset", partitions_def=crawl_by_fraction)
    def subset(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        attempts.append(context.retry_number)
        if left:
            raise left.pop(0)
        return dg.MaterializeResult()

    result = dg.materialize([subset], instance=instance, partition_key=PARTITION, raise_on_error=False)
    return result, attempts


@pytest.mark.parametrize("fault", [OSError("the disk is away"), MemoryError(), RuntimeError("CUDA is out of memory")])
def test_a_fault_of_the_machine_is_tried_again(instance, monkeypatch, fault):
    result, attempts = attempts_of(instance, monkeypatch, fault)
    assert result.success
    assert attempts == [0, 1]


@pytest.mark.parametrize(
    "fault",
    [
        ValueError("pair 7 is not in the pool"),
        KeyError("table x is not there"),
        FileNotFoundError("no crawl"),
        dg.Failure("the crawl is empty", allow_retries=False),
        TypeError("a mistake in the code"),
    ],
)
def test_a_fault_of_the_data_or_of_the_code_is_not(instance, monkeypatch, fault):
    result, attempts = attempts_of(instance, monkeypatch, fault)
    assert not result.success
    assert attempts == [0]


def test_a_run_is_found_by_crawl_fraction_and_method(instance, monkeypatch):
    result, _ = attempts_of(instance, monkeypatch)
    tags = instance.get_run_by_id(result.run_id).tags
    assert {name: tags[f"clipcov/{name}"] for name in ("crawl", "fraction", "method")} == {
        "crawl": "crawl-1",
        "fraction": "f20",
        "method": "clipcov",
    }


def tell(instance, result, alerts):
    event = next(event for event in result.all_events if event.event_type_value == "PIPELINE_FAILURE")
    context = dg.build_run_status_sensor_context(
        sensor_name="failures",
        dagster_instance=instance,
        dagster_run=instance.get_run_by_id(result.run_id),
        dagster_event=event,
    ).for_run_failure()
    failures(context, alerts=alerts, shelf=SHELF)


def test_an_alert_says_what_failed_where_why_and_what_to_do(instance, monkeypatch, tmp_path):
    result, _ = attempts_of(instance, monkeypatch, ValueError("pair 7 of the pool is not in raw_pairs of crawl-1"))
    tell(instance, result, Alerts(file=str(tmp_path / "logs/alerts.log")))
    what, why, to_do, where = (tmp_path / "logs/alerts.log").read_text().strip().splitlines()
    assert what.endswith("clipcov_subset of crawl-1|f20 failed")
    assert why == "  why:  clipcov_subset: pair 7 of the pool is not in raw_pairs of crawl-1"
    assert to_do.startswith("  next: mend what it names and materialize the partition again")
    assert where == f"  see:  http://dagster:3000/runs/{result.run_id}"


def test_a_run_that_is_tried_again_by_itself_says_so(instance, monkeypatch, tmp_path):
    result, _ = attempts_of(instance, monkeypatch, ValueError("anything"))
    instance.add_run_tags(result.run_id, {"dagster/will_retry": "true"})
    tell(instance, result, Alerts(file=str(tmp_path / "alerts.log")))
    assert "next: it is tried again by itself" in (tmp_path / "alerts.log").read_text()


def test_a_backfill_that_dagster_gave_up_is_told_once(instance, tmp_path):
    file, cursor = tmp_path / "alerts.log", None

    def add(name, status, error=None):
        failed = PartitionBackfill(f"id-{name}", status, False, {}, time.time(), title=name, error=error)
        instance.add_backfill(failed)

    def tick():
        nonlocal cursor
        resources = {"alerts": Alerts(file=str(file)), "shelf": SHELF}
        context = dg.build_sensor_context(instance, cursor, resources=resources)
        cursor = failed_backfills.evaluate_tick(context).cursor

    add("of last year", BulkActionStatus.FAILED)
    tick()
    assert not file.exists()
    add("at work", BulkActionStatus.REQUESTED)
    add("reselect crawl-1", BulkActionStatus.FAILED, SerializableErrorInfo("code cannot\n be loaded", [], None))
    tick()
    tick()
    what, why, _, where = file.read_text().strip().splitlines()
    assert what.endswith("backfill reselect crawl-1 failed")
    assert why == "  why:  code cannot be loaded"
    assert where == "  see:  http://dagster:3000/runs/b/id-reselect crawl-1"
