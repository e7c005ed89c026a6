"""What runs by itself, tick by tick, without a daemon."""

import datetime
from unittest import mock

import dagster as dg
import pytest
from dagster._core.events import AssetMaterializationPlannedData, DagsterEvent

from clipcov_assets.automation import InHours
from clipcov_assets.checks import all_checks
from clipcov_assets.definitions import defs
from clipcov_assets.input_versions import EARLIER_CRAWLS, version_of
from clipcov_assets.scales import SCALE, TrainingPolicy

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

    def requested(self, *, later=datetime.timedelta(minutes=1), definitions=DEFINITIONS):
        """One tick: (asset, partition) of everything that the conditions ask for."""
        self.now += later
        crawls = self.instance.get_dynamic_partitions("crawl")
        # Unlike the daemon, the tester asks for them again for each of a thousand nodes.
        with mock.patch.object(self.instance, "get_dynamic_partitions", return_value=crawls):
            result = dg.evaluate_automation_conditions(
                defs=definitions, instance=self.instance, cursor=self.cursor, evaluation_time=self.now
            )
        self.cursor = result.cursor
        return {
            (one.key.to_user_string(), partition)
            for one in result.results
            if isinstance(one.key, dg.AssetKey)
            for partition in result.get_requested_partitions(one.key)
        }

    def begin(self, asset, partition):
        """A run that has begun and not ended."""
        run = self.instance.create_run_for_job(
            DEFINITIONS.resolve_implicit_global_asset_job_def(),
            asset_selection={dg.AssetKey(asset)},
            tags={"dagster/partition": partition},
            status=dg.DagsterRunStatus.STARTED,
        )
        planned = AssetMaterializationPlannedData(dg.AssetKey(asset), partition=partition)
        self.instance.report_dagster_event(
            DagsterEvent.build_asset_materialization_planned_event(run.job_name, asset, planned), run_id=run.run_id
        )
        return run

    def fail(self, asset, partition=None):
        """A run in which the asset raised."""

        @dg.asset(name=asset, partitions_def=SPECS[asset].partitions_def)
        def played():
            raise dg.Failure("the data is at fault", allow_retries=False)

        dg.materialize([played], instance=self.instance, partition_key=partition, raise_on_error=False)

    def succeed(self, asset, partition=None, *, version="1", failing=(), metadata=None, code_version=None):
        """A run that materialized the asset, and whose checks passed, but for some."""
        partitions = SPECS[asset].partitions_def

        @dg.asset(
            name=asset,
            partitions_def=partitions,
            deps=SPECS[asset].deps,
            code_version=code_version or SPECS[asset].code_version,
            check_specs=[
                dg.AssetCheckSpec(name, asset=asset, partitions_def=partitions) for name in CHECKS.get(asset, ())
            ],
        )
        def played():
            return dg.MaterializeResult(
                data_version=dg.DataVersion(version),
                metadata=metadata or {},
                check_results=[
                    dg.AssetCheckResult(check_name=name, passed=name not in failing) for name in CHECKS.get(asset, ())
                ],
            )

        specs = [SPECS[dep.asset_key.to_user_string()] for dep in SPECS[asset].deps]
        dg.materialize([played, *specs], instance=self.instance, partition_key=partition, selection=[asset])


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


def test_a_second_crawl_goes_all_the_way_to_its_rankings_in_one_request(ticks):
    everything_up_to(ticks, *ROAD)
    ticks.instance.add_dynamic_partitions("crawl", ["crawl-2"])
    requested = {asset for asset, partition in ticks.requested() if partition == "crawl-2"}
    assert {"raw_pairs", "embeddings", "latent_classes", "pool", "random_ranking", "metaclip_ranking"} <= requested


def test_a_crawl_whose_blocking_check_failed_goes_no_further(ticks):
    ticks.succeed("raw_pairs", "crawl-1", failing=("unique_uids",))
    ticks.succeed("proxy_checkpoint")
    for _ in range(3):
        assert ("embeddings", "crawl-1") not in ticks.requested()


