"""One crawl's scores as rows that people read: who trained on how much, and how well it did where.

A table with a row for every (crawl, method, fraction, evaluation_set, metric) enters; `Standings` and tables leave.
A set is judged by its main metric throughout.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from clipcov_assets.core.metrics import Estimate

FULL = "full"
LONGEST_NAME = 40  # characters of a name on screen
ABSENT = "–"


@dataclass(frozen=True)
class Standing:
    """One checkpoint: what it was trained on, and (evaluation set, metric) -> estimate where there is one.

    Attributes:
        seeds: Trainings that the estimates are means over.
    """

    method: str
    fraction: float
    pairs: int
    seeds: int
    estimates: Mapping[tuple[str, str], Estimate]


@dataclass(frozen=True)
class Standings:
    """All checkpoints of one crawl.

    Attributes:
        images: Evaluation set -> number of its images, by name.
        main: Evaluation set -> the metric that it is known by.
        metrics: Evaluation set -> all of its metrics, the main one first.
        chance: (evaluation set, metric) -> what guessing reaches, in [0, 1].
        rows: Subsets, small ones first, then by method.
        full: The checkpoint of the whole pool, None until there is one.
    """

    crawl: str
    images: Mapping[str, int]
    main: Mapping[str, str]
    metrics: Mapping[str, tuple[str, ...]]
    chance: Mapping[tuple[str, str], float]
    rows: tuple[Standing, ...]
    full: Standing | None

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that chose subsets, by name."""
        return tuple(sorted({row.method for row in self.rows}))

    @property
    def most_seeds(self) -> int:
        """Trainings of the checkpoint that has most."""
        return max(row.seeds for row in (*self.rows, *([self.full] if self.full else [])))

    def main_estimate(self, row: Standing | None, evaluation_set: str) -> Estimate | None:
        """A checkpoint's main metric on a set."""
        return row.estimates.get((evaluation_set, self.main[evaluation_set])) if row else None

    def full_estimate(self, evaluation_set: str) -> Estimate | None:
        """The full pool's main metric on a set."""
        return self.main_estimate(self.full, evaluation_set)

    def main_chance(self, evaluation_set: str) -> float | None:
        """What guessing reaches in a set's main metric."""
        return self.chance.get((evaluation_set, self.main[evaluation_set]))

    def above_chance(self, row: Standing | None, evaluation_set: str) -> float | None:
        """A checkpoint's main metric on a set, so that 0 is guessing and 1 is perfect."""
        estimate, chance = self.main_estimate(row, evaluation_set), self.main_chance(evaluation_set)
        return None if estimate is None or chance is None else (estimate.value - chance) / (1 - chance)


def standings_of(scores: pl.DataFrame, crawl: str) -> Standings:
    """Gather one crawl's scores; a null or NaN value counts as not there.

    Raises:
        ValueError: No score of this crawl.
    """
    rows = scores.filter(pl.col("crawl") == crawl).sort("fraction", "method", "evaluation_set", "metric")
    if rows.is_empty():
        raise ValueError(f"no scorecard of crawl {crawl!r} yet; materialize its scorecards first")
    estimates: dict[tuple[str, float, int, int], dict[tuple[str, str], Estimate]] = {}
    for row in rows.iter_rows(named=True):
        of_checkpoint = estimates.setdefault((row["method"], row["fraction"], row["pairs"], row["seeds"]), {})
        if row["value"] is not None and row["value"] == row["value"]:
            place = row["evaluation_set"], row["metric"]
            of_checkpoint[place] = Estimate(row["value"], row["low"], row["high"], row["seed_deviation"])
    standings = [Standing(*checkpoint, found) for checkpoint, found in estimates.items()]
    metrics = rows.select("evaluation_set", "metric", "is_main").unique()
    main = dict(metrics.filter("is_main").select("evaluation_set", "metric").sort("evaluation_set").iter_rows())
    return Standings(
        crawl=crawl,
        images=dict(rows.select("evaluation_set", "images").unique().sort("evaluation_set").iter_rows()),
        main=main,
        metrics={name: _metrics(metrics, name) for name in main},
        chance={(name, metric): chance for name, metric, chance in _chances(rows)},
        rows=tuple(standing for standing in standings if standing.method != FULL),
        full=next((standing for standing in standings if standing.method == FULL), None),
    )


def retained(scores: pl.DataFrame, crawl: str) -> pl.DataFrame:
    """Say which share of the full pool's main metric each subset keeps.

    Returns:
        method, fraction, pairs, evaluation_set, metric, retained, retained_above_chance: one row a subset and
        evaluation set. `retained` is the value over the full pool's; `retained_above_chance` is the same for what
        both have above chance, so that guessing keeps nothing, and is null where the full pool itself guesses.
        Both are null where a scorecard is missing.
    """
    standings = standings_of(scores, crawl)
    found = [
        (row.method, row.fraction, row.pairs, name, standings.main[name], *_retained(standings, row, name))
        for row in standings.rows
        for name in standings.images
    ]
    shares = {"retained": pl.Float64, "retained_above_chance": pl.Float64}
    subset = {"method": pl.String, "fraction": pl.Float64, "pairs": pl.Int64}
    schema = {**subset, "evaluation_set": pl.String, "metric": pl.String, **shares}
    return pl.DataFrame(found, schema=schema, orient="row")


