"""Accuracy against what it cost: one mark a checkpoint, and the line that none of them beats."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from clipcov_assets.export.charts import style
from clipcov_assets.export.standings import FULL, percent, printable, standings_of
from clipcov_assets.export.trainings import checkpoint_costs

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class _Point:
    method: str
    fraction: float
    cost: float
    accuracy: float


def cost_frontier(scores: pl.DataFrame, trainings: pl.DataFrame, crawl: str) -> bytes | None:
    """Draw the chance-corrected main metric, averaged over sets, against samples seen and against device-hours.

    Checkpoints that miss a set are left out: averages over different sets cannot be compared. The line is the Pareto
    frontier: nothing cheaper is as good. Costs are those of one training, the mean over seeds.

    Returns:
        A PNG, or None where no checkpoint has both a cost and a score on every set.

    Raises:
        ValueError: No score of this crawl.
    """
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    costs = checkpoint_costs(trainings, crawl)
    accuracies = _accuracies(scores, crawl)
    if costs.is_empty():
        return None
    rows = [row for row in costs.iter_rows(named=True) if (row["method"], row["fraction"]) in accuracies]
    if not rows:
        return None
    figure = style.page(4.2)
    figure.supylabel("main metric above chance, mean over sets, per cent", fontsize=style.TEXT)
    devices = sorted({row["device"] for row in rows})
    device = printable(devices[0]) if len(devices) == 1 else "several kinds of device"
    axes = {"samples_seen": "samples seen", "device_hours": f"device-hours ({device})"}
    panels = list(figure.subplots(1, len(axes), sharey=True))
    for panel, (column, label) in zip(panels, axes.items(), strict=True):
        points = [
            _Point(row["method"], row["fraction"], row[column], accuracies[row["method"], row["fraction"]])
            for row in rows
            if row[column] is not None and row[column] > 0
        ]
        _draw(panel, points)
        style.plain(panel, "", grid="both")
        panel.set_xlabel(label, fontsize=style.TEXT, parse_math=False)
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    style.samples_axis(panels[0])
    style.legend_above(figure, panels, columns=8)
    return style.png_of(figure)


def pareto_frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (cost, accuracy) that no other point beats in both, from cheap to dear."""
    frontier: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not frontier or accuracy > frontier[-1][1]:
            frontier.append((cost, accuracy))
    return frontier


def _accuracies(scores: pl.DataFrame, crawl: str) -> dict[tuple[str, float], float]:
    standings = standings_of(scores, crawl)
    found = {}
    for row in (*standings.rows, *([standings.full] if standings.full else [])):
        values = [standings.above_chance(row, name) for name in standings.images]
        present = [value for value in values if value is not None]
        if len(present) == len(values):
            found[row.method, row.fraction] = 100 * math.fsum(present) / len(present)
    return found


def _draw(panel: "Axes", points: Sequence[_Point]) -> None:
    looks = style.looks_of(point.method for point in points)
    frontier = pareto_frontier([(point.cost, point.accuracy) for point in points])
    panel.set_xscale("log")
    if frontier:
        panel.step(*zip(*frontier, strict=True), where="post", color=style.GREY, linewidth=1, label="best for its cost")
    for method, look in looks.items():
        own = [point for point in points if point.method == method]
        if own:
            panel.plot(
                [point.cost for point in own],
                [point.accuracy for point in own],
                linestyle="",
                marker=look.mark,
                markersize=11 if method == FULL else 6,
                color=look.colour,
                markeredgecolor="white",
                markeredgewidth=0.6,
                label="full pool" if method == FULL else printable(method),
            )
    # The best of a size is enough: a size often has several corners close together.
    best = {point.fraction: point for point in sorted(points, key=lambda point: point.accuracy)}
    for point in best.values():
        if (point.cost, point.accuracy) in frontier and point.method != FULL:
            panel.annotate(
                percent(point.fraction),
                (point.cost, point.accuracy),
                xytext=(-4, 6),
                textcoords="offset points",
                ha="right",
                fontsize=style.SMALL,
                color=style.GREY,
            )
    panel.margins(x=0.12, y=0.12)