ROAD = ("raw_pairs", "proxy_checkpoint", "embeddings", "latent_classes", "pool")


def everything_up_to(ticks, *assets, crawl="crawl-1", holds=()):
    """Play the road of a crawl; its pool holds some crawls beside it."""
    for asset in assets:
        metadata = {EARLIER_CRAWLS: version_of(dict.fromkeys(holds, "1"))} if asset == "pool" else None
        ticks.succeed(asset, None if asset == "proxy_checkpoint" else crawl, metadata=metadata)


def three_crawls(ticks):
    """The oldest has a pool, the others are classified; two of them hold it."""
    ticks.instance.add_dynamic_partitions("crawl", ["crawl-2", "crawl-10"])
    everything_up_to(ticks, *ROAD)
    for crawl in ("crawl-2", "crawl-10"):
        everything_up_to(ticks, "raw_pairs", "embeddings", "latent_classes", crawl=crawl)


def test_a_new_pool_is_ranked_by_every_method_that_needs_no_training(ticks):
    everything_up_to(ticks, *ROAD)
    requested = ticks.requested()
    for method in ("clip_score", "semdedup", "metaclip", "random"):
        assert (f"{method}_ranking", "crawl-1") in requested
    assert ("clipcov_class_ranking", "crawl-1|s00") in requested


def selected(ticks, crawl, *methods, fractions=("f20", "f50")):
    """Play rankings and subsets of a crawl."""
    for method in methods:
        if method != "full":
            ticks.succeed(f"{method}_ranking", crawl)
        for fraction in ("f100",) if method == "full" else fractions:
            ticks.succeed(f"{method}_subset", f"{crawl}|{fraction}")


def of(requested, noun):
    """Those of the requests whose asset ends with a word."""
    return {one for one in requested if one[0].endswith(f"_{noun}")}


def hours(number):
    return datetime.timedelta(hours=number)


def test_only_what_the_policy_names_is_trained_and_only_at_night(ticks):
    everything_up_to(ticks, *ROAD)
    selected(ticks, "crawl-1", "random", "clip_score", "full")
    assert SCALE.trained == TrainingPolicy(methods=("clipcov", "random", "full"), fractions=(0.2,), hours=(3, 7))
    at_noon, at_night = ticks.requested(), ticks.requested(later=hours(16))
    assert of(at_noon, "checkpoint") == set()
    assert of(at_night, "checkpoint") == {("random_checkpoint", "crawl-1|f20"), ("full_checkpoint", "crawl-1|f100")}


def test_a_subset_that_is_ready_within_the_hours_of_training_is_trained_on_and_one_after_them_waits(ticks):
    everything_up_to(ticks, *ROAD)
    ticks.requested()
    ticks.requested(later=hours(16))  # 4 o'clock
    selected(ticks, "crawl-1", "random")
    assert ("random_checkpoint", "crawl-1|f20") in ticks.requested()
    ticks.succeed("random_checkpoint", "crawl-1|f20")
    ticks.requested(later=hours(4))
    selected(ticks, "crawl-1", "clipcov")
    wanted = ("clipcov_checkpoint", "crawl-1|f20")
    assert wanted not in ticks.requested()
    assert wanted in ticks.requested(later=hours(20))


def test_a_crawl_that_lands_within_the_hours_of_training_is_trained_on_in_the_same_night(ticks):
    everything_up_to(ticks, *ROAD)
    ticks.requested(later=hours(16))  # 4 o'clock
    ticks.instance.add_dynamic_partitions("crawl", ["crawl-2"])
    everything_up_to(ticks, "raw_pairs", "embeddings", "latent_classes", "pool", crawl="crawl-2", holds=("crawl-1",))
    selected(ticks, "crawl-2", "random")
    assert ("random_checkpoint", "crawl-2|f20") in ticks.requested()


