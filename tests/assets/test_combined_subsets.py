"""Subsets of two methods combined: on a small store, and once from deliveries to scorecards."""

import os
import subprocess
import sys

import dagster as dg
import pyarrow as pa
import pytest

from clipcov_assets.assets.combined_subsets import combined, combined_subset_asset
from clipcov_assets.checks import combination_check
from clipcov_assets.core.set_algebra import OPERATIONS, Combination
from clipcov_assets.partitions import crawls, partitions_of
from clipcov_assets.tables import RANKING
from resources.lance_store import LanceStore
from resources.report_shelf import ReportShelf
from tests.ranked_pool import ranked_pool, uid_of

CRAWL, PARTITION = "crawl-2", "crawl-2|f20"
OF_SETS = {"&": set.__and__, "|": set.__or__, "-": set.__sub__}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return ranked_pool(tmp_path_factory.mktemp("store"), "clip_score", "random")


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("crawl", [CRAWL])
        yield instance


def materialize(store, instance, combination):
    """The combined subset with its check, after its two subsets were reported."""
    for method in combination.methods:
        event = dg.AssetMaterialization(
            f"{method}_subset", partition=PARTITION, tags={"dagster/data_version": f"version of {method}"}
        )
        instance.report_runless_asset_event(event)
    return dg.materialize(
        [combined_subset_asset(combination), combination_check(combination)],
        partition_key=PARTITION,
        instance=instance,
        resources={"store": store, "shelf": ReportShelf(directory=f"{store.uri}.reports")},
        raise_on_error=False,
    )


def rows(store, name):
    return store.read(f"{name}_subset", PARTITION).sort_by("rank").to_pylist()


@pytest.mark.parametrize("operator", OPERATIONS)
def test_a_combined_subset_is_what_the_sets_say_and_its_check_agrees(store, instance, operator):
    combination = Combination("clip_score", operator, "random")
    result = materialize(store, instance, combination)
    assert result.success
    first, second, found = (rows(store, name) for name in (*combination.methods, combination.name))
    uids = [{row["uid"] for row in some} for some in (first, second, found)]
    assert uids[2] == OF_SETS[operator](*uids[:2])
    assert len(found) == len(uids[2]) > 0
    assert [row["rank"] for row in found] == list(range(len(found)))
    (check,) = result.get_asset_check_evaluations()
    assert check.passed
    assert check.blocking


def test_a_gain_is_that_of_the_first_method_where_it_picks_the_pair(store, instance):
    combination = Combination("clip_score", "|", "random")
    materialize(store, instance, combination)
    first, second = ({row["uid"]: row["gain"] for row in rows(store, name)} for name in combination.methods)
    assert {row["uid"]: row["gain"] for row in rows(store, combination.name)} == second | first


def test_a_combined_subset_tells_what_it_keeps_and_names_both_inputs(store, instance):
    combination = Combination("clip_score", "&", "random")
    (done,) = materialize(store, instance, combination).asset_materializations_for_node("clip_score_and_random_subset")
    told = {name: value.value for name, value in done.metadata.items()}
    assert told["pairs"] == len(rows(store, combination.name))
    assert told["fraction"] == 0.2
    assert 0 < told["class_coverage"] <= 1
    assert "first_picks" in told
    inputs = [
        (row.data["asset"], row.data["partition"], row.data["data_version"])
        for row in done.metadata["provenance"].records
    ]
    assert inputs == [
        ("clip_score_subset", PARTITION, "version of clip_score"),
        ("random_subset", PARTITION, "version of random"),
    ]


def test_a_combination_without_pairs_says_that_there_is_nothing_to_train_on(store, instance):
    store.write("semdedup_subset", PARTITION, store.read("random_subset", PARTITION))
    result = materialize(store, instance, Combination("random", "-", "semdedup"))
    assert not result.success
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    words = failed.step_failure_data.user_failure_data.description
    assert words.startswith("random_without_semdedup_subset of crawl-2|f20 would hold no pair, so there is nothing to")
    assert "Pairs that random picks and semdedup does not" in words
    assert not store.exists("random_without_semdedup_subset", PARTITION)


def test_materializing_again_gives_the_same_version(store, instance):
    versions = {
        materialize(store, instance, Combination("clip_score", "|", "random"))
        .asset_materializations_for_node("clip_score_or_random_subset")[0]
        .tags["dagster/data_version"]
        for _ in range(2)
    }
    assert len(versions) == 1


def test_a_combination_follows_the_subsets_of_its_methods_by_itself(instance):
    combination = Combination("clip_score", "&", "random")
    parts = [dg.AssetSpec(f"{method}_subset", partitions_def=partitions_of(method)) for method in combination.methods]
    parts.append(dg.AssetSpec("raw_pairs", partitions_def=crawls))  # says which crawls there are
    definitions = dg.Definitions([*parts, combined_subset_asset(combination)], resources={"store": None, "shelf": None})
    requested, cursor = [], None
    for method in (None, *combination.methods):
        if method:
            instance.report_runless_asset_event(dg.AssetMaterialization(f"{method}_subset", partition=PARTITION))
        result = dg.evaluate_automation_conditions(definitions, instance, cursor=cursor)
        cursor = result.cursor
        requested.append(result.get_requested_partitions(dg.AssetKey(f"{combination.name}_subset")))
    assert requested == [set(), set(), {PARTITION}]


