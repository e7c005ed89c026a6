import io
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageColor

from clipcov_assets.export.charts import PICTURES, pictures
from clipcov_assets.export.charts.accuracy import accuracy_curves
from clipcov_assets.export.charts.classes import class_changes, class_differences
from clipcov_assets.export.charts.cost import cost_frontier, pareto_frontier
from clipcov_assets.export.charts.forest import difference_forest
from clipcov_assets.export.charts.learning import binned_curves, learning_curves
from clipcov_assets.export.charts.style import GAIN, GREY, LOSS, WIDTH, looks_of
from clipcov_assets.export.comparison_tables import ComparisonTables
from tests.comparisons import (
    build_class_recalls,
    build_curves,
    build_differences,
    build_groups,
    build_scores,
    build_tables,
    build_trainings,
)

ACCURACIES = {("clipcov", 0.05): 0.3, ("clipcov", 0.1): 0.45, ("random", 0.05): 0.2, ("full", 1.0): 0.5}
METHODS = ["c_rho", "clip_score", "clipcov", "metaclip", "random", "semdedup"]
HOSTILE = ["$\\frac{$", "a\nb", "<b>", "_hidden", "x" * 300]
NO_GROUPS = build_groups({})
REAL = (0.05, 0.02, 0.08, 0.001, 0.01)
REAL_LOSS = (-0.05, -0.08, -0.02, 0.001, 0.01)
NOISE = (0.01, -0.02, 0.04, 0.5, 1.0)


def picture_of(png: bytes | None) -> Image.Image:
    assert png is not None
    return Image.open(io.BytesIO(png)).convert("RGB")


def has_colour(picture: Image.Image, colour: str) -> bool:
    distance = np.abs(np.asarray(picture, dtype=int) - ImageColor.getrgb(colour)).sum(axis=-1)
    return bool((distance < 30).sum() > 40)


def shuffled(tables: ComparisonTables) -> ComparisonTables:
    frames = {name: table.sample(fraction=1, shuffle=True, seed=1) for name, table in vars(tables).items()}
    return ComparisonTables(**frames)


def test_every_picture_is_drawn_as_wide_as_a_page(tables: ComparisonTables) -> None:
    drawn = pictures(tables, "crawl-1")
    assert list(drawn) == list(PICTURES)
    assert {picture_of(png).width for png in drawn.values()} == {round(WIDTH * 110)}


def test_equal_tables_give_equal_pictures(tables: ComparisonTables) -> None:
    assert pictures(tables, "crawl-1") == pictures(shuffled(tables), "crawl-1")


def test_another_crawls_rows_change_no_picture(tables: ComparisonTables) -> None:
    other = {name: table.with_columns(crawl=pl.lit("crawl-0")) for name, table in vars(tables).items()}
    both = ComparisonTables(**{name: pl.concat([table, other[name]]) for name, table in vars(tables).items()})
    assert pictures(both, "crawl-1") == pictures(tables, "crawl-1")


def test_scores_alone_are_a_picture_of_curves(scores: pl.DataFrame) -> None:
    assert list(pictures(build_tables(scores), "crawl-1")) == ["accuracy_curves"]
    empty = {name: pl.DataFrame() for name in ("groups", "differences", "trainings", "class_recalls", "curves")}
    assert pictures(ComparisonTables(scores, **empty), "crawl-1") == pictures(build_tables(scores), "crawl-1")


def test_a_crawl_without_scores_is_named(tables: ComparisonTables) -> None:
    with pytest.raises(ValueError, match="'crawl-9'.*materialize"):
        pictures(tables, "crawl-9")


def test_a_method_looks_the_same_beside_whichever_others() -> None:
    everyone = looks_of(METHODS)
    assert len({look.colour for look in everyone.values()}) == len({look.mark for look in everyone.values()}) == 7
    assert looks_of(["random"])["random"] == everyone["random"]
    assert looks_of([*METHODS, "own"])["own"].colour not in {everyone[method].colour for method in METHODS}


def test_every_method_is_drawn_in_its_own_colour(build: Callable[..., pl.DataFrame]) -> None:
    picture = picture_of(accuracy_curves(build(ACCURACIES), NO_GROUPS, "crawl-1"))
    colours = [look.colour for method, look in looks_of(METHODS).items() if method in ("clipcov", "random", "metaclip")]
    assert [has_colour(picture, colour) for colour in colours] == [True, False, True]