def test_of_several_crawls_the_newest_is_trained_on(ticks):
    three_crawls(ticks)
    everything_up_to(ticks, "pool", crawl="crawl-10", holds=("crawl-1", "crawl-2"))
    for crawl in ("crawl-1", "crawl-10"):
        selected(ticks, crawl, "random")
    ticks.requested()
    trained = of(ticks.requested(later=hours(16)), "checkpoint")
    assert ("random_checkpoint", "crawl-10|f20") in trained
    assert {partition.partition("|")[0] for _, partition in trained} == {"crawl-10"}


def test_scorecards_follow_every_checkpoint_also_one_that_a_person_trained(ticks):
    three_crawls(ticks)
    selected(ticks, "crawl-1", "random")
    ticks.succeed("random_checkpoint", "crawl-1|f50")
    assert ("random_scorecard", "crawl-1|f50") in ticks.requested()


def test_a_comparison_does_not_wait_for_scorecards_that_nobody_asked_for(ticks):
    everything_up_to(ticks, *ROAD)
    selected(ticks, "crawl-1", "random")
    ticks.succeed("random_checkpoint", "crawl-1|f20")
    assert ("comparison", "crawl-1") not in ticks.requested()
    ticks.succeed("random_scorecard", "crawl-1|f20")
    assert ("comparison", "crawl-1") in ticks.requested()
    ticks.succeed("comparison", "crawl-1")
    assert ("comparison", "crawl-1") not in ticks.requested()
    ticks.succeed("random_checkpoint", "crawl-1|f50")
    ticks.succeed("random_scorecard", "crawl-1|f50")
    assert ("comparison", "crawl-1") in ticks.requested()


def test_of_many_crawls_that_land_at_once_only_the_newest_gets_a_pool(ticks):
    three_crawls(ticks)
    pools = {one for one in ticks.requested() if one[0] == "pool"}
    assert pools == {("pool", "crawl-10")}


def test_a_newest_crawl_that_never_becomes_healthy_freezes_nobody(ticks):
    three_crawls(ticks)
    ticks.succeed("latent_classes", "crawl-10", failing=("one_class_a_pair",))
    requested = ticks.requested()
    assert ("pool", "crawl-2") in requested
    assert ("pool", "crawl-10") not in requested


def test_a_failed_partition_waits_for_a_person(ticks):
    ticks.fail("raw_pairs", "crawl-1")
    for _ in range(3):
        assert ("raw_pairs", "crawl-1") not in ticks.requested()
    ticks.succeed("raw_pairs", "crawl-1")
    assert ("proxy_checkpoint", None) in ticks.requested()


def test_a_crawl_that_comes_late_joins_the_newest_pool_once(ticks):
    three_crawls(ticks)
    everything_up_to(ticks, "pool", crawl="crawl-10", holds=("crawl-1", "crawl-2"))
    assert ("pool", "crawl-10") not in ticks.requested()
    ticks.instance.add_dynamic_partitions("crawl", ["crawl-5"])
    everything_up_to(ticks, "raw_pairs", "embeddings", "latent_classes", crawl="crawl-5")
    requested = ticks.requested()
    assert ("pool", "crawl-10") in requested
    assert ("pool", "crawl-5") not in requested
    everything_up_to(ticks, "pool", crawl="crawl-10", holds=("crawl-1", "crawl-2", "crawl-5"))
    for _ in range(2):
        assert ("pool", "crawl-10") not in ticks.requested()


def test_crawls_that_come_late_together_join_together(ticks):
    three_crawls(ticks)
    everything_up_to(ticks, "pool", crawl="crawl-10", holds=("crawl-1", "crawl-2"))
    ticks.requested()
    ticks.instance.add_dynamic_partitions("crawl", ["crawl-4", "crawl-5"])
    everything_up_to(ticks, "raw_pairs", "embeddings", "latent_classes", crawl="crawl-4")
    everything_up_to(ticks, "raw_pairs", "embeddings", crawl="crawl-5")
    run = ticks.begin("latent_classes", "crawl-5")
    assert ("pool", "crawl-10") not in ticks.requested()
    ticks.instance.report_run_failed(run)
    assert ("pool", "crawl-10") in ticks.requested()


