"""The tables of a comparison as text, once for HTML and Markdown: numbers enter, cells that people read leave.

Names are made printable here and escaped by whoever renders them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from clipcov_assets.core.metrics import Estimate
from clipcov_assets.core.suite import ACCURACY, known_set
from clipcov_assets.export.comparison_tables import ComparisonTables
from clipcov_assets.export.groups import empty_groups, group_estimates, group_titles
from clipcov_assets.export.standings import (
    ABSENT,
    FULL,
    Standing,
    Standings,
    area_under_size_curve,
    metric_words,
    percent,
    printable,
    retained,
    show,
    smallest_fraction_reaching,
    standings_of,
)
from clipcov_assets.export.trainings import checkpoint_costs

NEVER_LEFT = "never left its warm-up"
TRAINING_NUMBERS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "highest learning rate": lambda row: f"{row['max_learning_rate']:.2g}",
    "last learning rate": lambda row: f"{row['last_learning_rate']:.2g}",
    "seconds": lambda row: f"{row['seconds']:,.0f}",
    "device-hours": lambda row: f"{row['device_hours']:.3g}",
    "device": lambda row: printable(row["device"]),
}


@dataclass(frozen=True)
class Cell:
    """A cell: its text, what is less important beside it, and whether it stands out."""

    text: str
    aside: str = ""
    bold: bool = False


@dataclass(frozen=True)
class Row:
    """A row; a bound is one that the others lie between, and a new group starts after other rows of its kind."""

    cells: tuple[Cell, ...]
    bound: bool = False
    new_group: bool = False


@dataclass(frozen=True)
class Table:
    """A table with its heading.

    Attributes:
        title: The heading.
        note: What the numbers are; empty where the title says it.
        header: Names of the columns.
        rows: May be empty, then the remarks stand alone.
        remarks: Sentences below, such as why something is missing.
    """

    title: str
    note: str
    header: tuple[Cell, ...]
    rows: tuple[Row, ...]
    remarks: tuple[str, ...] = ()


def summary(tables: ComparisonTables, crawl: str) -> dict[str, Table]:
    """Return the tables of one crawl by name, in the order in which they are read.

    Those with nothing to say are left out: of scores, groups, sizes, retained and trainings the first is always there.

    Raises:
        ValueError: No score of this crawl.
    """
    standings = standings_of(tables.scores, crawl)
    found = {
        "scores": score_table(standings),
        "groups": group_table(standings, tables.groups),
        "sizes": size_table(standings, tables.scores),
        "retained": retained_table(standings, tables.scores),
        "trainings": training_table(tables.trainings, crawl),
    }
    return {name: table for name, table in found.items() if table is not None}


def score_table(standings: Standings) -> Table:
    """The main metric of every checkpoint on every set, the best of a size in bold."""
    rows = [_bound("chance", [_level(standings.main_chance(name)) for name in standings.images])]
    rows += _by_size(standings.rows, lambda row: [_main(standings, row, name) for name in standings.images])
    if standings.full:
        rows.append(Row(_checkpoint(standings.full, _main_of_full(standings)), bound=True))
    return Table(
        "Zero-shot scores in per cent",
        f"{_metrics_in_words(standings)}, with {_interval_in_words(standings)}. Bold: the best method of a size.",
        _header(standings, ["method", "fraction", "pairs"]),
        tuple(rows),
    )


def metric_tables(standings: Standings) -> list[Table]:
    """All metrics of each set with more than one, the main one first."""
    return [_metric_table(standings, name) for name, metrics in standings.metrics.items() if len(metrics) > 1]


def group_table(standings: Standings, groups: pl.DataFrame) -> Table | None:
    """Averages over groups of sets; None where no group has a value and no set that others report on is there."""
    estimates = group_estimates(groups, standings.crawl)
    titles = group_titles(groups, standings.crawl)
    if not estimates and not (titles and any(known_set(name) for name in standings.images)):
        return None
    shown = [group for group in titles if any(name == group for _, _, name in estimates)]

    def cells(row: Standing) -> list[Cell]:
        return [_estimate(estimates.get((row.method, row.fraction, group))) for group in shown]

    rows = _by_size(standings.rows, cells) if shown else []
    if shown and standings.full:
        rows.append(Row(_checkpoint(standings.full, cells(standings.full)), bound=True))
    return Table(
        "Averages over groups of sets, in per cent",
        "Mean of the main metrics of all sets of a group. A group that misses a set has no value.",
        _cells("method", "fraction", "pairs", *(titles[group] for group in shown)),
        tuple(rows),
        tuple(empty_groups(groups, standings.crawl)),
    )


def size_table(standings: Standings, scores: pl.DataFrame) -> Table | None:
    """Each method's smallest sufficient subset and its mean over sizes; None where there is no subset."""
    smallest = {row[:2]: row[2:] for row in smallest_fraction_reaching(scores, standings.crawl).iter_rows()}
    areas = {row[:2]: row[3:] for row in area_under_size_curve(scores, standings.crawl).iter_rows()}
    rows: list[Row] = []
    for method in standings.methods:
        reached = [_reached(*smallest[method, name]) for name in standings.images]
        means = [_area(*areas[method, name]) for name in standings.images]
        rows.append(Row((*_cells(printable(method), "smallest at 90 %"), *reached), new_group=bool(rows)))
        rows.append(Row((*_cells(printable(method), "mean over sizes"), *means)))
    return _unless_empty(
        Table(
            "How small may the subset be?",
            "The smallest fraction whose main metric is at least 90 % of the full pool's; and the main metric averaged "
            "over all sizes in per cent, in brackets its share of the full pool's. That is the area under the curve "
            "over the logarithm of the size; it needs two sizes, and all that another method has.",
            _header(standings, ["method", ""]),
            tuple(rows),
        )
    )