@pytest.mark.parametrize("n_sets", [1, 2, 4, 12])
def test_the_picture_is_small_enough_to_embed(build: Callable[..., pl.DataFrame], n_sets: int) -> None:
    accuracies = {
        (method, fraction): 0.1 + fraction * (1 + number / 10)
        for number, method in enumerate(METHODS)
        for fraction in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
    }
    names = tuple(f"evaluation set {number}" for number in range(n_sets))
    scores = build(accuracies | {("full", 1.0): 0.9}, evaluation_sets=names, seed_deviation=0.01)
    assert len(accuracy_curves(scores, NO_GROUPS, "crawl-1")) < 150_000


def test_a_group_with_a_value_has_a_panel_and_an_empty_one_has_none(scores: pl.DataFrame) -> None:
    checkpoints = [("clipcov", 0.05), ("random", 0.05), ("full", 1.0)]
    plain = accuracy_curves(scores, NO_GROUPS, "crawl-1")
    assert accuracy_curves(scores, build_groups({(*one, "shift5"): None for one in checkpoints}), "crawl-1") == plain
    with_group = accuracy_curves(scores, build_groups({(*one, "shift5"): 0.2 for one in checkpoints}), "crawl-1")
    assert with_group != plain


def test_the_spread_of_the_seeds_is_drawn(build: Callable[..., pl.DataFrame]) -> None:
    one, several = (
        accuracy_curves(build(ACCURACIES, seed_deviation=deviation), NO_GROUPS, "crawl-1") for deviation in (None, 0.05)
    )
    assert one != several


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_text_and_nothing_else(tables: ComparisonTables, name: str) -> None:
    def renamed(table: pl.DataFrame) -> pl.DataFrame:
        texts = [column for column in ("evaluation_set", "name", "group", "device") if column in table.columns]
        return table.with_columns(pl.lit(name).alias(text) for text in texts)

    hostile = {field: renamed(table) for field, table in vars(tables).items()}
    hostile["scores"] = renamed(tables.scores.filter(pl.col("evaluation_set") == "pets"))
    assert list(pictures(ComparisonTables(**hostile), "crawl-1")) == list(PICTURES)


@pytest.mark.parametrize(
    "accuracies",
    [{("random", 0.1): None}, {("random", 0.1): 0.3}, {("full", 1.0): 0.5}, {("random", 0.1): 0.0}],
)
def test_what_is_not_there_yet_is_left_out(accuracies: dict[tuple[str, float], float | None]) -> None:
    trainings = build_trainings(*((*checkpoint, 0, 0.1) for checkpoint in accuracies))
    drawn = pictures(build_tables(build_scores(accuracies), trainings=trainings), "crawl-1")
    known = None not in accuracies.values()
    assert list(drawn) == (["accuracy_curves", "cost_frontier"] if known else ["accuracy_curves"])


def test_an_interval_that_misses_its_value_is_drawn(build: Callable[..., pl.DataFrame]) -> None:
    scores = build(ACCURACIES).with_columns(low=pl.col("value") + 0.01)
    assert accuracy_curves(scores, NO_GROUPS, "crawl-1")


@pytest.mark.parametrize(
    ("numbers", "gain", "loss"), [(REAL, True, False), (REAL_LOSS, False, True), (NOISE, False, False)]
)
def test_only_a_real_difference_has_a_colour(numbers: tuple, gain: bool, loss: bool) -> None:
    picture = picture_of(difference_forest(build_differences((0.1, "random", "pets", *numbers)), "crawl-1"))
    assert (has_colour(picture, GAIN), has_colour(picture, LOSS), has_colour(picture, GREY)) == (gain, loss, True)


def test_a_method_that_was_compared_with_nothing_has_no_forest() -> None:
    assert difference_forest(build_differences((0.1, "random", "pets", *REAL)), "crawl-1", method="random") is None