def table(*uids):
    columns = {"uid": list(uids), "rank": list(range(len(uids))), "gain": [float(place) for place in range(len(uids))]}
    return pa.table(columns, schema=RANKING)


def test_pairs_are_combined_by_hand():
    found = combined(Combination("clipcov", "|", "random"), table("d", "a"), table("b", "d", "c"))
    assert found.to_pylist() == [
        {"uid": "d", "rank": 0, "gain": 0.0},
        {"uid": "b", "rank": 1, "gain": 0.0},
        {"uid": "a", "rank": 2, "gain": 1.0},
        {"uid": "c", "rank": 3, "gain": 2.0},
    ]
    assert len(combined(Combination("clipcov", "&", "random"), table("a"), table("b"))) == 0


FIRST, SECOND = [uid_of(pair) for pair in (1, 2, 3)], [uid_of(pair) for pair in (3, 4)]


@pytest.mark.parametrize(
    ("operator", "spoiled"),
    [
        ("&", [*FIRST[2:], FIRST[0]]),  # too many
        ("&", []),  # too few
        ("|", [*FIRST]),
        ("|", [*FIRST, SECOND[1], uid_of(9)]),  # in neither
        ("|", [*FIRST, SECOND[1], FIRST[0]]),  # twice
        ("-", [FIRST[0]]),
        ("-", [*FIRST[:2], FIRST[2]]),
    ],
)
def test_a_combined_subset_that_somebody_spoiled_is_found(tmp_path, instance, operator, spoiled):
    combination = Combination("clipcov", operator, "random")
    assert not evaluated(tmp_path, instance, combination, table(*spoiled)).passed


def test_a_combined_subset_whose_ranks_have_a_gap_is_found(tmp_path, instance):
    right, combination = table(*FIRST[:2]), Combination("clipcov", "-", "random")
    assert evaluated(tmp_path, instance, combination, right).passed
    gap = right.set_column(1, "rank", pa.array([0, 2]))
    assert not evaluated(tmp_path, instance, combination, gap).passed


def evaluated(home, instance, combination, subset):
    """What the check says of a stored subset."""
    store = LanceStore(uri=str(home))
    for name, some in (("clipcov", table(*FIRST)), ("random", table(*SECOND)), (combination.name, subset)):
        store.write(f"{name}_subset", PARTITION, some)

    @dg.asset(name=f"{combination.name}_subset", partitions_def=partitions_of(combination.name))
    def written_by_the_test():
        return dg.MaterializeResult()

    result = dg.materialize(
        [written_by_the_test, combination_check(combination)],
        partition_key=PARTITION,
        instance=instance,
        resources={"store": store},
        raise_on_error=False,
    )
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


FROM_DELIVERY_TO_COMPARISON = """
import sys
from pathlib import Path

import dagster as dg

from clipcov_assets.demo import road
from clipcov_assets.export.subset_files.export_format import ExportOptions
from clipcov_assets.jobs.export import export_subset
from tests.deliveries import deliver, evaluation_set
from tests.world import Machine

NAMES = ("clip_score_or_random", "clip_score_without_random")
WANTED = {f"{name}_{noun}" for name in NAMES for noun in ("subset", "checkpoint", "scorecard")}
WANTED |= {f"{method}_{noun}" for method in ("clip_score", "random") for noun in ("ranking", "subset")}
WANTED |= {"raw_pairs", "proxy_checkpoint", "embeddings", "latent_classes", "pool", "comparison"}
home = Path(sys.argv[1])
deliver(home / "crawls/crawl-1", range(60))
evaluation_set(home / "eval/colours", range(200, 240))
with dg.DagsterInstance.ephemeral() as instance:
    instance.add_dynamic_partitions("crawl", ["crawl-1"])
    machine = Machine(home, instance)
    for step in road("crawl-1"):
        if (step.partition or "").endswith("f50"):
            continue
        assets = [one for one in step.assets if one in WANTED]
        if assets:
            machine.materialize(*assets, partition=step.partition)
    sizes = {name: machine.metadata(f"{name}_subset", "crawl-1|f20")["pairs"] for name in NAMES}
    assert 12 < sizes["clip_score_or_random"] <= 24
    assert sizes["clip_score_or_random"] == 12 + sizes["clip_score_without_random"]
    rows = machine.store.read("comparison", "crawl-1").to_pylist()
    assert {(row["method"], row["pairs"]) for row in rows} == set(sizes.items())
    assert machine.metadata("clip_score_or_random_scorecard", "crawl-1|f20")["images"] == 40
    (one,) = export_subset(
        machine.store, machine.resources["exports"], "clip_score_or_random_subset", "crawl-1|f20", ["parquet"],
        ExportOptions(), print,
    )
    assert one.manifest["pairs"] == sizes["clip_score_or_random"]
    report = (home / "reports/comparisons/crawl-1.html").read_text()
    assert all(name in report for name in NAMES)
"""


def test_combinations_are_trained_on_scored_exported_and_compared_like_any_subset(tmp_path):
    environment = {**os.environ, "CLIPCOV_COMBINATIONS": "clip_score | random, clip_score - random"}
    done = subprocess.run(
        [sys.executable, "-c", FROM_DELIVERY_TO_COMPARISON, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
