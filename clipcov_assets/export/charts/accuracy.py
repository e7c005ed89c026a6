"""Accuracy against size: one panel an evaluation set or group, one line a method."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from clipcov_assets.core.metrics import Estimate
from clipcov_assets.core.suite import ACCURACY
from clipcov_assets.export.charts import style
from clipcov_assets.export.groups import group_estimates, group_titles
from clipcov_assets.export.standings import FULL, Standings, metric_words, printable, standings_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS_A_ROW = 3
PANEL_HEIGHT = 2.9  # inches
PALE, BROAD = 0.3, 6  # opacity and points of the bars of the seeds
DODGE = 0.015  # between the bars of two methods at one fraction, as a share of the axis


@dataclass(frozen=True)
class _Panel:
    """What one panel shows: method -> fraction -> estimate, the full pool's, and what guessing reaches."""

    title: str
    metric: str
    lines: Mapping[str, Mapping[float, Estimate]]
    full: Estimate | None
    chance: float | None


def accuracy_curves(scores: pl.DataFrame, groups: pl.DataFrame, crawl: str) -> bytes:
    """Draw the main metric against fraction: a panel for each evaluation set, and each group of several with a value.

    Bars are 95 % intervals over images; a pale broad bar is one standard deviation over seeds to each side. Chance is
    dotted; the full pool is a solid line in the band of its interval, and 90 % of it is dashed.

    Returns:
        A PNG.

    Raises:
        ValueError: No score of this crawl.
    """
    standings = standings_of(scores, crawl)
    shown = [*_sets(standings), *_groups(groups, crawl)]
    n_rows = math.ceil(len(shown) / PANELS_A_ROW)
    figure = style.page(PANEL_HEIGHT * n_rows + 0.8)
    figure.supxlabel("share of the pool that the method chose, per cent", fontsize=style.TITLE)
    metric = "acc1" if set(standings.main.values()) == {ACCURACY} else "main metric"
    figure.supylabel(f"{metric}, per cent", fontsize=style.TITLE)
    # Two panels are wider than three, and one is not stretched over the page.
    panels = list(figure.subplots(n_rows, min(PANELS_A_ROW, max(2, len(shown))), squeeze=False).flat)
    fractions = [row.fraction for row in standings.rows] or [1.0]
    for panel, content in zip(panels, shown, strict=False):
        _draw_methods(panel, content, style.fraction_limits(fractions))
        _draw_bounds(panel, content)
        style.plain(panel, content.title)
        style.fraction_axis(panel, sorted(set(fractions)))
        panel.set_ylim(bottom=0)
        if content.metric != ACCURACY:
            panel.set_ylabel(metric_words(content.metric), fontsize=style.SMALL)
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    style.legend_above(figure, panels)
    return style.png_of(figure)


def _sets(standings: Standings) -> Iterator[_Panel]:
    for name in standings.images:
        lines: dict[str, dict[float, Estimate]] = {method: {} for method in standings.methods}
        for row in standings.rows:
            if estimate := standings.main_estimate(row, name):
                lines[row.method][row.fraction] = estimate
        full, chance = standings.full_estimate(name), standings.main_chance(name)
        yield _Panel(printable(name), standings.main[name], lines, full, chance)


def _groups(groups: pl.DataFrame, crawl: str) -> Iterator[_Panel]:
    groups = groups if groups.is_empty() else groups.filter(pl.col("sets") > 1)
    estimates = group_estimates(groups, crawl)
    for group, title in group_titles(groups, crawl).items():
        lines: dict[str, dict[float, Estimate]] = {}
        for (method, fraction, name), estimate in estimates.items():
            if name == group:
                lines.setdefault(method, {})[fraction] = estimate
        if lines:
            full = next(iter(lines.pop(FULL, {}).values()), None)
            yield _Panel(f"mean: {title}", ACCURACY, lines, full, None)


def _draw_methods(panel: "Axes", content: _Panel, limits: tuple[float, float]) -> None:
    left, right = limits
    looks = style.looks_of(content.lines)
    for number, (method, line) in enumerate(sorted(content.lines.items())):
        # On a logarithmic axis a shift is a factor.
        shift = (right / left) ** (DODGE * (number - (len(content.lines) - 1) / 2))
        panel.errorbar(
            [fraction * shift for fraction in line],
            [100 * estimate.value for estimate in line.values()],
            yerr=[
                # A bootstrap interval can miss the value, and matplotlib takes no negative length.
                [100 * max(0.0, estimate.value - estimate.low) for estimate in line.values()],
                [100 * max(0.0, estimate.high - estimate.value) for estimate in line.values()],
            ],
            label=printable(method),
            color=looks[method].colour,
            marker=looks[method].mark,
            markersize=4,
            linewidth=1.3,
            elinewidth=0.8,
        )
        for fraction, estimate in line.items():
            if estimate.seed_deviation is not None:
                ends = [100 * (estimate.value + side * estimate.seed_deviation) for side in (-1, 1)]
                panel.vlines(fraction * shift, *ends, color=looks[method].colour, alpha=PALE, linewidth=BROAD)


def _draw_bounds(panel: "Axes", content: _Panel) -> None:
    full = content.full
    if full:
        panel.axhspan(100 * full.low, 100 * full.high, color=style.GREY, alpha=0.13, linewidth=0)
        panel.axhline(100 * full.value, color=style.GREY, linewidth=1.4, label="full pool")
        panel.axhline(90 * full.value, color=style.GREY, linewidth=1, linestyle="--", label="90 % of full pool")
    if any(estimate.seed_deviation is not None for line in content.lines.values() for estimate in line.values()):
        panel.vlines([], [], [], color=style.GREY, alpha=PALE, linewidth=BROAD, label="deviation over seeds")
    if content.chance is not None:
        panel.axhline(100 * content.chance, color=style.GREY, linewidth=1.2, linestyle=":", label="chance")
