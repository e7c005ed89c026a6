"""Accuracy against size as a picture, small enough to be embedded; a table of scores enters, a PNG leaves."""

import io
import math
from typing import TYPE_CHECKING

import polars as pl
from PIL import Image

from clipcov_assets.export.standings import Standings, percent, printable, standings_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart with every kind of colour vision; the marks say the same again.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = "osD^vPX"
GREY = "#555555"
PANELS_A_ROW = 3
PANEL_INCHES = (4.6, 3.4)
DOTS_PER_INCH = 110
DOTS_PER_INCH_OF_MANY = 60  # above four panels, so that the picture stays small
DODGE = 0.015  # between the bars of two methods at one fraction, as a share of the axis


def accuracy_curves(scores: pl.DataFrame, crawl: str) -> bytes:
    """Draw acc1 against fraction, one panel an evaluation set and one line a method, with 95 % bars.

    Chance is dotted; the full pool is a solid line in the band of its interval, and 90 % of it is dashed.

    Returns:
        A PNG with a palette of 64 colours.

    Raises:
        ValueError: No score of this crawl.
    """
    from matplotlib.figure import Figure

    standings = standings_of(scores, crawl)
    n_columns = min(PANELS_A_ROW, len(standings.images))
    n_rows = math.ceil(len(standings.images) / n_columns)
    size = (PANEL_INCHES[0] * max(2, n_columns), PANEL_INCHES[1] * n_rows + 0.7)
    dots_per_inch = DOTS_PER_INCH if len(standings.images) <= 4 else DOTS_PER_INCH_OF_MANY
    figure = Figure(figsize=size, dpi=dots_per_inch, layout="constrained")
    figure.supxlabel("share of the pool that the method chose", fontsize=10)
    figure.supylabel("acc1, per cent", fontsize=10)
    panels = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
    for panel, name in zip(panels, standings.images, strict=False):
        _draw_methods(panel, standings, name)
        _draw_bounds(panel, standings, name)
        _label(panel, standings, name)
    for panel in panels[len(standings.images) :]:
        panel.set_axis_off()
    handles = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=5, frameon=False)
    return _png(figure)


def _draw_methods(panel: "Axes", standings: Standings, evaluation_set: str) -> None:
    left, right = _limits(standings)
    for number, method in enumerate(standings.methods):
        rows = [row for row in standings.rows if row.method == method]
        found = [(row.fraction, estimate) for row in rows if (estimate := row.estimates.get((evaluation_set, "acc1")))]
        # On a logarithmic axis a shift is a factor.
        shift = (right / left) ** (DODGE * (number - (len(standings.methods) - 1) / 2))
        panel.errorbar(
            [fraction * shift for fraction, _ in found],
            [100 * estimate.value for _, estimate in found],
            yerr=[
                # A bootstrap interval can miss the value, and matplotlib takes no negative length.
                [100 * max(0.0, estimate.value - estimate.low) for _, estimate in found],
                [100 * max(0.0, estimate.high - estimate.value) for _, estimate in found],
            ],
            label=printable(method),
            color=COLOURS[number % len(COLOURS)],
            marker=MARKS[number % len(MARKS)],
            markersize=5,
            linewidth=1.5,
            elinewidth=0.9,
        )


def _draw_bounds(panel: "Axes", standings: Standings, evaluation_set: str) -> None:
    place = evaluation_set, "acc1"
    full = standings.full_estimate(evaluation_set)
    if full:
        panel.axhspan(100 * full.low, 100 * full.high, color=GREY, alpha=0.13, linewidth=0)
        panel.axhline(100 * full.value, color=GREY, linewidth=1.4, label="full pool")
        panel.axhline(90 * full.value, color=GREY, linewidth=1, linestyle="--", label="90 % of full pool")
    if place in standings.chance:
        panel.axhline(100 * standings.chance[place], color=GREY, linewidth=1.2, linestyle=":", label="chance")


def _label(panel: "Axes", standings: Standings, evaluation_set: str) -> None:
    panel.set_title(printable(evaluation_set), fontsize=10, parse_math=False)
    panel.set_xscale("log")
    panel.set_xlim(*_limits(standings))
    fractions = sorted({row.fraction for row in standings.rows})
    panel.set_xticks(fractions, [percent(fraction) for fraction in fractions])
    panel.minorticks_off()
    panel.set_ylim(bottom=0)
    panel.grid(axis="y", color="#E5E5E5", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _limits(standings: Standings) -> tuple[float, float]:
    fractions = [row.fraction for row in standings.rows] or [1.0]
    return min(fractions) / 1.2, max(fractions) * 1.2


def _png(figure: "Figure") -> bytes:
    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png")
    Image.open(full).convert("RGB").quantize(64).save(small, format="png", optimize=True)
    return small.getvalue()