def test_a_crawl_that_is_withdrawn_leaves_the_newest_pool(ticks):
    three_crawls(ticks)
    everything_up_to(ticks, "pool", crawl="crawl-10", holds=("crawl-1", "crawl-2"))
    ticks.requested()
    ticks.instance.delete_dynamic_partition("crawl", "crawl-2")
    assert ("pool", "crawl-10") in ticks.requested()
    everything_up_to(ticks, "pool", crawl="crawl-10", holds=("crawl-1",))
    assert ("pool", "crawl-10") not in ticks.requested()


def test_a_withdrawn_crawl_that_is_taken_back_joins_the_newest_pool_again(ticks):
    three_crawls(ticks)
    everything_up_to(ticks, "pool", crawl="crawl-10", holds=("crawl-1",))  # made while crawl-2 was withdrawn
    assert ("pool", "crawl-10") in ticks.requested()


def test_a_crawl_that_a_pool_left_out_is_not_asked_about_again_and_again(ticks):
    three_crawls(ticks)
    ticks.succeed("latent_classes", "crawl-2", failing=("one_class_a_pair",))
    everything_up_to(ticks, "pool", crawl="crawl-10", holds=("crawl-1",))
    for _ in range(2):
        assert ("pool", "crawl-10") not in ticks.requested()


def test_a_newest_crawl_that_is_withdrawn_leaves_the_pool_before_it_as_it_is(ticks):
    three_crawls(ticks)
    for crawl, holds in (("crawl-2", ("crawl-1",)), ("crawl-10", ("crawl-1", "crawl-2"))):
        everything_up_to(ticks, "pool", crawl=crawl, holds=holds)
    ticks.requested()
    ticks.instance.delete_dynamic_partition("crawl", "crawl-10")
    assert not {one for one in ticks.requested() if one[0] == "pool"}


def test_a_pool_that_failed_waits_until_other_crawls_would_go_in(ticks):
    three_crawls(ticks)
    everything_up_to(ticks, "pool", crawl="crawl-10", holds=("crawl-1",))
    assert ("pool", "crawl-10") in ticks.requested()
    ticks.fail("pool", "crawl-10")
    for _ in range(2):
        assert ("pool", "crawl-10") not in ticks.requested()
    run = ticks.begin("latent_classes", "crawl-2")
    assert ("pool", "crawl-10") not in ticks.requested()
    ticks.instance.report_run_canceled(run)
    ticks.succeed("latent_classes", "crawl-2", version="2")
    assert ("pool", "crawl-10") in ticks.requested()
    ticks.fail("pool", "crawl-10")
    assert ("pool", "crawl-10") not in ticks.requested()


def test_classes_of_an_earlier_crawl_that_are_made_again_and_are_equal_ask_for_no_pool(ticks):
    three_crawls(ticks)
    everything_up_to(ticks, "pool", crawl="crawl-10", holds=("crawl-1", "crawl-2"))
    ticks.succeed("latent_classes", "crawl-2")
    assert ("pool", "crawl-10") not in ticks.requested()


def test_a_crawl_whose_check_passes_later_joins_the_newest_pool(ticks):
    three_crawls(ticks)
    ticks.succeed("latent_classes", "crawl-2", failing=("one_class_a_pair",))
    everything_up_to(ticks, "pool", crawl="crawl-10", holds=("crawl-1",))
    assert ("pool", "crawl-10") not in ticks.requested()
    ticks.succeed("latent_classes", "crawl-2")
    assert ("pool", "crawl-10") in ticks.requested()


def test_a_crawl_that_was_delivered_anew_reaches_the_newest_pool(ticks):
    three_crawls(ticks)
    everything_up_to(ticks, "pool", crawl="crawl-10", holds=("crawl-1", "crawl-2"))
    ticks.requested()
    ticks.succeed("latent_classes", "crawl-2", version="2")
    assert ("pool", "crawl-10") in ticks.requested()


