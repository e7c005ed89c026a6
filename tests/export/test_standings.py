from collections.abc import Callable

import polars as pl
import pytest

from clipcov_assets.core.metrics import Estimate
from clipcov_assets.export.standings import (
    area_under_size_curve,
    metric_words,
    percent,
    printable,
    retained,
    show,
    smallest_fraction_reaching,
    standings_of,
)


def test_subsets_are_ordered_by_size_and_full_stands_apart(scores: pl.DataFrame) -> None:
    standings = standings_of(scores.sample(fraction=1, shuffle=True, seed=0), "crawl-1")
    assert [(row.method, row.fraction, row.pairs) for row in standings.rows] == [
        ("clipcov", 0.05, 50),
        ("random", 0.05, 50),
        ("clipcov", 0.1, 100),
        ("random", 0.1, 100),
    ]
    assert standings.full is not None and standings.full.pairs == 1000
    assert standings.methods == ("clipcov", "random")
    assert standings.images == {"birds": 200, "pets": 200}
    assert standings.chance["pets", "acc5"] == 0.5


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_value_that_is_not_there_is_a_dash_and_no_zero(
    build: Callable[..., pl.DataFrame], value: float | None
) -> None:
    standings = standings_of(build({("random", 0.1): value}), "crawl-1")
    assert standings.rows[0].estimates == {}
    assert show(standings.rows[0].estimates.get(("pets", "acc1"))) == "–"


def test_an_unknown_crawl_is_named(scores: pl.DataFrame) -> None:
    with pytest.raises(ValueError, match="'crawl-9'.*materialize"):
        standings_of(scores, "crawl-9")


def test_the_smallest_fraction_that_reaches_the_share_is_found(build: Callable[..., pl.DataFrame]) -> None:
    scores = build(
        {
            ("clipcov", 0.05): 0.35,
            ("clipcov", 0.1): 0.36,  # 90 % of 0.4, and yet below the product of the floats
            ("clipcov", 0.3): 0.35,
            ("random", 0.05): 0.24,
            ("random", 0.1): None,
            ("full", 1.0): 0.4,
        }
    )
    found = smallest_fraction_reaching(scores, "crawl-1")
    assert found.rows() == [("clipcov", "pets", 0.1, 100), ("random", "pets", None, None)]
    assert found.columns == ["method", "evaluation_set", "fraction", "pairs"]
    assert smallest_fraction_reaching(scores, "crawl-1", share=0.6)["fraction"].to_list() == [0.05, 0.05]


def test_without_a_full_pool_nothing_is_reached_or_retained(build: Callable[..., pl.DataFrame]) -> None:
    scores = build({("clipcov", 0.05): 0.9})
    assert smallest_fraction_reaching(scores, "crawl-1")["fraction"].to_list() == [None]
    assert retained(scores, "crawl-1").select("retained", "retained_above_chance").rows() == [(None, None)]


def test_a_set_is_judged_by_its_main_metric(build: Callable[..., pl.DataFrame]) -> None:
    scores = build({("clipcov", 0.05): 0.5, ("full", 1.0): 0.55}, main="mean_per_class_recall")
    standings = standings_of(scores, "crawl-1")
    assert standings.metrics["pets"] == ("mean_per_class_recall", "acc1", "acc5")
    assert standings.full_estimate("pets") == Estimate(0.5, 0.475, 0.525)
    # 0.45 is 90 % of 0.5, and 0.5 is more than 90 % of 0.55.
    assert smallest_fraction_reaching(scores, "crawl-1")["fraction"].to_list() == [0.05]
    assert retained(scores, "crawl-1").row(0)[4:6] == ("mean_per_class_recall", pytest.approx(0.9))


