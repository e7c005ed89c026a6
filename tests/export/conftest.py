"""A small comparison whose numbers can be checked by eye."""

from collections.abc import Callable

import polars as pl
import pytest

SCHEMA = {
    "crawl": pl.String,
    "method": pl.String,
    "fraction": pl.Float64,
    "pairs": pl.Int64,
    "evaluation_set": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "chance": pl.Float64,
    "images": pl.Int64,
}


def build_scores(
    accuracies: dict[tuple[str, float], float | None],
    *,
    crawl: str = "crawl-1",
    evaluation_sets: tuple[str, ...] = ("pets",),
) -> pl.DataFrame:
    """(method, fraction) -> acc1; acc5 and recall follow from it, intervals are five points wide."""
    values = [
        (method, fraction, name, metric, accuracy)
        for (method, fraction), acc1 in accuracies.items()
        for name in evaluation_sets
        for metric, accuracy in (
            ("acc1", acc1),
            ("acc5", acc1 and acc1 + 0.2),
            ("mean_per_class_recall", acc1),
        )
    ]
    rows = [
        (crawl, method, fraction, int(1000 * fraction), name, metric, value)
        + ((None, None) if value is None else (value - 0.025, value + 0.025))
        + (0.5 if metric == "acc5" else 0.1, 200)
        for method, fraction, name, metric, value in values
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


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
