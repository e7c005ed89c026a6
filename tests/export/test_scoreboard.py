from collections.abc import Callable

import polars as pl

from clipcov_assets.export.scoreboard import scoreboard


def test_the_scoreboard_reads_as_expected(scores: pl.DataFrame) -> None:
    assert scoreboard(scores, "crawl-1") == (
        "crawl-1: zero-shot accuracy (acc1) in per cent [95 % interval]\n"
        "\n"
        "                                      birds               pets\n"
        "method   fraction  pairs         200 images         200 images\n"
        "--------------------------------------------------------------\n"
        "chance                    10.0               10.0\n"
        "\n"
        "clipcov       5 %     50  30.0 [27.5, 32.5]  30.0 [27.5, 32.5]\n"
        "random        5 %     50  20.0 [17.5, 22.5]  20.0 [17.5, 22.5]\n"
        "\n"
        "clipcov      10 %    100  45.0 [42.5, 47.5]  45.0 [42.5, 47.5]\n"
        "random       10 %    100  25.0 [22.5, 27.5]  25.0 [22.5, 27.5]\n"
        "--------------------------------------------------------------\n"
        "full        100 %  1,000  50.0 [47.5, 52.5]  50.0 [47.5, 52.5]\n"
    )


def test_many_evaluation_sets_are_spread_over_tables_that_fit(build: Callable[..., pl.DataFrame]) -> None:
    names = tuple(f"evaluation set {number}" for number in range(11))
    board = scoreboard(build({("random", 0.1): 0.3, ("full", 1.0): 0.5}, evaluation_sets=names), "crawl-1")
    assert max(map(len, board.splitlines())) <= 120
    assert all(board.count(name) == 1 + (name[-2:] == " 1") for name in names)
    assert board.count("chance") == board.count("full ") == 3


def test_a_full_pool_that_is_not_there_is_a_dash(build: Callable[..., pl.DataFrame]) -> None:
    last = scoreboard(build({("random", 0.1): 0.3}), "crawl-1").splitlines()[-1]
    assert last.split() == ["full", "100", "%", "–", "–"]


def test_a_hostile_name_cannot_reach_the_terminal(build: Callable[..., pl.DataFrame]) -> None:
    board = scoreboard(build({("full", 1.0): 0.5}, evaluation_sets=("\x1b]0;owned\x07",)), "crawl-1")
    assert "\x1b" not in board and "\x07" not in board


def test_a_main_metric_other_than_acc1_is_named(build: Callable[..., pl.DataFrame]) -> None:
    accuracies = {("clipcov", 0.05): 0.3, ("full", 1.0): 0.5}
    scores = pl.concat(
        [build(accuracies), build(accuracies, evaluation_sets=("shapes",), main="mean_per_class_recall")]
    )
    lines = scoreboard(scores, "crawl-1").splitlines()
    assert lines[0] == "crawl-1: zero-shot main metric of each set in per cent [95 % interval]"
    assert lines[2].split() == ["pets", "shapes"]
    assert lines[3].split() == ["acc1", "mean", "per-class", "recall"]
    assert lines[-1] == "full        100 %  1,000  50.0 [47.5, 52.5]      45.0 [42.5, 47.5]"


def test_the_spread_of_seeds_follows_the_interval(build: Callable[..., pl.DataFrame]) -> None:
    several = build({("clipcov", 0.05): 0.3}, seed_deviation=0.012)
    lines = scoreboard(pl.concat([several, build({("full", 1.0): 0.5})]), "crawl-1").splitlines()
    assert lines[0].endswith("[95 % interval] ± deviation over seeds")
    assert lines[-3] == "clipcov       5 %     50  30.0 [27.5, 32.5] ±1.2"
    assert lines[-1] == "full        100 %  1,000  50.0 [47.5, 52.5]"
