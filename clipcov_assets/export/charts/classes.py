"""Which classes a subset gains and loses against another one: one panel an evaluation set, one bar a class."""

import math
from typing import TYPE_CHECKING

import polars as pl

from clipcov_assets.export.charts import style
from clipcov_assets.export.comparison_tables import of_crawl
from clipcov_assets.export.standings import percent, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 10  # gains of a set, and as many losses
PANELS_A_ROW = 2
LINE_HEIGHT = 0.165  # inches a class
LONGEST_NAME = 26


def class_changes(
    class_recalls: pl.DataFrame, crawl: str, *, method: str = "clipcov", other: str = "random"
) -> bytes | None:
    """Draw the classes whose recall differs most between two subsets of the largest size that both have.

    Returns:
        A PNG, or None where the two have no size in common.
    """
    changes = class_differences(class_recalls, crawl, method=method, other=other)
    if changes.is_empty():
        return None
    sets = [_largest(of_set) for of_set in changes.partition_by("evaluation_set", maintain_order=True)]
    n_rows = math.ceil(len(sets) / PANELS_A_ROW)
    lines = [max(len(one) for one in sets[row * PANELS_A_ROW :][:PANELS_A_ROW]) for row in range(n_rows)]
    heights = [LINE_HEIGHT * max(count, 3) + 0.6 for count in lines]
    figure = style.page(sum(heights) + 0.4)
    panels = list(figure.subplots(n_rows, PANELS_A_ROW, squeeze=False, height_ratios=heights).flat)
    for number, (panel, of_set) in enumerate(zip(panels, sets, strict=False)):
        _draw(panel, of_set, lines[number // PANELS_A_ROW])
    for panel in panels[len(sets) :]:
        panel.set_axis_off()
    size = percent(changes["fraction"][0])
    label = f"recall of {printable(method)} minus that of {printable(other)} at {size}, points; images in brackets"
    figure.supxlabel(label, fontsize=style.TITLE, parse_math=False)
    return style.png_of(figure)


def class_differences(class_recalls: pl.DataFrame, crawl: str, *, method: str, other: str) -> pl.DataFrame:
    """Subtract the recalls of two subsets of the largest size that both have.

    Returns:
        evaluation_set, fraction, label, name, images, difference: one row a class, in [-1, 1]; empty where the two
        have no size in common.
    """
    rows = of_crawl(class_recalls, crawl)
    if rows.is_empty():
        return rows
    keys = ["evaluation_set", "fraction", "label"]
    own, theirs = (rows.filter(pl.col("method") == one) for one in (method, other))
    common = own.join(theirs.select(*keys, pl.col("recall").alias("other_recall")), on=keys)
    return (
        common.filter(pl.col("fraction") == pl.col("fraction").max())
        .select(*keys, "name", "images", (pl.col("recall") - pl.col("other_recall")).alias("difference"))
        .drop_nulls("difference")
        .sort("evaluation_set", "label")
    )


def _largest(changes: pl.DataFrame) -> pl.DataFrame:
    """The largest gains and losses of a set, gains first."""
    ordered = changes.sort("difference", "label", descending=[True, False])
    gains, losses = (ordered.filter(sign) for sign in (pl.col("difference") > 0, pl.col("difference") < 0))
    found = pl.concat([gains.head(MOST), losses.tail(MOST)])
    return found if len(found) else changes.head(1)


def _draw(panel: "Axes", changes: pl.DataFrame, lines: int) -> None:
    values = [100 * value for value in changes["difference"]]
    panel.barh(
        range(len(values)), values, height=0.72, color=[style.GAIN if value > 0 else style.LOSS for value in values]
    )
    panel.axvline(0, color=style.GREY, linewidth=0.8)
    names = [
        f"{printable(name, LONGEST_NAME)} ({images:,})" for name, images in changes.select("name", "images").iter_rows()
    ]
    panel.set_yticks(range(len(names)), names, parse_math=False)
    # Panels beside each other have bars of one thickness.
    panel.set_ylim(max(lines, 3) - 0.4, -0.6)
    style.plain(panel, printable(changes["evaluation_set"][0]), grid="x")
    panel.tick_params(axis="y", length=0)
