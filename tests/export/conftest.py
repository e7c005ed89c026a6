"""A small comparison whose numbers can be checked by eye."""

from collections.abc import Callable

import polars as pl
import pytest

from clipcov_assets.export.comparison_tables import ComparisonTables
from tests.comparisons import (
    build_class_recalls,
    build_curves,
    build_differences,
    build_groups,
    build_scores,
    build_trainings,
)


@pytest.fixture
def build() -> Callable[..., pl.DataFrame]:
    return build_scores


@pytest.fixture
def scores() -> pl.DataFrame:
    return build_scores(
        {
            ("clipcov", 0.05): 0.30,
            ("clipcov", 0.1): 0.45,
            ("random", 0.05): 0.20,
            ("random", 0.1): 0.25,
            ("full", 1.0): 0.50,
        },
        evaluation_sets=("pets", "birds"),
    )


@pytest.fixture
def tables(scores: pl.DataFrame) -> ComparisonTables:
    """All tables of crawl-1, each with something in it."""
    checkpoints = [("clipcov", 0.05), ("clipcov", 0.1), ("random", 0.05), ("random", 0.1), ("full", 1.0)]
    classes = {"cat": 0.5, "dog": 0.2, "cow": 0.9}
    other = {"cat": 0.1, "dog": 0.6, "cow": 0.9}
    return ComparisonTables(
        scores,
        build_groups({(*one, "shift5"): 0.1 + one[1] / 2 for one in checkpoints}),
        build_differences(
            (0.05, "random", "pets", 0.1, 0.05, 0.15, 0.001, 0.002), (0.1, "random", "pets", -0.01, -0.03, 0.01, 1, 1)
        ),
        build_trainings(*((*one, 0, 0.1) for one in checkpoints)),
        build_class_recalls({("clipcov", 0.1): classes, ("random", 0.1): other}),
        build_curves(*((*one, 0, 20) for one in checkpoints)),
    )
