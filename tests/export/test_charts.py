import io
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageColor

from clipcov_assets.export.charts import COLOURS, accuracy_curves

ACCURACIES = {("clipcov", 0.05): 0.3, ("clipcov", 0.1): 0.45, ("random", 0.05): 0.2, ("full", 1.0): 0.5}


def picture_of(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


def has_colour(picture: Image.Image, colour: str) -> bool:
    distance = np.abs(np.asarray(picture, dtype=int) - ImageColor.getrgb(colour)).sum(axis=-1)
    return bool((distance < 30).sum() > 100)


def test_every_method_is_drawn_in_its_own_colour(build: Callable[..., pl.DataFrame]) -> None:
    picture = picture_of(accuracy_curves(build(ACCURACIES), "crawl-1"))
    assert [has_colour(picture, colour) for colour in COLOURS[:3]] == [True, True, False]


@pytest.mark.parametrize("n_sets", [1, 2, 4, 11])
def test_the_picture_is_small_enough_to_embed(build: Callable[..., pl.DataFrame], n_sets: int) -> None:
    methods = ["c_rho", "clip_score", "clipcov", "metaclip", "random", "semdedup"]
    accuracies = {
        (method, fraction): 0.1 + fraction * (1 + number / 10)
        for number, method in enumerate(methods)
        for fraction in (0.05, 0.1, 0.2, 0.3, 0.5)
    }
    names = tuple(f"evaluation set {number}" for number in range(n_sets))
    png = accuracy_curves(build(accuracies | {("full", 1.0): 0.9}, evaluation_sets=names), "crawl-1")
    assert len(png) < 50_000
    assert picture_of(png).width >= 800


def test_equal_scores_give_an_equal_picture(scores: pl.DataFrame) -> None:
    assert accuracy_curves(scores, "crawl-1") == accuracy_curves(scores.reverse(), "crawl-1")


@pytest.mark.parametrize("name", ["$\\frac{$", "a\nb", "<b>", "_hidden"])
def test_a_name_is_text_and_nothing_else(build: Callable[..., pl.DataFrame], name: str) -> None:
    assert accuracy_curves(build(ACCURACIES, evaluation_sets=(name,)), "crawl-1")


@pytest.mark.parametrize(
    "accuracies",
    [{("random", 0.1): None}, {("random", 0.1): 0.3}, {("full", 1.0): 0.5}, {("random", 0.1): 0.0}],
)
def test_what_is_not_there_yet_is_left_out(
    build: Callable[..., pl.DataFrame], accuracies: dict[tuple[str, float], float | None]
) -> None:
    assert accuracy_curves(build(accuracies), "crawl-1")


def test_an_interval_that_misses_its_value_is_drawn(build: Callable[..., pl.DataFrame]) -> None:
    scores = build(ACCURACIES).with_columns(low=pl.col("value") + 0.01)
    assert accuracy_curves(scores, "crawl-1")
