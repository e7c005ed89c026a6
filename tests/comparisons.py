"""Small comparisons whose numbers can be checked by eye, in the columns of the tables."""

import polars as pl
import pyarrow as pa

from clipcov_assets.export.comparison_tables import ComparisonTables
from clipcov_assets.tables import CLASS_RECALLS, CURVE, DIFFERENCES, GROUPS, SCORES, TRAININGS

CHECKPOINT = {"crawl": pl.String, "method": pl.String, "fraction": pl.Float64}


def frame(rows: list[dict], schema: pa.Schema, **more: type[pl.DataType]) -> pl.DataFrame:
    """Rows in the columns of a table; what a row leaves out is null."""
    return pl.DataFrame(rows, schema=dict(pl.DataFrame(schema.empty_table()).schema) | more)


def build_scores(
    accuracies: dict[tuple[str, float], float | None],
    *,
    crawl: str = "crawl-1",
    evaluation_sets: tuple[str, ...] = ("pets",),
    main: str = "acc1",
    seed_deviation: float | None = None,
) -> pl.DataFrame:
    """(method, fraction) -> acc1; acc5 and recall follow from it, intervals are five points wide."""
    chances = {"acc1": 0.1, "acc5": 0.5, "mean_per_class_recall": 0.1}
    rows = [
        {
            "crawl": crawl,
            "method": method,
            "fraction": fraction,
            "pairs": int(1000 * fraction),
            "seeds": 1 if seed_deviation is None else 3,
            "evaluation_set": name,
            "metric": metric,
            "is_main": metric == main,
            "value": value,
            "low": value and value - 0.025,
            "high": value and value + 0.025,
            "seed_deviation": seed_deviation,
            "chance": chances[metric],
            "above_chance": value and (value - chances[metric]) / (1 - chances[metric]),
            "images": 200,
        }
        for (method, fraction), acc1 in accuracies.items()
        for name in evaluation_sets
        for metric, value in (
            ("acc1", acc1),
            ("acc5", acc1 and acc1 + 0.2),
            ("mean_per_class_recall", acc1 and acc1 - 0.05),
        )
    ]
    return frame(rows, SCORES)


def build_tables(scores: pl.DataFrame, **tables: pl.DataFrame) -> ComparisonTables:
    """Scores, and empty tables for all that is not given."""
    empty = {
        "groups": frame([], GROUPS),
        "differences": frame([], DIFFERENCES),
        "trainings": frame([], TRAININGS),
        "class_recalls": frame([], CLASS_RECALLS),
        "curves": frame([], CURVE, **CHECKPOINT),
    }
    return ComparisonTables(scores, **(empty | tables))


def build_differences(*rows: tuple, crawl: str = "crawl-1", seeds: int = 1) -> pl.DataFrame:
    """Rows of fraction, method compared with, evaluation set, and the five numbers."""
    numbers = ("difference", "low", "high", "p_value", "adjusted_p_value")
    records = [
        {
            "crawl": crawl,
            "fraction": fraction,
            "method": "clipcov",
            "other": other,
            "evaluation_set": name,
            "images": 200,
            "seeds": seeds,
        }
        | dict(zip(numbers, values, strict=True))
        for fraction, other, name, *values in rows
    ]
    return frame(records, DIFFERENCES)


def build_trainings(*rows: tuple[str, float, int, float], crawl: str = "crawl-1", **more: object) -> pl.DataFrame:
    """Rows of method, fraction, seed and warm-up share; an hour on two devices, 100 samples a per cent of the pool."""
    records = [
        {
            "crawl": crawl,
            "method": method,
            "fraction": fraction,
            "seed": seed,
            "pairs": int(1000 * fraction),
            "recipe_hash": "abc",
            "samples_seen": int(10_000 * fraction),
            "epochs": 10.0,
            "warmup_share": warmup_share,
            "max_learning_rate": 5e-4,
            "last_learning_rate": 1e-6,
            "seconds": 3600.0 + 360 * seed,
            "device": "cpu",
            "devices": 2,
        }
        | more
        for method, fraction, seed, warmup_share in rows
    ]
    return frame(records, TRAININGS)


def build_groups(values: dict[tuple[str, float, str], float | None], *, crawl: str = "crawl-1") -> pl.DataFrame:
    """(method, fraction, group) -> value of five sets, or None where imagenet-a is missing."""
    records = [
        {
            "crawl": crawl,
            "method": method,
            "fraction": fraction,
            "group": group,
            "sets": 5,
            "value": value,
            "low": value and value - 0.01,
            "high": value and value + 0.01,
            "reason": "imagenet-a is missing" if value is None else None,
        }
        for (method, fraction, group), value in values.items()
    ]
    return frame(records, GROUPS)


def build_class_recalls(
    recalls: dict[tuple[str, float], dict[str, float | None]], *, crawl: str = "crawl-1", evaluation_set: str = "pets"
) -> pl.DataFrame:
    """(method, fraction) -> class -> recall over ten images."""
    records = [
        {
            "crawl": crawl,
            "method": method,
            "fraction": fraction,
            "evaluation_set": evaluation_set,
            "label": label,
            "name": name,
            "images": 10,
            "recall": recall,
        }
        for (method, fraction), of_classes in recalls.items()
        for label, (name, recall) in enumerate(of_classes.items())
    ]
    return frame(records, CLASS_RECALLS)


def build_curves(*trainings: tuple[str, float, int, int], crawl: str = "crawl-1") -> pl.DataFrame:
    """Trainings of method, fraction, seed and steps of ten samples; the loss counts the steps down to 1."""
    records = [
        {
            "crawl": crawl,
            "method": method,
            "fraction": fraction,
            "seed": seed,
            "samples_seen": 10 * step,
            "loss": float(steps - step + 1),
            "learning_rate": 1e-3 * step / steps,
            "samples_per_second": 100.0,
        }
        for method, fraction, seed, steps in trainings
        for step in range(1, steps + 1)
    ]
    return frame(records, CURVE, **CHECKPOINT)
