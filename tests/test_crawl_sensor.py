"""What the sensor finds, tick by tick, without a daemon."""

import os
import socket
import time

import dagster as dg
import pytest

from clipcov_assets import crawl_sensor
from clipcov_assets.crawl_sensor import find_deliveries, new_crawls
from clipcov_assets.definitions import defs
from resources.alerts import Alerts
from resources.crawl_catalog import CrawlCatalog
from resources.report_shelf import ReportShelf
from tests.deliveries import deliver

DEFINITIONS = defs()


@pytest.fixture
def alerts(tmp_path_factory):
    """The file that alerts are written to."""
    return tmp_path_factory.mktemp("alerts") / "alerts.log"


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def sense(instance, alerts):
    """A function that makes a tick of the sensor, which goes on where the one before it ended."""
    cursor = None

    def tick(directory):
        nonlocal cursor
        resources = {
            "catalog": CrawlCatalog(directory=str(directory)),
            "alerts": Alerts(file=str(alerts)),
            "shelf": ReportShelf(directory="unused", dagster_ui="http://dagster:3000"),
        }
        context = dg.build_sensor_context(instance, cursor, definitions=DEFINITIONS, resources=resources)
        found = new_crawls.evaluate_tick(context)
        cursor = found.cursor or cursor  # the daemon keeps the one before where it is empty
        return found

    return tick


@pytest.fixture
def skipped(sense):
    """A function that makes a tick which finds nothing, and returns why."""

    def tick(directory):
        found = sense(directory)
        assert not found.dynamic_partitions_requests
        return found.skip_message

    return tick


@pytest.fixture(params=["directory", "address"])
def place(tmp_path, request):
    return str(tmp_path) if request.param == "directory" else tmp_path.as_uri()


def test_the_sensor_adds_complete_deliveries_once(instance, sense, tmp_path, place):
    deliver(tmp_path / "crawl-10", range(3))
    deliver(tmp_path / "crawl-2", range(3))
    (tmp_path / "notes").mkdir()
    (request,) = sense(place).dynamic_partitions_requests
    assert request.partition_keys == ["crawl-2", "crawl-10"]
    instance.add_dynamic_partitions("crawl", request.partition_keys)
    assert not sense(place).dynamic_partitions_requests


def test_the_sensor_passes_over_unfinished_and_badly_named_deliveries_and_says_so(skipped, tmp_path, place):
    (deliver(tmp_path / "crawl-1", range(3)) / "00000_stats.json").unlink()
    deliver(tmp_path / "Crawl One", range(3))
    message = skipped(place)
    assert "00000.tar is unfinished" in message
    assert "crawl name 'Crawl One' is not allowed" in message


def test_the_sensor_passes_over_withdrawn_crawls_and_says_why_until_they_are_taken_back(skipped, tmp_path, place):
    deliver(tmp_path / "crawl-1", range(3))
    catalog = CrawlCatalog(directory=place)
    catalog.withdraw("crawl-1", "licence revoked")
    assert "crawl-1 is withdrawn: licence revoked; delete crawl-1.withdrawn to take it back" in skipped(place)
    (tmp_path / "crawl-1.withdrawn").unlink()
    assert find_deliveries(catalog) == (["crawl-1"], [])


def test_a_delivery_without_marks_in_a_store_waits_until_it_has_rested(skipped, tmp_path):
    (tmp_path / "crawl-1").mkdir()
    (tmp_path / "crawl-1/a.csv").write_text("filepath,title\na.png,x\n")
    catalog = CrawlCatalog(directory=tmp_path.as_uri())
    assert "is taken after 600 s of rest" in skipped(tmp_path.as_uri())
    os.utime(tmp_path / "crawl-1/a.csv", (0, time.time() - 700))
    assert find_deliveries(catalog) == (["crawl-1"], [])


