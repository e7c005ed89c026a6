"""The jobs that people start: what they begin, and what they refuse."""

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from clipcov_assets.definitions import defs
from clipcov_assets.launch import made, newest_crawl
from resources.crawl_catalog import CrawlCatalog

DEFINITIONS = defs()


@pytest.fixture
def instance():
    """Two crawls that were classified, pools of both, random's subsets of the newer one; and one that has just come."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("crawl", ["crawl-2", "crawl-10", "crawl-11"])
        for crawl in ("crawl-2", "crawl-10"):
            for asset in ("latent_classes", "pool"):
                materialize(instance, asset, crawl)
        for fraction in ("f20", "f50"):
            materialize(instance, "random_subset", f"crawl-10|{fraction}")
        yield instance


def launch(instance, job, op, resources=None, **config):
    """Run a job as the launchpad does."""
    definition = dg.Definitions(
        assets=DEFINITIONS.assets,
        jobs=DEFINITIONS.jobs,
        resources={**DEFINITIONS.resources, **(resources or {})},
        executor=dg.in_process_executor,
    ).resolve_job_def(job)
    return definition.execute_in_process(
        instance=instance, run_config={"ops": {op: {"config": config}}}, raise_on_error=False
    )


def started(instance):
    """Asset -> partitions of the one backfill that was started, and the backfill."""
    (backfill,) = instance.get_backfills()
    subset = backfill.asset_backfill_data.target_subset.partitions_subsets_by_asset_key
    return {key.to_user_string(): set(one.get_partition_keys()) for key, one in subset.items()}, backfill


def materialize(instance, asset, partition):
    instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition))


def said(result):
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return event.step_failure_data.user_failure_data.description


def test_reselect_covers_pool_rankings_and_subsets_of_the_newest_crawl(instance):
    assert launch(instance, "reselect", "start_reselection").success
    work, backfill = started(instance)
    assert work["pool"] == {"crawl-10"}
    assert work["clipcov_class_ranking"] == {"crawl-10|s00", "crawl-10|s01"}
    assert work["semdedup_subset"] == {"crawl-10|f20", "crawl-10|f50"}
    assert work["full_subset"] == {"crawl-10|f100"}
    assert not any(asset.endswith(("_checkpoint", "_scorecard")) for asset in work)
    assert backfill.tags["clipcov/crawl"] == "crawl-10"


def test_reselect_leaves_out_a_method_whose_model_is_not_trained_yet(instance):
    launch(instance, "reselect", "start_reselection", crawl="crawl-2")
    assert "c_rho_ranking" not in started(instance)[0]
    materialize(instance, "partial_checkpoint", "crawl-10")
    materialize(instance, "partial_checkpoint", "crawl-2")
    launch(instance, "reselect", "start_reselection", crawl="crawl-2")
    assert any(
        dg.AssetKey("c_rho_ranking") in one.asset_backfill_data.target_subset.asset_keys
        for one in instance.get_backfills()
    )


def test_train_and_score_trains_what_has_no_checkpoint_yet(instance):
    for noun in ("checkpoint", "scorecard"):
        materialize(instance, f"random_{noun}", "crawl-10|f20")
    fields = {"methods": ["random"], "fractions": ["f20", "f50"]}
    assert launch(instance, "train_and_score", "start_training", **fields).success
    work, _ = started(instance)
    assert work == {"random_checkpoint": {"crawl-10|f50"}, "random_scorecard": {"crawl-10|f50"}}


def test_train_and_score_scores_what_has_no_scorecard_of_its_checkpoint_yet(instance):
    for asset in ("random_checkpoint", "random_scorecard", "random_checkpoint"):  # trained again, and not scored again
        materialize(instance, asset, "crawl-10|f20")
    materialize(instance, "random_checkpoint", "crawl-10|f50")  # never scored
    fields = {"methods": ["random"], "fractions": ["f20", "f50"]}
    assert launch(instance, "train_and_score", "start_training", **fields).success
    assert started(instance)[0] == {"random_scorecard": {"crawl-10|f20", "crawl-10|f50"}}


def test_train_and_score_starts_nothing_where_all_of_it_is_there(instance):
    for noun in ("checkpoint", "scorecard"):
        materialize(instance, f"random_{noun}", "crawl-10|f20")
    assert launch(instance, "train_and_score", "start_training", methods=["random"], fractions=["f20"]).success
    assert not instance.get_backfills()


def test_train_and_score_trains_everything_again_when_asked(instance):
    for noun in ("checkpoint", "scorecard"):
        materialize(instance, f"random_{noun}", "crawl-10|f20")
    fields = {"methods": ["random"], "fractions": ["f20"], "again": True}
    assert launch(instance, "train_and_score", "start_training", **fields).success
    assert started(instance)[0] == {"random_checkpoint": {"crawl-10|f20"}, "random_scorecard": {"crawl-10|f20"}}


def test_export_hands_the_formats_on(instance):
    fields = {"method": "random", "fraction": "f50", "formats": ["keys", "csv"]}
    result = launch(instance, "export", "start_export", **fields)
    assert result.success, said(result)
    work, backfill = started(instance)
    assert work == {"random_export": {"crawl-10|f50"}}
    assert backfill.run_config == {"ops": {"random_export": {"config": {"formats": ["keys", "csv"]}}}}


@pytest.mark.parametrize(
    ("job", "op", "fields", "words"),
    [
        ("reselect", "start_reselection", {"crawl": "crawl-11"}, "latent_classes is not materialized for crawl-11"),
        ("reselect", "start_reselection", {"crawl": "crawl-9"}, "'crawl-9' is no crawl; there are: crawl-2, crawl-10"),
        ("train_and_score", "start_training", {"methods": []}, "no method is named: choose from clipcov"),
        ("train_and_score", "start_training", {"methods": ["best"]}, "no method is called 'best': choose from clipcov"),
        ("train_and_score", "start_training", {"fractions": ["f99"]}, "no fraction is called 'f99'"),
        (
            "train_and_score",
            "start_training",
            {"methods": ["clipcov"], "fractions": ["f20"]},
            "clipcov_subset is not materialized for crawl-10|f20; it is for: none. Materialize it first",
        ),
        ("export", "start_export", {"formats": ["zip"]}, "no format is called 'zip'"),
        ("export", "start_export", {"formats": []}, "no format is named: choose from parquet"),
        ("withdraw", "take_back", {"crawl": "crawl-9", "reason": "a mistake"}, "'crawl-9' is no crawl; there are:"),
    ],
)
def test_what_cannot_be_done_is_named_and_nothing_is_started(instance, job, op, fields, words):
    result = launch(instance, job, op, **fields)
    assert not result.success
    assert words in said(result)
    assert not instance.get_backfills()


@pytest.mark.parametrize(
    ("job", "op", "fields"),
    [
        ("reselect", "start_reselection", {}),
        ("train_and_score", "start_training", {"methods": ["random"]}),
        ("export", "start_export", {"method": "random"}),
    ],
)
def test_of_a_crawl_that_was_withdrawn_nothing_is_started_although_its_past_is_there(instance, job, op, fields):
    instance.delete_dynamic_partition("crawl", "crawl-10")
    result = launch(instance, job, op, crawl="crawl-10", **fields)
    assert said(result) == "'crawl-10' is no crawl; there are: crawl-2, crawl-11"
    assert not instance.get_backfills()


def test_without_a_pool_the_remedy_is_named():
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(dg.Failure, match="no crawl has a pool yet"):
        newest_crawl(instance)


def test_a_withdrawn_crawl_is_no_partition_any_more_and_its_past_stays(instance, tmp_path):
    (tmp_path / "crawl-2").mkdir()
    catalog = CrawlCatalog(directory=str(tmp_path))
    fields = {"crawl": "crawl-2", "reason": "its licence was withdrawn"}
    result = launch(instance, "withdraw", "take_back", {"catalog": catalog}, **fields)
    assert result.success
    assert instance.get_dynamic_partitions("crawl") == ["crawl-10", "crawl-11"]
    assert "its licence was withdrawn" in catalog.withdrawn()["crawl-2"]
    assert "crawl-2" in made(instance, "pool")


@pytest.mark.parametrize("status", ["STARTED", "QUEUED", "NOT_STARTED", "CANCELING"])
def test_a_crawl_that_a_run_works_on_or_waits_for_is_not_withdrawn(instance, tmp_path, status):
    (tmp_path / "crawl-2").mkdir()
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "ours"), "some_job")
    tags, status = {"dagster/partition": "crawl-2|f20"}, dg.DagsterRunStatus[status]
    run = instance.add_run(dg.DagsterRun("some_job", tags=tags, status=status, remote_job_origin=origin))
    catalog = CrawlCatalog(directory=str(tmp_path))
    result = launch(instance, "withdraw", "take_back", {"catalog": catalog}, crawl="crawl-2", reason="a mistake")
    assert f"run {run.run_id} ({status.value.lower()}) is for crawl-2: wait for it or terminate it" in said(result)
    assert "crawl-2" in instance.get_dynamic_partitions("crawl")
    assert not catalog.withdrawn()


def test_a_crawl_is_withdrawn_when_no_backfill_covers_it_any_more(instance, tmp_path):
    (tmp_path / "crawl-10").mkdir()
    catalog = CrawlCatalog(directory=str(tmp_path))

    def withdraw(crawl):
        return launch(instance, "withdraw", "take_back", {"catalog": catalog}, crawl=crawl, reason="a mistake")

    launch(instance, "reselect", "start_reselection")
    (backfill,) = instance.get_backfills()
    refused = said(withdraw("crawl-10"))
    assert f"backfill {backfill.backfill_id} (reselect crawl-10) covers crawl-10 and would fail" in refused
    assert "wait until it has ended or cancel it" in refused
    assert withdraw("crawl-2").success
    instance.update_backfill(backfill.with_status(BulkActionStatus.COMPLETED_SUCCESS))
    assert withdraw("crawl-10").success
    assert instance.get_dynamic_partitions("crawl") == ["crawl-11"]


@pytest.mark.parametrize("job", ["reselect", "train_and_score", "export", "withdraw"])
def test_every_field_of_a_launchpad_is_described(job):
    (op,) = DEFINITIONS.resolve_job_def(job).nodes
    fields = op.definition.config_schema.config_type.fields
    assert fields
    assert all(len(field.description) > 15 for field in fields.values())