def retained_table(standings: Standings, scores: pl.DataFrame) -> Table | None:
    """The share of the full pool's main metric that each subset keeps; None where there is no full pool or subset."""
    shares = {(row[0], row[1], row[3]): row[5:] for row in retained(scores, standings.crawl).iter_rows()}

    def cells(row: Standing) -> list[Cell]:
        return [_shares(*shares[row.method, row.fraction, name]) for name in standings.images]

    table = Table(
        "Share of the full pool's main metric that is kept",
        "In brackets: the share of what the full pool has above chance, so that guessing keeps nothing.",
        _header(standings, ["method", "fraction", "pairs"]),
        tuple(_by_size(standings.rows, cells)) if standings.full else (),
    )
    return _unless_empty(table)


def training_table(trainings: pl.DataFrame, crawl: str) -> Table | None:
    """What each checkpoint's training saw and cost; None where nothing is known."""
    costs = checkpoint_costs(trainings, crawl)
    if costs.is_empty():
        return None
    subsets, full = costs.filter(pl.col("method") != FULL), costs.filter(pl.col("method") == FULL)
    rows = [*_grouped((row["fraction"], _training(row)) for row in subsets.iter_rows(named=True))]
    rows += [replace(_training(row), bound=True) for row in full.iter_rows(named=True)]
    return Table(
        "Trainings",
        "Samples, time and rates of one training, the mean over its seeds. Device-hours are seconds times devices.",
        _cells(*("method", "fraction", "pairs", "seeds", "samples seen", "warm-up"), *TRAINING_NUMBERS, "recipe"),
        tuple(rows),
        tuple(_training_remarks(costs)),
    )


def _training(row: Mapping[str, Any]) -> Row:
    warmup = Cell(percent(round(row["warmup_share"], 3)), f"({NEVER_LEFT})" if row["warmup_share"] >= 1 else "")
    return Row(
        (
            *_cells(printable(row["method"]), percent(row["fraction"]), f"{row['pairs']:,}", str(row["seeds"])),
            Cell(f"{row['samples_seen']:,.0f}", f"({row['epochs']:.3g} epochs)"),
            warmup,
            *(Cell(write(row)) for write in TRAINING_NUMBERS.values()),
            Cell(printable(row["recipe_hash"])),
        )
    )


def _training_remarks(costs: pl.DataFrame) -> Iterator[str]:
    stuck = costs.filter(pl.col("warmup_share") >= 1)
    if len(stuck):
        names = ", ".join(f"{printable(row['method'])} {percent(row['fraction'])}" for row in stuck.to_dicts())
        yield f"A training that {NEVER_LEFT} did not reach its learning rate: {names}."
    recipes = sorted({one for hashes in costs["recipe_hash"] for one in hashes.split(", ")})
    if len(recipes) > 1:
        yield f"There are {len(recipes)} recipes among them: a difference may come from the recipe, not from the pairs."