def test_the_frontier_holds_what_nothing_cheaper_beats() -> None:
    points = [(1.0, 5.0), (1.0, 4.0), (2.0, 3.0), (3.0, 5.0), (4.0, 6.0), (0.5, 1.0)]
    assert pareto_frontier(points) == [(0.5, 1.0), (1.0, 5.0), (4.0, 6.0)]
    assert pareto_frontier([]) == []


def test_a_checkpoint_that_misses_a_set_has_no_place_on_the_frontier(scores: pl.DataFrame) -> None:
    trainings = build_trainings(("clipcov", 0.05, 0, 0.1), ("random", 0.05, 0, 0.1))
    gap = (pl.col("method") == "random") & (pl.col("evaluation_set") == "birds") & (pl.col("fraction") == 0.05)
    without = cost_frontier(scores.with_columns(value=pl.when(~gap).then("value")), trainings, "crawl-1")
    assert without == cost_frontier(scores, trainings.filter(pl.col("method") == "clipcov"), "crawl-1")


def test_classes_are_compared_at_the_largest_size_that_both_have() -> None:
    recalls = build_class_recalls(
        {
            ("clipcov", 0.1): {"cat": 0.1, "dog": 0.1},
            ("random", 0.1): {"cat": 0.1, "dog": 0.1},
            ("clipcov", 0.2): {"cat": 0.75, "dog": 0.5, "cow": None},
            ("random", 0.2): {"cat": 0.5, "dog": 0.75, "cow": 1.0},
            ("clipcov", 0.4): {"cat": 1.0, "dog": 1.0},
        }
    )
    found = class_differences(recalls, "crawl-1", method="clipcov", other="random")
    assert found.select("fraction", "name", "images", "difference").rows() == [
        (0.2, "cat", 10, 0.25),
        (0.2, "dog", 10, -0.25),
    ]
    assert class_changes(recalls, "crawl-1", other="semdedup") is None


def test_gains_and_losses_of_classes_have_their_colours() -> None:
    def drawn(own: float, other: float) -> tuple[bool, bool]:
        recalls = build_class_recalls({("clipcov", 0.1): {"cat": own}, ("random", 0.1): {"cat": other}})
        picture = picture_of(class_changes(recalls, "crawl-1"))
        return has_colour(picture, GAIN), has_colour(picture, LOSS)

    assert [drawn(0.9, 0.1), drawn(0.1, 0.9), drawn(0.5, 0.5)] == [(True, False), (False, True), (False, False)]


def test_a_curve_is_averaged_over_equal_parts_of_its_samples() -> None:
    curves = build_curves(("clipcov", 0.1, 0, 8), ("clipcov", 0.1, 1, 2))
    found = binned_curves(curves, bins=4)
    assert found.filter(pl.col("seed") == 0).select("samples_seen", "loss").rows() == [
        (15, 7.5),
        (35, 5.5),
        (55, 3.5),
        (75, 1.5),
    ]
    # A training shorter than the bins keeps its steps.
    assert found.filter(pl.col("seed") == 1)["samples_seen"].to_list() == [10, 20]


def test_a_training_that_diverged_is_drawn_as_far_as_it_went() -> None:
    curves = build_curves(("clipcov", 0.1, 0, 20))
    late = pl.col("samples_seen") > 100
    diverged = curves.with_columns(loss=pl.when(late).then(float("nan")).otherwise("loss"))
    assert binned_curves(diverged)["samples_seen"].max() == 100
    assert learning_curves(diverged, "crawl-1") is not None
    assert learning_curves(diverged.filter(late), "crawl-1") is None


def test_a_training_of_one_step_is_seen() -> None:
    picture = picture_of(learning_curves(build_curves(("clipcov", 0.1, 0, 1)), "crawl-1"))
    assert has_colour(picture, looks_of(["clipcov"])["clipcov"].colour)


def test_each_fraction_has_its_panels_and_each_seed_its_line() -> None:
    one, two = (
        learning_curves(build_curves(*(("clipcov", 0.1, seed, 20) for seed in range(n))), "crawl-1") for n in (1, 2)
    )
    assert one != two
    five = build_curves(*(("clipcov", fraction, 0, 20) for fraction in (0.1, 0.2, 0.3, 0.4, 0.5)))
    assert picture_of(learning_curves(five, "crawl-1")).height > picture_of(one).height