def smallest_fraction_reaching(scores: pl.DataFrame, crawl: str, *, share: float = 0.9) -> pl.DataFrame:
    """Find how small a subset may be to come close to the full pool.

    Returns:
        method, evaluation_set, fraction, pairs: one row a method and evaluation set; fraction and pairs are those
        of the smallest subset whose main metric is at least `share` of the full pool's, null if there is none.
    """
    standings = standings_of(scores, crawl)
    found = [
        (method, name, *_smallest(standings, method, evaluation_set=name, share=share))
        for method in standings.methods
        for name in standings.images
    ]
    schema = {"method": pl.String, "evaluation_set": pl.String, "fraction": pl.Float64, "pairs": pl.Int64}
    return pl.DataFrame(found, schema=schema, orient="row")


def area_under_size_curve(scores: pl.DataFrame, crawl: str) -> pl.DataFrame:
    """Average a method's main metric over subset sizes: one number for a whole curve.

    The area below the straight lines between its points, over the logarithm of the fraction, divided by their width:
    a step from 5 to 10 % counts as much as one from 10 to 20 %.

    Returns:
        method, evaluation_set, metric, area, retained: one row a method and evaluation set. `area` is in the unit of
        the metric, `retained` its share of the full pool's. Both are null where there is a single fraction, or where
        a fraction is missing that another method has: averages over different sizes cannot be compared.
    """
    standings = standings_of(scores, crawl)
    found = [
        (method, name, standings.main[name], *_area(standings, method, name))
        for method in standings.methods
        for name in standings.images
    ]
    keys = {"method": pl.String, "evaluation_set": pl.String, "metric": pl.String}
    return pl.DataFrame(found, schema={**keys, "area": pl.Float64, "retained": pl.Float64}, orient="row")


def show(estimate: Estimate | None) -> str:
    """Write an estimate in per cent, padded so that decimal points stand below each other.

    With several seeds their standard deviation follows: `45.0 [42.5, 47.5] ±1.2`.
    """
    if estimate is None:
        return ABSENT
    spread = "" if estimate.seed_deviation is None else f" ±{100 * estimate.seed_deviation:.1f}"
    return f"{100 * estimate.value:4.1f} [{100 * estimate.low:4.1f}, {100 * estimate.high:4.1f}]{spread}"


def metric_words(metric: str) -> str:
    """Write a metric's name for people: mean_per_class_recall becomes "mean per-class recall"."""
    words = metric.replace("per_class", "per-class").replace("_", " ")
    return re.sub(r" at (\d+)$", r"@\1", words)


def percent(fraction: float) -> str:
    """Write 0.05 as "5 %"."""
    return f"{100 * fraction:.4g} %"


def printable(name: str, longest: int = LONGEST_NAME) -> str:
    """Make an untrusted name fit for one line on any screen: no control characters, no great length."""
    short = name if len(name) <= longest else f"{name[: longest // 2]}…{name[1 - longest // 2 :]}"
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in short)


def _metrics(metrics: pl.DataFrame, evaluation_set: str) -> tuple[str, ...]:
    of_set = metrics.filter(pl.col("evaluation_set") == evaluation_set)
    return tuple(of_set.sort("is_main", "metric", descending=[True, False])["metric"])


def _retained(standings: Standings, row: Standing, evaluation_set: str) -> tuple[float | None, float | None]:
    own, full = standings.main_estimate(row, evaluation_set), standings.full_estimate(evaluation_set)
    above = standings.above_chance(row, evaluation_set)
    full_above = standings.above_chance(standings.full, evaluation_set)
    return (
        own.value / full.value if own and full and full.value > 0 else None,
        above / full_above if above is not None and full_above is not None and full_above > 0 else None,
    )


def _smallest(
    standings: Standings, method: str, *, evaluation_set: str, share: float
) -> tuple[float, int] | tuple[None, None]:
    full = standings.full_estimate(evaluation_set)
    for row in standings.rows:
        estimate = standings.main_estimate(row, evaluation_set)
        # Accuracies are counts over images: the allowance only undoes rounding of the product.
        if row.method == method and full and estimate and estimate.value >= share * full.value - 1e-12:
            return row.fraction, row.pairs
    return None, None


def _area(standings: Standings, method: str, evaluation_set: str) -> tuple[float | None, float | None]:
    curves = {one: dict(_curve(standings, one, evaluation_set)) for one in standings.methods}
    fractions = sorted({fraction for curve in curves.values() for fraction in curve})
    if len(fractions) < 2 or len(curves[method]) < len(fractions):
        return None, None
    places, values = np.log(fractions), [curves[method][fraction] for fraction in fractions]
    area = float(np.trapezoid(values, places) / (places[-1] - places[0]))
    full = standings.full_estimate(evaluation_set)
    return area, area / full.value if full and full.value > 0 else None


def _curve(standings: Standings, method: str, evaluation_set: str) -> Iterator[tuple[float, float]]:
    for row in standings.rows:
        estimate = standings.main_estimate(row, evaluation_set)
        if row.method == method and estimate:
            yield row.fraction, estimate.value


def _chances(rows: pl.DataFrame) -> list[tuple[str, str, float]]:
    return rows.select("evaluation_set", "metric", "chance").unique().rows()
