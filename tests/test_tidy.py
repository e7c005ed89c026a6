"""What the weekly job removes, and what it never touches."""

import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickStatus
from sqlalchemy import text

from clipcov_assets.assets.pool import JoinedCrawls
from clipcov_assets.pool_tables import PooledClasses
from clipcov_assets.tidy import Freed, Skipped, forget_versions, purge_evaluations, tidy, weekly_tidy
from resources.lance_store import LanceStore
from resources.pieces import only_one
from resources.report_shelf import ReportShelf
from resources.staging import Staging
from tests.ranked_pool import write_crawl

CRAWLS = ["crawl-2", "crawl-9", "crawl-10"]
AT_ONCE = timedelta(0)


@pytest.fixture(autouse=True)
def short_moments(monkeypatch):
    """Versions that are written one after the other can be told apart by age."""
    monkeypatch.setattr("resources.lance_store.ONE_MOMENT", timedelta(milliseconds=200))


@pytest.fixture
def store(tmp_path):
    return LanceStore(uri=str(tmp_path / "lance"))


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("crawl", CRAWLS)
        yield instance


@pytest.fixture
def run(instance, store, tmp_path):
    """A function that runs the job and returns its metadata."""
    resources = {
        "store": store,
        "shelf": ReportShelf(directory=str(tmp_path / "reports")),
        "staging": Staging(directory=str(tmp_path / "staging")),
    }

    def tidied(**config):
        found = {}

        @dg.success_hook
        def keep(context):
            found.update(context.op_output_metadata["result"])

        config = {"ops": {"tidy_up": {"config": config}}}
        tidy.with_hooks({keep}).execute_in_process(config, instance=instance, resources=resources)
        return found

    return tidied


