from collections.abc import Callable

import polars as pl
import pytest

from clipcov_assets.export.comparison_tables import ComparisonTables
from clipcov_assets.export.standings import standings_of
from clipcov_assets.export.summary import Row, Table, metric_tables, summary
from clipcov_assets.export.trainings import checkpoint_costs
from tests.comparisons import build_groups, build_tables, build_trainings

ACCURACIES = {("clipcov", 0.05): 0.3, ("random", 0.05): 0.2, ("full", 1.0): 0.5}


def texts(row: Row) -> list[str]:
    return [" ".join(filter(None, [cell.text, cell.aside])) for cell in row.cells]


def row_of(table: Table, *start: str) -> list[str]:
    (found,) = (texts(row) for row in table.rows if texts(row)[: len(start)] == list(start))
    return found[len(start) :]


def test_tables_are_in_their_order_and_those_with_nothing_to_say_are_left_out(tables: ComparisonTables) -> None:
    assert list(summary(tables, "crawl-1")) == ["scores", "groups", "sizes", "retained", "trainings"]
    assert list(summary(build_tables(tables.scores), "crawl-1")) == ["scores", "sizes", "retained"]
    full_only = tables.scores.filter(pl.col("method") == "full")
    assert list(summary(build_tables(full_only), "crawl-1")) == ["scores"]


def test_the_best_of_a_size_is_bold(tables: ComparisonTables) -> None:
    rows = summary(tables, "crawl-1")["scores"].rows
    assert [[cell.text for cell in row.cells if cell.bold] for row in rows] == [
        [],
        ["30.0"] * 2,
        [],
        ["45.0"] * 2,
        [],
        [],
    ]


def test_a_main_metric_other_than_acc1_is_named(build: Callable[..., pl.DataFrame]) -> None:
    found = summary(build_tables(build(ACCURACIES, main="mean_per_class_recall")), "crawl-1")["scores"]
    assert texts(Row(found.header))[-1] == "pets (mean per-class recall, 200 images)"
    assert row_of(found, "clipcov", "5 %", "50") == ["25.0 [22.5, 27.5]"]


def test_each_set_has_a_table_of_all_its_metrics(scores: pl.DataFrame) -> None:
    birds, pets = metric_tables(standings_of(scores, "crawl-1"))
    assert (birds.title, pets.title) == ("birds", "pets")
    assert texts(Row(birds.header)) == ["method", "fraction", "pairs", "acc1", "acc5", "mean per-class recall"]
    assert row_of(birds, "chance") == ["", "", "10.0", "50.0", "10.0"]
    assert row_of(birds, "full", "100 %", "1,000") == ["50.0 [47.5, 52.5]", "70.0 [67.5, 72.5]", "45.0 [42.5, 47.5]"]


def test_a_group_without_a_value_shows_its_reason(build: Callable[..., pl.DataFrame]) -> None:
    groups = build_groups(
        {(*one, group): value for one in ACCURACIES for group, value in (("shift5", None), ("others5", 0.25))}
        | {("random", 0.05, "others5"): None}
    )
    found = summary(build_tables(build(ACCURACIES), groups=groups), "crawl-1")["groups"]
    assert texts(Row(found.header))[3:] == ["the five without ImageNet"]
    assert row_of(found, "clipcov", "5 %", "50") == ["25.0 [24.0, 26.0]"]
    assert row_of(found, "random", "5 %", "50") == ["–"]
    assert found.remarks == (
        "No value for the paper's five shifts: imagenet-a is missing",
        "No value for the five without ImageNet in 1 of 3 scorecards: imagenet-a is missing",
    )


@pytest.mark.parametrize("name, is_there", [("a set of our own", False), ("wds_imagenet1k_test", True)])
def test_empty_groups_are_spoken_of_only_beside_a_known_set(
    build: Callable[..., pl.DataFrame], name: str, is_there: bool
) -> None:
    groups = build_groups({(*one, "shift5"): None for one in ACCURACIES})
    found = summary(build_tables(build(ACCURACIES, evaluation_sets=(name,)), groups=groups), "crawl-1")
    assert ("groups" in found) == is_there
    assert not is_there or (found["groups"].rows, len(found["groups"].remarks)) == ((), 1)


def test_costs_are_those_of_one_training() -> None:
    found = checkpoint_costs(build_trainings(("clipcov", 0.1, 0, 0.1), ("clipcov", 0.1, 1, 0.1)), "crawl-1")
    row = found.row(0, named=True)
    # Seconds are 3,600 and 3,960, on two devices.
    assert (row["seeds"], row["seconds"], row["samples_seen"]) == (2, 3780, 1000)
    assert row["device_hours"] == pytest.approx(2.1)
    assert checkpoint_costs(pl.DataFrame(), "crawl-1").is_empty()


def test_a_training_that_never_left_its_warm_up_is_flagged(build: Callable[..., pl.DataFrame]) -> None:
    trainings = build_trainings(("clipcov", 0.05, 0, 1.0), ("random", 0.05, 0, 0.999), ("full", 1.0, 0, 0.1))
    found = summary(build_tables(build(ACCURACIES), trainings=trainings), "crawl-1")["trainings"]
    assert row_of(found, "clipcov", "5 %", "50", "1", "500 (10 epochs)")[0] == "100 % (never left its warm-up)"
    assert row_of(found, "random", "5 %", "50", "1", "500 (10 epochs)")[0] == "99.9 %"
    assert found.remarks == ("A training that never left its warm-up did not reach its learning rate: clipcov 5 %.",)
    assert [row.bound for row in found.rows] == [False, False, True]


def test_several_recipes_are_pointed_out(build: Callable[..., pl.DataFrame]) -> None:
    other = build_trainings(("random", 0.05, 0, 0.1), recipe_hash="def")
    trainings = pl.concat([build_trainings(("clipcov", 0.05, 0, 0.1)), other])
    (remark,) = summary(build_tables(build(ACCURACIES), trainings=trainings), "crawl-1")["trainings"].remarks
    assert remark.startswith("There are 2 recipes")
