"""An instance after a few daily crawls is one that Dagster itself would have left, but for the time that it takes."""

import os
import time
from contextlib import ExitStack
from datetime import timedelta

import dagster as dg
import pytest
from dagster._core.definitions.partitions.context import partition_loading_context

from benchmarks import measure
from benchmarks.crawl_year import carried, crawl_name, instance_in, repeat, runs_of
from benchmarks.dagster_site import PAGES, Site
from benchmarks.measure import Floor, Measurement
from benchmarks.works import year
from clipcov_assets.checks import all_checks
from clipcov_assets.definitions import ASSETS
from clipcov_assets.partitions import FRACTIONS, crawl_by_fraction

DAYS = range(3, 7)
CRAWLS = [crawl_name(day) for day in DAYS]
ON_REQUEST = "export"


@pytest.fixture(scope="module")
def directory():
    with carried(DAYS[-1]) as (directory, before):
        repeat(directory, DAYS, before)
        yield directory


@pytest.fixture(scope="module")
def instance(directory):
    with instance_in(directory) as instance:
        yield instance


def assets():
    return [spec for asset in ASSETS for spec in asset.specs if not spec.key.path[-1].endswith(ON_REQUEST)]


def test_every_partition_of_every_asset_is_there(instance):
    with partition_loading_context(dynamic_partitions_store=instance):
        for spec in assets():
            expected = set(spec.partitions_def.get_partition_keys()) if spec.partitions_def else set()
            assert instance.get_materialized_partitions(spec.key) == expected, spec.key
    assert len(instance.get_materialized_partitions(dg.AssetKey("clipcov_subset"))) == len(CRAWLS) * len(FRACTIONS)


def test_a_materialization_of_another_day_differs_by_its_crawl_its_run_and_its_day(instance):
    records = [
        instance.fetch_materializations(
            dg.AssetRecordsFilter(dg.AssetKey("clipcov_subset"), asset_partitions=[f"{crawl}|{next(iter(FRACTIONS))}"]),
            limit=5,
        ).records
        for crawl in (CRAWLS[0], CRAWLS[-1])
    ]
    ((first,), (last,)) = records
    assert last.timestamp - first.timestamp == pytest.approx(timedelta(days=3).total_seconds())
    assert time.time() - last.timestamp < 600
    assert last.run_id != first.run_id
    assert last.asset_materialization.metadata.keys() == first.asset_materialization.metadata.keys()
    tags = [record.asset_materialization.tags for record in (first, last)]
    assert [one["dagster/partition/crawl"] for one in tags] == [CRAWLS[0], CRAWLS[-1]]
    pointer = "dagster/input_event_pointer/clipcov_ranking"
    assert int(tags[0][pointer]) < first.storage_id < int(tags[1][pointer]) < last.storage_id


def test_runs_are_found_by_their_crawl(instance):
    expected = len(runs_of(CRAWLS[0]))
    for crawl in CRAWLS:
        runs = instance.get_run_records(dg.RunsFilter(tags={"clipcov/crawl": crawl}))
        assert len(runs) == expected
        assert all(run.dagster_run.is_success and run.end_time > run.start_time for run in runs)
    assert len({run.run_id for run in instance.get_runs()}) == len(CRAWLS) * expected + 1
    first, last = (instance.get_run_records(dg.RunsFilter(tags={"clipcov/crawl": one}))[0] for one in CRAWLS[::3])
    assert last.start_time - first.start_time == pytest.approx(timedelta(days=3).total_seconds())


def test_every_check_passed_for_the_materialization_that_is_there(instance):
    keys = [(key, check.partitions_def) for check in all_checks() for key in check.check_keys]
    with partition_loading_context(dynamic_partitions_store=instance):
        states = instance.event_log_storage.get_asset_check_state(keys)
        for key, partitions in keys:
            passed = {status.name: subset.size for status, subset in states[key].subsets.items() if not subset.is_empty}
            assert passed == {"SUCCEEDED": len(partitions.get_partition_keys()) if partitions else 1}, key


def test_the_newest_materialization_of_an_asset_is_the_last_days(instance):
    event = instance.get_latest_materialization_event(dg.AssetKey("comparison"))
    assert event.asset_materialization.partition == CRAWLS[-1]
    record = instance.get_asset_records([dg.AssetKey("comparison")])[0]
    newest = instance.fetch_materializations(dg.AssetKey("comparison"), limit=1).records[0]
    assert record.asset_entry.last_materialization_record.storage_id == newest.storage_id


def test_dagster_counts_partitions_as_after_runs_of_its_own(instance):
    from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

    with partition_loading_context(dynamic_partitions_store=instance):
        status = get_and_update_asset_status_cache_value(instance, dg.AssetKey("clipcov_subset"), crawl_by_fraction)
        made = status.deserialize_materialized_partition_subsets(crawl_by_fraction)
        assert len(made) == len(CRAWLS) * len(FRACTIONS)
        assert not len(status.deserialize_failed_partition_subsets(crawl_by_fraction))
        assert not len(status.deserialize_in_progress_partition_subsets(crawl_by_fraction))


def test_ticks_and_pages_are_answered_as_in_production(directory, monkeypatch):
    monkeypatch.setattr(year, "ARRIVALS", 1)
    with ExitStack() as stack:
        site = Site(directory, stack)
        assert site.partitions() == len(CRAWLS) * len(FRACTIONS)
        seconds, stored = year.arrivals(site, DAYS[-1])
        assert seconds > 0 < stored
        assert site.tick() < stored
        for page in PAGES:
            site.load(page)
        with pytest.raises(ValueError, match="a page is not answered"):
            monkeypatch.setitem(PAGES, "a page", (None, ("{nothing}",)))
            site.load("a page")


def test_lines_tell_what_a_tick_a_page_and_the_database_cost():
    facts = {
        "days": (365, 30),
        "first": 3.0,
        "arrival": 2.5,
        "stored": (2e6, 1e6),
        "pages": {"the graph": 0.5, "the pool": 3.5},
        "database": 1e9,
        "run_files": [200_000, 400_000],
        "partitions": 2190,
        "cursor": 24_000,
    }
    ticks = Measurement((1.0,), 2**30, 0, Floor("the cursor", bytes=48_000), facts)
    steady, arrival, graph, pool, database = year.ticks_lines(ticks)
    assert [line.holds for line in (steady, arrival, graph, pool, database)] == [True, False, True, False, None]
    assert "365 daily crawls, 2,190 partitions of a subset: nothing is new" in steady.work
    assert "2.00 MB of evaluations, after 30 crawls 1.00 MB" in arrival.note
    assert (database.measured, "300 kB for each run, 600 kB for 2 runs a crawl" in database.note) == ("1.00 GB", True)


def test_a_pool_is_measured_beside_an_earlier_one():
    found = measure.run(year.prepare, year.POOL, 0.01)
    assert found.median > 0
    assert found.floor.bytes > 0
    line = year.pool_line(found)
    assert line.work == "the pool of crawl 4, 20 pairs a crawl, 1,000 classes"
    assert "that of crawl 2 takes" in line.note


def test_a_benchmark_may_need_variables_of_its_own(monkeypatch):
    monkeypatch.setenv("CLIPCOV_SCALE", "tiny")
    with measure.environment(year.BENCHMARK.environment):
        assert measure.in_fresh_process(os.getenv, "CLIPCOV_SCALE") == "cc3m"
    assert os.environ["CLIPCOV_SCALE"] == "tiny"
