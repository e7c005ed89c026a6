"""What fails is told in words, and tried again only where the machine is at fault."""

import http.server
import json
import threading

import dagster as dg
import pytest

from clipcov_assets.assets import road_asset as module
from clipcov_assets.failures import failures
from clipcov_assets.partitions import crawl_by_fraction
from resources.alerts import Alerts
from resources.report_shelf import ReportShelf

PARTITION = "crawl-1|f20"


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
    failures(context, alerts=alerts, shelf=ReportShelf(directory="unused", dagster_ui="http://dagster:3000"))


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


@pytest.fixture
def webhook():
    """A server on loopback and the bodies that were posted to it."""
    posted = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):  # noqa: N802
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/secret-token", posted
    server.shutdown()
    server.server_close()


def test_an_alert_is_posted_to_the_webhook(webhook, tmp_path):
    address, posted = webhook
    assert Alerts(file=str(tmp_path / "alerts.log"), webhook=address).tell("crawl-1 failed") is None
    assert posted == [{"text": "crawl-1 failed"}]


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/secret-token", "no address: secret-token"])
def test_a_webhook_that_is_away_loses_no_alert_and_its_secret_is_not_told(tmp_path, address):
    trouble = Alerts(file=str(tmp_path / "alerts.log"), webhook=address).tell("crawl-1 failed")
    assert "check CLIPCOV_ALERT_WEBHOOK" in trouble
    assert "secret-token" not in trouble
    assert (tmp_path / "alerts.log").read_text() == "crawl-1 failed\n\n"