def test_what_is_retained_is_said_with_and_without_chance(build: Callable[..., pl.DataFrame]) -> None:
    scores = build({("clipcov", 0.1): 0.4, ("random", 0.1): 0.1, ("semdedup", 0.1): None, ("full", 1.0): 0.5})
    found = retained(scores, "crawl-1")
    assert found.columns == [
        "method",
        "fraction",
        "pairs",
        "evaluation_set",
        "metric",
        "retained",
        "retained_above_chance",
    ]
    # The full pool is 0.4 above a chance of 0.1.
    assert found.rows() == [
        ("clipcov", 0.1, 100, "pets", "acc1", pytest.approx(0.8), pytest.approx(0.75)),
        ("random", 0.1, 100, "pets", "acc1", pytest.approx(0.2), pytest.approx(0)),
        ("semdedup", 0.1, 100, "pets", "acc1", None, None),
    ]


def test_of_a_full_pool_that_guesses_nothing_is_above_chance(build: Callable[..., pl.DataFrame]) -> None:
    found = retained(build({("clipcov", 0.1): 0.4, ("full", 1.0): 0.1}), "crawl-1")
    assert found.select("retained", "retained_above_chance").row(0) == (pytest.approx(4), None)


def test_the_area_is_the_mean_over_the_logarithm_of_the_size(build: Callable[..., pl.DataFrame]) -> None:
    # From 5 to 10 % and from 10 to 40 % are one and two doublings: (1 * 0.25 + 2 * 0.4) / 3.
    accuracies = {("clipcov", 0.05): 0.2, ("clipcov", 0.1): 0.3, ("clipcov", 0.4): 0.5, ("full", 1.0): 0.7}
    found = area_under_size_curve(build(accuracies), "crawl-1")
    assert found.columns == ["method", "evaluation_set", "metric", "area", "retained"]
    assert found.rows() == [("clipcov", "pets", "acc1", pytest.approx(0.35), pytest.approx(0.5))]


def test_an_area_is_never_over_fewer_sizes_than_another_methods(build: Callable[..., pl.DataFrame]) -> None:
    accuracies = {("clipcov", 0.05): 0.2, ("clipcov", 0.1): 0.3, ("random", 0.05): 0.2, ("random", 0.1): None}
    found = area_under_size_curve(build(accuracies), "crawl-1")
    assert found.select("method", "area", "retained").rows() == [
        ("clipcov", pytest.approx(0.25), None),
        ("random", None, None),
    ]
    single = area_under_size_curve(build({("clipcov", 0.05): 0.2, ("full", 1.0): 0.5}), "crawl-1")
    assert single["area"].to_list() == [None]


def test_the_spread_of_the_seeds_stands_apart_from_the_interval(build: Callable[..., pl.DataFrame]) -> None:
    standings = standings_of(build({("clipcov", 0.05): 0.3}, seed_deviation=0.012), "crawl-1")
    assert standings.most_seeds == 3
    assert show(standings.main_estimate(standings.rows[0], "pets")) == "30.0 [27.5, 32.5] ±1.2"


@pytest.mark.parametrize(
    "metric, words",
    [
        ("acc1", "acc1"),
        ("mean_per_class_recall", "mean per-class recall"),
        ("text_recall_at_10", "text recall@10"),
        ("mean_recall_at_1", "mean recall@1"),
    ],
)
def test_a_metric_is_written_for_people(metric: str, words: str) -> None:
    assert metric_words(metric) == words


@pytest.mark.parametrize("fraction, text", [(0.05, "5 %"), (0.07, "7 %"), (0.125, "12.5 %"), (1.0, "100 %")])
def test_a_fraction_is_written_in_per_cent(fraction: float, text: str) -> None:
    assert percent(fraction) == text


def test_a_name_is_made_fit_for_one_line() -> None:
    assert printable("Vögel 鳥") == "Vögel 鳥"
    assert printable("a\x1b[31m\nb\u202e") == "a\ufffd[31m\ufffdb\ufffd"
    long = printable("a" * 50 + "b" * 50)
    assert len(long) == 40 and long.startswith("aaa") and long.endswith("bbb") and "…" in long