def test_a_method_that_is_configured_otherwise_selects_anew_from_the_newest_crawl(ticks):
    three_crawls(ticks)
    everything_up_to(ticks, "pool", crawl="crawl-10", holds=("crawl-1", "crawl-2"))
    for crawl in ("crawl-1", "crawl-10"):
        selected(ticks, crawl, "random")
    ticks.requested()
    changed = DEFINITIONS.map_resolved_asset_specs(
        func=lambda spec: spec.replace_attributes(code_version="another seed"), selection="random_ranking"
    )
    rankings = of(ticks.requested(definitions=changed), "ranking")
    assert ("random_ranking", "crawl-10") in rankings
    assert ("random_ranking", "crawl-1") not in rankings
    ticks.succeed("random_ranking", "crawl-10", version="2", code_version="another seed")
    assert ("random_ranking", "crawl-10") not in ticks.requested(definitions=changed)


def test_equal_content_again_asks_for_nothing(ticks):
    everything_up_to(ticks, *ROAD, "random_ranking")
    for fraction in ("f20", "f50"):
        ticks.succeed("random_subset", f"crawl-1|{fraction}")
    ticks.requested()
    ticks.succeed("random_ranking", "crawl-1", version="1")
    assert ("random_subset", "crawl-1|f20") not in ticks.requested()
    ticks.succeed("random_ranking", "crawl-1", version="2")
    assert ("random_subset", "crawl-1|f20") in ticks.requested()


def test_a_change_is_not_forgotten_where_its_request_is_lost_or_a_run_is_under_way(ticks):
    everything_up_to(ticks, *ROAD)
    ticks.requested()
    run = ticks.begin("embeddings", "crawl-1")
    ticks.succeed("raw_pairs", "crawl-1", version="2")
    assert ("embeddings", "crawl-1") not in ticks.requested()
    ticks.instance.report_run_canceled(run)
    for _ in range(2):
        assert ("embeddings", "crawl-1") in ticks.requested()
    ticks.succeed("embeddings", "crawl-1", version="2")
    assert ("embeddings", "crawl-1") not in ticks.requested()


def test_a_proxy_that_a_person_reported_without_a_version_is_no_news_for_ever(ticks):
    ticks.succeed("raw_pairs", "crawl-1")
    ticks.instance.report_runless_asset_event(dg.AssetMaterialization("proxy_checkpoint"))
    assert ("embeddings", "crawl-1") in ticks.requested()
    ticks.succeed("embeddings", "crawl-1")
    assert ("embeddings", "crawl-1") not in ticks.requested()


def test_what_failed_is_asked_for_again_when_its_input_is_another(ticks):
    everything_up_to(ticks, "raw_pairs", "proxy_checkpoint")
    ticks.fail("embeddings", "crawl-1")
    for _ in range(2):
        assert ("embeddings", "crawl-1") not in ticks.requested()
    ticks.succeed("raw_pairs", "crawl-1", version="2")
    assert ("embeddings", "crawl-1") in ticks.requested()


def test_one_dead_crawl_does_not_stop_another(ticks):
    ticks.instance.add_dynamic_partitions("crawl", ["crawl-2"])
    everything_up_to(ticks, *ROAD, crawl="crawl-2")
    assert ("random_ranking", "crawl-2") in ticks.requested()


@pytest.mark.parametrize(("opens", "closes", "open_at"), [(3, 7, {3, 4, 5, 6}), (22, 2, {22, 23, 0, 1})])
def test_hours_of_training_may_go_on_past_midnight(ticks, opens, closes, open_at):
    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["one"]), automation_condition=InHours(opens, closes))
    def asked_for():
        pass

    def requests(hour):
        time = DAY.replace(hour=hour)
        return dg.evaluate_automation_conditions(defs=[asked_for], instance=ticks.instance, evaluation_time=time)

    assert {hour for hour in range(24) if requests(hour).total_requested} == open_at