def _metric_table(standings: Standings, evaluation_set: str) -> Table:
    metrics = standings.metrics[evaluation_set]
    chances = [_level(standings.chance.get((evaluation_set, metric))) for metric in metrics]

    def cells(row: Standing) -> list[Cell]:
        return [_estimate(row.estimates.get((evaluation_set, metric))) for metric in metrics]

    rows = [_bound("chance", chances), *_by_size(standings.rows, cells)]
    if standings.full:
        rows.append(Row(_checkpoint(standings.full, cells(standings.full)), bound=True))
    header = _cells("method", "fraction", "pairs", *map(metric_words, metrics))
    return Table(printable(evaluation_set), "", header, tuple(rows))


def _header(standings: Standings, first: Sequence[str]) -> tuple[Cell, ...]:
    sets = (
        Cell(printable(name), f"({_metric_aside(standings.main[name])}{images:,} images)")
        for name, images in standings.images.items()
    )
    return (*_cells(*first), *sets)


def _metric_aside(metric: str) -> str:
    return "" if metric == ACCURACY else f"{metric_words(metric)}, "


def _metrics_in_words(standings: Standings) -> str:
    only_accuracy = set(standings.main.values()) == {ACCURACY}
    return "Zero-shot accuracy (acc1)" if only_accuracy else "The main metric of each set, acc1 where no other is named"


def _interval_in_words(standings: Standings) -> str:
    spread = " and, after ±, the standard deviation over training seeds" if standings.most_seeds > 1 else ""
    return f"95 % intervals over images{spread}"


def _by_size(rows: Iterable[Standing], cells: Callable[[Standing], Sequence[Cell]]) -> list[Row]:
    return list(_grouped((row.fraction, Row(_checkpoint(row, cells(row)))) for row in rows))


def _grouped(rows: Iterable[tuple[float, Row]]) -> Iterator[Row]:
    before = None
    for fraction, row in rows:
        yield replace(row, new_group=before is not None and fraction != before)
        before = fraction


def _checkpoint(row: Standing, cells: Sequence[Cell]) -> tuple[Cell, ...]:
    return (*_cells(printable(row.method), percent(row.fraction), f"{row.pairs:,}"), *cells)


def _bound(name: str, cells: Sequence[Cell]) -> Row:
    return Row((*_cells(name, "", ""), *cells), bound=True)


def _cells(*texts: str) -> tuple[Cell, ...]:
    return tuple(map(Cell, texts))


def _main_of_full(standings: Standings) -> list[Cell]:
    return [_estimate(standings.full_estimate(name)) for name in standings.images]


def _main(standings: Standings, row: Standing, evaluation_set: str) -> Cell:
    rivals = [other for other in standings.rows if other.fraction == row.fraction]
    found = [standings.main_estimate(other, evaluation_set) for other in rivals]
    own = standings.main_estimate(row, evaluation_set)
    best = own is not None and len(rivals) > 1 and own.value == max(one.value for one in found if one)
    return replace(_estimate(own), bold=best)


def _estimate(estimate: Estimate | None) -> Cell:
    value, _, interval = show(estimate).strip().partition(" ")
    return Cell(value, interval)


def _level(chance: float | None) -> Cell:
    return Cell(ABSENT if chance is None else f"{100 * chance:.1f}")


def _reached(fraction: float | None, pairs: int | None) -> Cell:
    return Cell("none") if fraction is None else Cell(percent(fraction), f"({pairs:,} pairs)")


def _area(area: float | None, share: float | None) -> Cell:
    if area is None:
        return Cell(ABSENT)
    return Cell(f"{100 * area:.1f}", "" if share is None else f"({100 * share:.0f} %)")


def _shares(share: float | None, above_chance: float | None) -> Cell:
    if share is None:
        return Cell(ABSENT)
    return Cell(f"{100 * share:.0f} %", "" if above_chance is None else f"({100 * above_chance:.0f} %)")


def _unless_empty(table: Table) -> Table | None:
    return table if table.rows else None