def test_known_crawls_of_a_store_are_not_listed_again(tmp_path, monkeypatch):
    for number in (1, 2):
        deliver(tmp_path / f"crawl-{number}", range(3))
    listed = []
    original = CrawlCatalog.listing
    monkeypatch.setattr(CrawlCatalog, "listing", lambda self, crawl: listed.append(crawl) or original(self, crawl))
    assert find_deliveries(CrawlCatalog(directory=tmp_path.as_uri()), known=["crawl-1"]) == (["crawl-2"], [])
    assert listed == ["crawl-2"]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("file:///nowhere/at/all", "file:///nowhere/at/all cannot be read"),
        ("gopher://key:hunter2@crawls", "gopher://crawls cannot be read"),
        ("/nowhere/at/all", "the crawls directory /nowhere/at/all does not exist"),
    ],
)
def test_crawls_that_cannot_be_reached_make_a_tick_that_says_so(skipped, address, message):
    found = skipped(address)
    assert message in found
    assert "hunter2" not in found


def test_that_crawls_are_out_of_reach_is_told_once_and_once_more_when_it_is_over(skipped, alerts, tmp_path):
    landing = tmp_path / "landing"
    for _ in range(2):
        assert "landing does not exist" in skipped(landing)
    landing.mkdir()
    for _ in range(2):
        assert "no new crawl" in skipped(landing)
    landing.rmdir()
    skipped(landing)
    first, over, again = alerts.read_text().strip().split("\n\n")
    what, why, *_ = first.splitlines()
    assert what.endswith("crawls cannot be looked for")
    assert why == (
        f"  why:  the crawls directory {landing} does not exist: create it, or point CLIPCOV_CRAWLS at the one you use"
    )
    assert f"crawls in {landing} are in reach again" in over
    assert "landing does not exist" in again


def test_crawls_that_were_always_in_reach_are_no_alert(skipped, alerts, tmp_path):
    skipped(tmp_path)
    assert not alerts.exists()


def test_a_folder_that_is_a_link_is_passed_over_with_the_remedy_and_a_hidden_one_without_a_word(skipped, tmp_path):
    elsewhere = deliver(tmp_path / "elsewhere", range(3))
    landing = tmp_path / "landing"
    landing.mkdir()
    (landing / "crawl-2").symlink_to(elsewhere)
    deliver(landing / ".crawl-3", range(3))
    assert skipped(landing) == (
        f"no new crawl in {landing}; crawl-2 is a link, and links are not followed: "
        "put the folder itself there, or mount it there"
    )


def test_a_silent_store_delays_no_tick_and_is_asked_once_at_a_time(skipped, monkeypatch):
    monkeypatch.setattr(crawl_sensor, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(crawl_sensor, "_questions", crawl_sensor.Questions())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(2)
        address = f"s3://key:hunter2@bucket/crawls?endpoint_override=127.0.0.1:{silent.getsockname()[1]}&scheme=http"
        began = time.monotonic()
        for _ in range(3):
            message = skipped(address)
            assert "gave no answer in 0 s; check the network and the endpoint" in message
            assert "hunter2" not in message
        assert time.monotonic() - began < 5
        connection, _ = silent.accept()
        silent.setblocking(False)
        with pytest.raises(BlockingIOError):
            silent.accept()
        connection.close()


def test_a_listing_that_takes_longer_than_a_tick_is_judged_in_a_later_one(tmp_path, monkeypatch):
    monkeypatch.setattr(crawl_sensor, "ANSWER_SECONDS", 0.5)
    deliver(tmp_path / "crawl-1", range(3))
    original = CrawlCatalog.listing
    listed = []

    def slow(self, crawl):
        listed.append(crawl)
        time.sleep(1)
        return original(self, crawl)

    monkeypatch.setattr(CrawlCatalog, "listing", slow)
    catalog = CrawlCatalog(directory=tmp_path.as_uri())
    found, (reason,) = find_deliveries(catalog)
    assert (found, "crawl-1" in reason, "is still being listed" in reason) == ([], True, True)
    time.sleep(0.7)
    assert find_deliveries(catalog) == (["crawl-1"], [])
    assert listed == ["crawl-1"]
