"""How trainings went: loss and learning rate against samples seen, one pair of panels a fraction."""

import math
from typing import TYPE_CHECKING

import polars as pl

from clipcov_assets.export.charts import style
from clipcov_assets.export.comparison_tables import of_crawl
from clipcov_assets.export.standings import FULL, percent, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS_A_ROW = 4
BINS = 60  # of a curve; the mean over a bin is drawn


def learning_curves(curves: pl.DataFrame, crawl: str) -> bytes | None:
    """Draw the loss of every training, averaged over sixtieths of it, and its learning rate below.

    One line a training: the seeds of a method are thin lines of its colour.

    Returns:
        A PNG, or None where no training has a curve.
    """
    rows = of_crawl(curves, crawl)
    binned = rows if rows.is_empty() else binned_curves(rows)
    if binned.is_empty():
        return None
    highest = binned.select(pl.col("loss", "learning_rate").max()).row(0, named=True)
    fractions = sorted(set(binned["fraction"]))
    columns = min(PANELS_A_ROW, max(2, len(fractions)))
    n_rows = math.ceil(len(fractions) / columns)
    figure = style.page(3.5 * n_rows + 0.8)
    grid = figure.subplots(2 * n_rows, columns, squeeze=False, sharey="row", height_ratios=[3, 1.1] * n_rows)
    for panel in grid.flat:
        panel.set_axis_off()
    for number, fraction in enumerate(fractions):
        row, column = divmod(number, columns)
        upper, lower = grid[2 * row][column], grid[2 * row + 1][column]
        of_fraction = binned.filter(pl.col("fraction") == fraction)
        for panel, value in ((upper, "loss"), (lower, "learning_rate")):
            panel.set_axis_on()
            _draw(panel, of_fraction, value)
            panel.set_ylim(0, 1.05 * highest[value])
        style.plain(upper, percent(fraction))
        style.plain(lower, "")
        lower.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
        upper.tick_params(labelbottom=False)
        if column == 0:
            upper.set_ylabel("loss", fontsize=style.TEXT)
            lower.set_ylabel("learning rate", fontsize=style.TEXT)
    figure.supxlabel("samples seen", fontsize=style.TITLE)
    style.legend_above(figure, grid.flat, columns=8)
    return style.png_of(figure)


def binned_curves(curves: pl.DataFrame, bins: int = BINS) -> pl.DataFrame:
    """Average each training over equal parts of its samples; steps with a loss that is not finite are left out.

    Returns:
        method, fraction, seed, samples_seen, loss, learning_rate: at most `bins` rows a training, in their order.
    """
    training = ["method", "fraction", "seed"]
    last = pl.col("samples_seen").max().over(training)
    part = ((pl.col("samples_seen") * bins / last).ceil() - 1).clip(0).alias("part")
    means = pl.col("samples_seen", "loss", "learning_rate").mean()
    # Sums in one order, so that equal rows give equal bytes.
    ordered = curves.sort(*training, "samples_seen").with_columns(part).filter(pl.col("loss").is_finite())
    return ordered.group_by(*training, "part", maintain_order=True).agg(means).drop("part")


def _draw(panel: "Axes", rows: pl.DataFrame, value: str) -> None:
    looks = style.looks_of(rows["method"])
    width = 1.5 if rows["seed"].n_unique() == 1 else 0.8
    for (method, _), training in rows.group_by("method", "seed", maintain_order=True):
        name = "full pool" if method == FULL else printable(str(method))
        panel.plot(
            training["samples_seen"],
            training[value],
            color=looks[str(method)].colour,
            linewidth=width,
            marker="o" if len(training) == 1 else "",
            label=name,
        )
    style.samples_axis(panel)
    panel.set_xlim(left=0)
