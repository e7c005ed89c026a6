"""`make demo` as a person runs it, on a delivery of their own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from clipcov_assets import demo as demo_module
from clipcov_assets.demo import Step, is_there
from tests.deliveries import deliver, evaluation_set

REPOSITORY = Path(__file__).parents[1]


def demo(home):
    environment = {
        **os.environ,
        "CLIPCOV_HOME": str(home),
        "CLIPCOV_CRAWLS": str(home / "crawls"),
        "CLIPCOV_EVALUATION": str(home / "eval"),
        "DAGSTER_HOME": str(home),
        "PYTHONPATH": str(REPOSITORY),
    }
    return subprocess.run(
        [sys.executable, "-m", "clipcov_assets.demo"],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
    )


def files(home):
    return {path: path.stat().st_mtime_ns for path in (home / "var").rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(REPOSITORY / "data/demo/prompts", home / "data/demo/prompts")
    shutil.copy(REPOSITORY / "dagster.yaml", home)
    deliver(home / "crawls/crawl-1", range(24))
    evaluation_set(home / "eval/colours", range(100, 120))
    return home


@pytest.fixture(scope="module")
def first(home):
    return demo(home)


def test_it_ends_with_a_scoreboard_a_report_and_the_way_to_the_ui(home, first):
    assert first.returncode == 0, first.stderr
    assert "chance" in first.stdout
    for method in ("clipcov", "clip_score", "c_rho", "semdedup", "metaclip", "random", "full"):
        assert f"\n{method} " in first.stdout
    assert "Scorecards missing: none of 13." in " ".join(first.stdout.split())
    assert f"report:  {home / 'var/reports/comparisons/crawl-1.html'}" in first.stdout
    assert "make ui, then open http://127.0.0.1:3000" in first.stdout


def test_it_shows_its_progress_and_nothing_that_looks_like_trouble(first):
    assert "crawl-1 [1/" in first.stdout
    for word in ("Warning", "WARN", "Error", "Traceback"):
        assert word not in first.stdout + first.stderr


def test_running_it_again_changes_nothing_but_says_the_same(home, first):
    before = files(home)
    again = demo(home)
    assert again.returncode == 0, again.stderr
    assert "crawl-1 [" not in again.stdout
    assert (
        again.stdout.split("done in")[0].strip()
        == first.stdout[first.stdout.index("\ncrawl-1: ") :].split("done in")[0].strip()
    )
    changed = {path for path, time in files(home).items() if before.get(path) != time}
    assert not {path for path in changed if path.suffix != ".db" and "dagster" not in path.parts}


def test_a_delivery_that_has_not_finished_is_passed_over_and_named(home, first):
    (deliver(home / "crawls/crawl-9", range(3)) / "00000_stats.json").unlink()
    again = demo(home)
    shutil.rmtree(home / "crawls/crawl-9")
    assert again.returncode == 0
    assert "crawl-9/00000.tar is unfinished" in again.stderr


def test_a_crawl_that_fails_is_named_and_the_others_go_on(home, first):
    spoiled = dict.fromkeys(range(30, 34), b"no image")
    deliver(home / "crawls/crawl-0", range(30, 34), spoiled=spoiled)
    again = demo(home)
    shutil.rmtree(home / "crawls/crawl-0")
    assert again.returncode == 1
    assert "error: raw_pairs of crawl-0" in again.stderr
    assert "every one of its 4 pairs was quarantined" in again.stderr
    assert "crawl-1: zero-shot accuracy" in again.stdout


@pytest.mark.parametrize(("passed", "there"), [(True, True), (False, False)])
def test_what_failed_a_blocking_check_is_made_again(passed, there):
    @dg.asset(check_specs=[dg.AssetCheckSpec("sound", asset="embeddings", blocking=True)])
    def embeddings():
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(check_name="sound", passed=passed)])

    @dg.asset(deps=[embeddings])
    def latent_classes():
        return None

    with dg.DagsterInstance.ephemeral() as instance:
        assert not is_there(instance, "embeddings", None)
        dg.materialize([embeddings, latent_classes], instance=instance, raise_on_error=False)
        assert is_there(instance, "embeddings", None) is there
        assert is_there(instance, "latent_classes", None) is there


def test_a_comparison_is_made_again_when_a_scorecard_was_added(monkeypatch):
    made = []

    @dg.asset
    def scorecard():
        made.append("scorecard")

    @dg.asset(deps=[scorecard])
    def comparison():
        made.append("comparison")

    steps = [Step(("scorecard",), None), Step(("comparison",), None, gathers=True)]
    monkeypatch.setattr(demo_module, "road", lambda crawl: steps)
    job = dg.Definitions(assets=[scorecard, comparison]).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([comparison], instance=instance)
        made.clear()
        assert demo_module._carry(job, instance, "crawl-1")
        assert made == ["scorecard", "comparison"]
        assert demo_module._carry(job, instance, "crawl-1")
        assert made == ["scorecard", "comparison"]


def test_an_empty_crawls_directory_says_what_to_put_there(tmp_path):
    (tmp_path / "crawls").mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path)
    done = demo(tmp_path)
    assert done.returncode == 1
    assert "error: no complete delivery in" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_crawls_directory_is_named(tmp_path):
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path)
    done = demo(tmp_path)
    assert done.returncode == 1
    assert "does not exist: create it, or point CLIPCOV_CRAWLS" in done.stderr
