"""What runs by itself, tick by tick, without a daemon."""

import datetime

import dagster as dg
import pytest

from clipcov_assets.automation import morning_comparison, new_crawls
from clipcov_assets.checks import all_checks
from clipcov_assets.definitions import defs
from resources.crawl_catalog import CrawlCatalog
from tests.deliveries import deliver

DAY = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
DEFINITIONS = defs()
SPECS = {spec.key.to_user_string(): spec for spec in DEFINITIONS.resolve_all_asset_specs()}
CHECKS: dict[str, list[str]] = {}
for check in all_checks():
    for key in check.check_keys:
        CHECKS.setdefault(key.asset_key.to_user_string(), []).append(key.name)


class Ticks:
    """Evaluates the conditions again and again, and plays the runs that they ask for."""

    def __init__(self, instance):
        self.instance, self.cursor, self.now = instance, None, DAY

    def requested(self, *, later=datetime.timedelta(minutes=1)):
        """One tick: (asset, partition) of everything that the conditions ask for."""
        self.now += later
        result = dg.evaluate_automation_conditions(
            defs=DEFINITIONS, instance=self.instance, cursor=self.cursor, evaluation_time=self.now
        )
        self.cursor = result.cursor
        return {
            (one.key.to_user_string(), partition)
            for one in result.results
            if isinstance(one.key, dg.AssetKey)
            for partition in result.get_requested_partitions(one.key)
        }

    def succeed(self, asset, partition=None, *, version="1", failing=()):
        """A run that materialized the asset, and whose checks passed, but for some."""
        partitions = SPECS[asset].partitions_def

        @dg.asset(
            name=asset,
            partitions_def=partitions,
            check_specs=[
                dg.AssetCheckSpec(name, asset=asset, partitions_def=partitions) for name in CHECKS.get(asset, ())
            ],
        )
        def played():
            return dg.MaterializeResult(
                data_version=dg.DataVersion(version),
                check_results=[
                    dg.AssetCheckResult(check_name=name, passed=name not in failing) for name in CHECKS.get(asset, ())
                ],
            )

        dg.materialize([played], instance=self.instance, partition_key=partition)


@pytest.fixture
def ticks():
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("crawl", ["crawl-1"])
        yield Ticks(instance)


def test_a_crawl_that_is_there_on_the_first_tick_is_ingested(ticks):
    assert ticks.requested() == {("raw_pairs", "crawl-1")}


def test_a_lost_request_is_made_again(ticks):
    ticks.requested()
    assert ("raw_pairs", "crawl-1") in ticks.requested()


def test_the_proxy_is_made_once_and_not_for_a_second_crawl(ticks):
    ticks.succeed("raw_pairs", "crawl-1")
    assert ("proxy_checkpoint", None) in ticks.requested()
    ticks.succeed("proxy_checkpoint")
    ticks.instance.add_dynamic_partitions("crawl", ["crawl-2"])
    ticks.requested()
    ticks.succeed("raw_pairs", "crawl-2")
    for _ in range(3):
        assert ("proxy_checkpoint", None) not in ticks.requested()


def test_embeddings_follow_pairs_and_proxy_with_all_that_depends_on_them(ticks):
    ticks.succeed("raw_pairs", "crawl-1")
    ticks.succeed("proxy_checkpoint")
    requested = ticks.requested()
    assert ("embeddings", "crawl-1") in requested
    assert ("raw_pairs", "crawl-1") not in requested


def test_a_crawl_whose_blocking_check_failed_goes_no_further(ticks):
    ticks.succeed("raw_pairs", "crawl-1", failing=("unique_uids",))
    ticks.succeed("proxy_checkpoint")
    for _ in range(3):
        assert ("embeddings", "crawl-1") not in ticks.requested()


def everything_up_to(ticks, *assets, crawl="crawl-1"):
    for asset in assets:
        ticks.succeed(asset, None if asset == "proxy_checkpoint" else crawl)


ROAD = ("raw_pairs", "proxy_checkpoint", "embeddings", "latent_classes", "pool")


def test_a_new_pool_is_ranked_by_every_method_that_needs_no_training(ticks):
    everything_up_to(ticks, *ROAD)
    requested = ticks.requested()
    for method in ("clip_score", "semdedup", "metaclip", "random"):
        assert (f"{method}_ranking", "crawl-1") in requested
    assert ("clipcov_class_ranking", "crawl-1|s00") in requested


def test_training_waits_for_the_night(ticks):
    everything_up_to(ticks, *ROAD, "random_ranking")
    ticks.succeed("random_subset", "crawl-1|f20")
    wanted = ("random_checkpoint", "crawl-1|f20")
    assert wanted not in ticks.requested()
    assert wanted not in ticks.requested(later=datetime.timedelta(hours=8))
    assert wanted in ticks.requested(later=datetime.timedelta(hours=8))


def test_equal_content_again_asks_for_nothing(ticks):
    everything_up_to(ticks, *ROAD, "random_ranking")
    for fraction in ("f20", "f50"):
        ticks.succeed("random_subset", f"crawl-1|{fraction}")
    ticks.requested()
    ticks.succeed("random_ranking", "crawl-1", version="1")
    assert ("random_subset", "crawl-1|f20") not in ticks.requested()
    ticks.succeed("random_ranking", "crawl-1", version="2")
    assert ("random_subset", "crawl-1|f20") in ticks.requested()


def test_one_dead_crawl_does_not_stop_another(ticks):
    ticks.instance.add_dynamic_partitions("crawl", ["crawl-2"])
    everything_up_to(ticks, *ROAD, crawl="crawl-2")
    assert ("random_ranking", "crawl-2") in ticks.requested()


def sense(instance, directory):
    context = dg.build_sensor_context(instance=instance, definitions=DEFINITIONS)
    return new_crawls(context, catalog=CrawlCatalog(directory=str(directory)))


def test_the_sensor_adds_complete_deliveries_once(tmp_path):
    deliver(tmp_path / "crawl-10", range(3))
    deliver(tmp_path / "crawl-2", range(3))
    (tmp_path / "notes").mkdir()
    with dg.DagsterInstance.ephemeral() as instance:
        (request,) = sense(instance, tmp_path).dynamic_partitions_requests
        assert request.partition_keys == ["crawl-2", "crawl-10"]
        instance.add_dynamic_partitions("crawl", request.partition_keys)
        assert not sense(instance, tmp_path).dynamic_partitions_requests


def test_the_sensor_passes_over_unfinished_and_badly_named_deliveries_and_says_so(tmp_path):
    (deliver(tmp_path / "crawl-1", range(3)) / "00000_stats.json").unlink()
    deliver(tmp_path / "Crawl One", range(3))
    with dg.DagsterInstance.ephemeral() as instance:
        result = sense(instance, tmp_path)
    assert not result.dynamic_partitions_requests
    assert "00000.tar is unfinished" in result.skip_reason.skip_message
    assert "crawl name 'Crawl One' is not allowed" in result.skip_reason.skip_message


def test_every_morning_the_newest_crawl_with_a_pool_is_compared(tmp_path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        context = dg.build_schedule_context(instance=instance)
        assert isinstance(morning_comparison(context), dg.SkipReason)
        instance.add_dynamic_partitions("crawl", ["crawl-2", "crawl-10", "crawl-11"])
        for crawl in ("crawl-2", "crawl-10"):
            instance.report_runless_asset_event(dg.AssetMaterialization("pool", partition=crawl))
        assert morning_comparison(context).partition_key == "crawl-10"
