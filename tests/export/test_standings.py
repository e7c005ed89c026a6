from collections.abc import Callable

import polars as pl
import pytest

from clipcov_assets.export.standings import (
    newest_first,
    percent,
    printable,
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


def test_without_a_full_pool_nothing_is_reached(build: Callable[..., pl.DataFrame]) -> None:
    found = smallest_fraction_reaching(build({("clipcov", 0.05): 0.9}), "crawl-1")
    assert found["fraction"].to_list() == [None]


def test_numbers_in_crawl_names_count_as_numbers() -> None:
    assert newest_first(["crawl-2", "crawl-10", "crawl-1"]) == ["crawl-10", "crawl-2", "crawl-1"]
    assert newest_first(["2024-09", "2024-10", "2023-12"]) == ["2024-10", "2024-09", "2023-12"]


@pytest.mark.parametrize("fraction, text", [(0.05, "5 %"), (0.07, "7 %"), (0.125, "12.5 %"), (1.0, "100 %")])
def test_a_fraction_is_written_in_per_cent(fraction: float, text: str) -> None:
    assert percent(fraction) == text


def test_a_name_is_made_fit_for_one_line() -> None:
    assert printable("Vögel 鳥") == "Vögel 鳥"
    assert printable("a\x1b[31m\nb\u202e") == "a\ufffd[31m\ufffdb\ufffd"
    long = printable("a" * 50 + "b" * 50)
    assert len(long) == 40 and long.startswith("aaa") and long.endswith("bbb") and "…" in long
