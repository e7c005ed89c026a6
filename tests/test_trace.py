import json
import subprocess
import sys

import dagster as dg
import pytest

from clipcov_assets.trace import main
from tests.histories import SCORECARD, Past, pairs, two_crawls


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("history")
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        past = Past(home, instance)
        two_crawls(past)
        subset = past.make("random_subset", "crawl-1|f20", "s", rows=pairs("a"))
        past.make("random_checkpoint", "crawl-1|f20", "c", [subset], rows=pairs())
        past.make("random_subset", "crawl-1|f20", "another", rows=pairs("b"))
    return home


@pytest.fixture(autouse=True)
def environment(home, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("CLIPCOV_LANCE", str(home / "lance"))


def test_a_result_in_order_is_a_tree_and_status_0(capsys):
    assert main([*SCORECARD]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("clipcov_scorecard crawl-2|f20, made ")
    assert "all in order: 14 materializations" in shown
    assert "the code of pool has changed since: 1 then, 2 now" in shown


def test_a_fault_is_status_2(capsys):
    assert main(["random_checkpoint", "crawl-1|f20"]) == 2
    assert "! has changed since" in capsys.readouterr().out


def test_json_has_every_node(capsys):
    assert main([*SCORECARD, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["nodes"]) == 14


def test_a_crawl_and_a_pair_are_followed_forward(capsys):
    assert main(["--pair", "d"]) == 0
    assert "pair d is in 1 of 1 pools, 1 of 2 subsets" in capsys.readouterr().out
    assert main(["--crawl", "crawl-1", "--json"]) == 2  # of which pool the subset by hand is cannot be said
    found = json.loads(capsys.readouterr().out)
    assert (found["crawl"], found["searched"]["scorecard"]) == ("crawl-1", 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cat_scorecard", "crawl-2|f20"], "there are 'clipcov_checkpoint'"),
        (["clipcov_scorecard", "crawl-3|f20"], "it is there for 'crawl-2|f20'"),
        (["--crawl", "crawl-9"], "there are those of 'crawl-1', 'crawl-2'"),
        (["--pair", "nobody"], "no pair 'nobody'"),
        ([], "name one thing"),
        (["pool", "crawl-2", "--crawl", "crawl-1"], "name one thing"),
        (["--colour"], "unrecognized arguments"),
    ],
)
def test_a_mistake_is_answered_in_one_line_and_status_1(capsys, arguments, words):
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_without_a_history_the_remedy_is_named(capsys, monkeypatch):
    monkeypatch.delenv("DAGSTER_HOME")
    assert main([*SCORECARD]) == 1
    assert "export DAGSTER_HOME=" in capsys.readouterr().err


def test_the_command_imports_no_torch():
    program = "import sys, clipcov_assets.trace; print([m for m in ('torch', 'open_clip') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