def write_file(path: Path, size: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def freed(found):
    return {row.data["what"]: (row.data["count"], row.data["bytes"]) for row in found["freed"].records}


def test_replaced_versions_go_and_those_that_a_pool_is_read_with_stay(store):
    write_crawl(store, "crawl-2", range(20))
    time.sleep(0.3)
    write_crawl(store, "crawl-2", range(30))  # two versions, of which the pool records the second
    JoinedCrawls(store, ["crawl-2"]).write(store, "crawl-2")
    before = next(PooledClasses(store, "crawl-2").load([0])).pairs
    time.sleep(0.3)
    write_crawl(store, "crawl-2", range(40))
    (outcome,) = forget_versions(store, AT_ONCE, {}, dry_run=False)
    assert (outcome.kind, outcome.bytes > 0) == ("versions of tables", True)
    kept = {
        table: [version for version in (1, 2, 3) if store.has_version(table, "crawl-2", version)]
        for table in ("raw_pairs", "latent_classes", "class_statistics", "embeddings")
    }
    assert kept == {"raw_pairs": [2, 3], "latent_classes": [2, 3], "class_statistics": [2, 3], "embeddings": [3]}
    assert (next(PooledClasses(store, "crawl-2").load([0])).pairs == before).all()


def test_a_trial_says_what_would_go_and_removes_nothing(store, run, tmp_path):
    page = write_file(tmp_path / "reports/galleries/crawl-2/f20/random_subset.html")
    left = write_file(tmp_path / "staging/embeddings.crawl-1/piece/pairs.arrow")
    found = run(keep_galleries=1, dry_run=True)
    assert {row.data["what"]: row.data["count"] for row in found["would_be_freed"].records} == {
        "versions of tables": 0,
        "crawls with galleries": 1,
        "leftovers of unfinished work": 1,
    }
    assert found["bytes"].value == 200
    assert page.exists()
    assert left.exists()


def test_galleries_of_the_newest_crawls_stay(run, tmp_path):
    pages = [write_file(tmp_path / f"reports/galleries/{crawl}/f20/random_subset.html") for crawl in CRAWLS]
    other = [write_file(tmp_path / "reports/comparison.html"), write_file(tmp_path / "reports/crawl-2/curves.png")]
    assert freed(run(keep_galleries=2))["crawls with galleries"] == (1, 100)
    assert [page.exists() for page in pages] == [False, True, True]
    assert all(one.exists() for one in other)


def test_unfinished_work_on_a_crawl_that_is_none_any_more_goes(run, tmp_path):
    names = ["embeddings.crawl-1", "random_checkpoint.crawl-1.f20", "embeddings.crawl-2", "proxy_checkpoint.all"]
    left = {name: write_file(tmp_path / "staging" / name / "piece/pairs.arrow") for name in names}
    assert freed(run())["leftovers of unfinished work"] == (2, 200)
    assert [name for name, file in left.items() if file.exists()] == names[2:]


def test_unfinished_work_that_a_run_holds_is_left_to_it(run, tmp_path):
    left = write_file(tmp_path / "staging/embeddings.crawl-1/piece/pairs.arrow")
    with only_one(tmp_path / "staging/embeddings.crawl-1.lock", "embeddings"):
        found = run()
    assert left.exists()
    (reason,) = [row.data for row in found["reasons"].records]
    assert (reason["what"], found["skipped"].value) == ("embeddings.crawl-1", 1)
    assert "another run works on embeddings.crawl-1" in reason["reason"]


def start(instance, tags, status=dg.DagsterRunStatus.STARTED):
    """A run of an asset that works while the job runs."""
    run = dg.DagsterRun("some_job", tags=tags, status=status, asset_selection=frozenset([dg.AssetKey("pool")]))
    instance.add_run(run)
    return run.run_id


def test_what_a_run_in_progress_works_on_is_skipped_with_the_reason(instance, run, store, tmp_path):
    started = start(instance, {"dagster/partition": "crawl-2|f20"})
    start(instance, {"dagster/partition": "crawl-9|f20"}, dg.DagsterRunStatus.SUCCESS)
    pages = [write_file(tmp_path / f"reports/galleries/{crawl}/f20/random_subset.html") for crawl in CRAWLS]
    store.write("random_subset", "crawl-2|f20", pa.table({"uid": ["a"]}))
    found = run(keep_galleries=1)
    assert [page.exists() for page in pages] == [True, False, True]
    assert {row.data["what"]: row.data["reason"] for row in found["reasons"].records} == {
        "random_subset.crawl-2.f20": f"run {started} is in progress on crawl-2",
        "galleries of crawl-2": f"run {started} is in progress on it",
    }


def test_versions_stay_while_a_run_may_read_any_crawl(instance, store):
    store.write("pool", "crawl-2", pa.table({"uid": ["a"]}))
    assert list(forget_versions(store, AT_ONCE, {"": "a-run"}, dry_run=False)) == [
        Skipped("versions of tables", "run a-run is in progress and may read any of them")
    ]


def test_an_empty_store_and_an_empty_shelf_are_tidy(run):
    found = run()
    assert freed(found) == {
        "versions of tables": (0, 0),
        "crawls with galleries": (0, 0),
        "leftovers of unfinished work": (0, 0),
    }
    assert found["skipped"].value == 0


@pytest.mark.parametrize("name", ["..", "comparison.html", "nothing", "../other"])
def test_only_folders_of_the_shelf_are_removed(tmp_path, name):
    write_file(tmp_path / "other/file")
    write_file(tmp_path / "reports/comparison.html")
    with pytest.raises(ValueError, match="is no folder of"):
        ReportShelf(directory=str(tmp_path / "reports")).remove(name)
    assert (tmp_path / "other/file").exists()


def test_materializations_and_runs_are_kept(instance, run):
    instance.report_runless_asset_event(dg.AssetMaterialization("pool", partition="crawl-2"))
    run()
    run()
    assert instance.get_materialized_partitions(dg.AssetKey("pool")) == {"crawl-2"}
    assert instance.get_runs_count() == 2


def test_evaluations_of_conditions_are_forgotten_after_their_days(tmp_path):
    asset = dg.AssetSpec("some", automation_condition=dg.AutomationCondition.missing())
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        (found,) = dg.evaluate_automation_conditions(
            defs=[dg.AssetsDefinition(specs=[asset])], instance=instance
        ).results
        storage = instance.schedule_storage
        for number in (1, 2):
            storage.add_auto_materialize_asset_evaluations(number, [found.serializable_evaluation.with_run_ids(set())])
        with storage.connect() as connection:
            connection.execute(
                text("UPDATE asset_daemon_asset_evaluations SET create_timestamp = :then WHERE evaluation_id = 1"),
                {"then": datetime.now(UTC).replace(tzinfo=None) - timedelta(days=8)},
            )
        purge_evaluations(instance, keep_days=9)
        assert len(storage.get_auto_materialize_asset_evaluations(asset.key, limit=5)) == 2
        purge_evaluations(instance, keep_days=7)
        (left,) = storage.get_auto_materialize_asset_evaluations(asset.key, limit=5)
        assert left.evaluation_id == 2


def test_a_week_ends_with_tidying():
    assert (weekly_tidy.cron_schedule, weekly_tidy.job_name) == ("0 4 * * 0", "tidy")
    assert weekly_tidy.default_status is dg.DefaultScheduleStatus.RUNNING


def test_ticks_are_kept_for_days_and_not_for_ever(tmp_path, monkeypatch):
    shutil.copy(Path(__file__).parents[1] / "dagster.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)  # the databases lie relative to it
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        for kind in InstigatorType:
            assert all(0 < days <= 90 for days in instance.get_tick_retention_settings(kind).values()), kind
        assert instance.get_tick_retention_settings(InstigatorType.SENSOR)[TickStatus.SKIPPED] == 2


def test_what_was_freed_is_told_with_its_size(run, tmp_path):
    write_file(tmp_path / "staging/embeddings.crawl-1/piece/pairs.arrow", 1234)
    found = run()
    assert found["bytes"].value == 1234
    assert Freed("leftovers of unfinished work", 1, 1234).bytes == 1234
