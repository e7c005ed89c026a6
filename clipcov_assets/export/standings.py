"""One crawl's scores as rows that people read: who trained on how much, and how well it did where.

A table with a row for every (crawl, method, fraction, evaluation_set, metric) enters; `Standings` leave.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from clipcov_assets.core.metrics import Estimate

FULL = "full"
LONGEST_NAME = 40  # characters of a name on screen
ABSENT = "–"


@dataclass(frozen=True)
class Standing:
    """One checkpoint: what it was trained on, and (evaluation set, metric) -> estimate where there is one."""

    method: str
    fraction: float
    pairs: int
    estimates: Mapping[tuple[str, str], Estimate]


@dataclass(frozen=True)
class Standings:
    """All checkpoints of one crawl.

    Attributes:
        images: Evaluation set -> number of its images, by name.
        chance: (evaluation set, metric) -> what guessing reaches, in [0, 1].
        rows: Subsets, small ones first, then by method.
        full: The checkpoint of the whole pool, None until there is one.
    """

    crawl: str
    images: Mapping[str, int]
    chance: Mapping[tuple[str, str], float]
    rows: tuple[Standing, ...]
    full: Standing | None

    def full_estimate(self, evaluation_set: str) -> Estimate | None:
        """The full pool's acc1."""
        return self.full.estimates.get((evaluation_set, "acc1")) if self.full else None

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that chose subsets, by name."""
        return tuple(sorted({row.method for row in self.rows}))


def standings_of(scores: pl.DataFrame, crawl: str) -> Standings:
    """Gather one crawl's scores; a null or NaN value counts as not there.

    Raises:
        ValueError: No score of this crawl.
    """
    rows = scores.filter(pl.col("crawl") == crawl).sort("fraction", "method", "evaluation_set", "metric")
    if rows.is_empty():
        raise ValueError(f"no scorecard of crawl {crawl!r} yet; materialize its scorecards first")
    estimates: dict[tuple[str, float, int], dict[tuple[str, str], Estimate]] = {}
    for row in rows.iter_rows(named=True):
        of_checkpoint = estimates.setdefault((row["method"], row["fraction"], row["pairs"]), {})
        if row["value"] is not None and row["value"] == row["value"]:
            place = row["evaluation_set"], row["metric"]
            of_checkpoint[place] = Estimate(row["value"], row["low"], row["high"])
    standings = [Standing(*checkpoint, found) for checkpoint, found in estimates.items()]
    return Standings(
        crawl=crawl,
        images=dict(rows.select("evaluation_set", "images").unique().sort("evaluation_set").iter_rows()),
        chance={(name, metric): chance for name, metric, chance in _chances(rows)},
        rows=tuple(standing for standing in standings if standing.method != FULL),
        full=next((standing for standing in standings if standing.method == FULL), None),
    )


def smallest_fraction_reaching(scores: pl.DataFrame, crawl: str, *, share: float = 0.9) -> pl.DataFrame:
    """Find how small a subset may be to come close to the full pool.

    Returns:
        method, evaluation_set, fraction, pairs: one row a method and evaluation set; fraction and pairs are
        those of the smallest subset whose acc1 is at least `share` of the full pool's, null if there is none.
    """
    standings = standings_of(scores, crawl)
    found = [
        (method, name, *_smallest(standings, method, evaluation_set=name, share=share))
        for method in standings.methods
        for name in standings.images
    ]
    schema = {"method": pl.String, "evaluation_set": pl.String, "fraction": pl.Float64, "pairs": pl.Int64}
    return pl.DataFrame(found, schema=schema, orient="row")


def newest_first(crawls: list[str]) -> list[str]:
    """Order crawls by name from last to first, numbers by their size: crawl-10, crawl-9, crawl-1."""
    return sorted(crawls, key=_name_and_numbers, reverse=True)


def show(estimate: Estimate | None) -> str:
    """Write an estimate in per cent, padded so that decimal points stand below each other."""
    if estimate is None:
        return ABSENT
    return f"{100 * estimate.value:4.1f} [{100 * estimate.low:4.1f}, {100 * estimate.high:4.1f}]"


def percent(fraction: float) -> str:
    """Write 0.05 as "5 %"."""
    return f"{100 * fraction:.4g} %"


def printable(name: str) -> str:
    """Make an untrusted name fit for one line on any screen: no control characters, no great length."""
    short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME // 2]}…{name[1 - LONGEST_NAME // 2 :]}"
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in short)


def _smallest(
    standings: Standings, method: str, *, evaluation_set: str, share: float
) -> tuple[float, int] | tuple[None, None]:
    full = standings.full_estimate(evaluation_set)
    for row in standings.rows:
        estimate = row.estimates.get((evaluation_set, "acc1"))
        # Accuracies are counts over images: the allowance only undoes rounding of the product.
        if row.method == method and full and estimate and estimate.value >= share * full.value - 1e-12:
            return row.fraction, row.pairs
    return None, None


def _chances(rows: pl.DataFrame) -> list[tuple[str, str, float]]:
    return rows.select("evaluation_set", "metric", "chance").unique().rows()


def _name_and_numbers(crawl: str) -> list[tuple[str, int]]:
    return [(text, int(number or -1)) for text, number in re.findall(r"([^0-9]*)([0-9]*)", crawl)]
