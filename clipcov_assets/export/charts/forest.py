"""Paired differences with their intervals: a row of panels an evaluation set, a column a fraction."""

from typing import TYPE_CHECKING

import polars as pl

from clipcov_assets.export.charts import style
from clipcov_assets.export.comparison_tables import of_crawl
from clipcov_assets.export.differences import LEVEL
from clipcov_assets.export.standings import percent, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE_HEIGHT = 0.19  # inches a comparison


def difference_forest(differences: pl.DataFrame, crawl: str, *, method: str = "clipcov") -> bytes | None:
    """Draw a method's paired differences of acc1 to the others in points, the largest mean over sizes on top.

    Real differences (adjusted p below 0.05) are filled, blue where the method leads and vermilion where the other
    does; noise is hollow and grey. The others keep their order over the sizes of a set.

    Returns:
        A PNG, or None where the method was compared with nothing.
    """
    rows = of_crawl(differences, crawl)
    rows = rows if rows.is_empty() else rows.filter(pl.col("method") == method)
    if rows.is_empty():
        return None
    sets = rows.sort("evaluation_set", "fraction", "other").partition_by("evaluation_set", maintain_order=True)
    fractions = sorted(set(rows["fraction"]))
    orders = [_order(of_set) for of_set in sets]
    heights = [LINE_HEIGHT * len(order) + 0.75 for order in orders]
    figure = style.page(sum(heights) + 0.3)
    strips = figure.subfigures(len(sets), 1, squeeze=False, height_ratios=heights).flat
    for strip, of_set, order in zip(strips, sets, orders, strict=True):
        strip.suptitle(
            printable(of_set["evaluation_set"][0]),
            x=0.005,
            ha="left",
            fontsize=style.TITLE,
            fontweight="bold",
            parse_math=False,
        )
        panels = strip.subplots(1, len(fractions), sharex=True, sharey=True, squeeze=False)[0]
        for panel, fraction in zip(panels, fractions, strict=True):
            _draw(panel, of_set.filter(pl.col("fraction") == fraction), order)
            style.plain(panel, percent(fraction), grid="x")
            panel.tick_params(axis="y", length=0)
        panels[0].locator_params(axis="x", nbins=5)
        panels[0].set_yticks(range(len(order)), [printable(other) for other in order], parse_math=False)
        panels[0].set_ylim(len(order) - 0.4, -0.6)
    figure.supxlabel(
        f"acc1 of {printable(method)} minus acc1 of the other, points", fontsize=style.TITLE, parse_math=False
    )
    return style.png_of(figure)


def _order(of_set: pl.DataFrame) -> list[str]:
    means = of_set.group_by("other").agg(pl.col("difference").mean())
    return list(means.sort("difference", "other", descending=[True, False])["other"])


def _draw(panel: "Axes", rows: pl.DataFrame, order: list[str]) -> None:
    panel.axvline(0, color=style.GREY, linewidth=1)
    for row in rows.iter_rows(named=True):
        real = row["adjusted_p_value"] < LEVEL
        colour = (style.GAIN if row["difference"] > 0 else style.LOSS) if real else style.GREY
        place = order.index(row["other"])
        panel.hlines(place, 100 * row["low"], 100 * row["high"], color=colour, linewidth=1.2)
        panel.plot(
            100 * row["difference"],
            place,
            marker="o",
            markersize=5,
            color=colour,
            markerfacecolor=colour if real else "white",
        )
