"""How every picture looks: page-wide, dark on white, colours and marks that all eyes tell apart."""

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from PIL import Image

from clipcov_assets.core import METHODS
from clipcov_assets.export.standings import FULL, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart with every kind of colour vision; the marks say the same again.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = "osD^vPX"
GREY = "#555555"
LIGHT = "#E5E5E5"
GAIN, LOSS = COLOURS[0], COLOURS[1]

WIDTH = 10.4  # inches: 1144 dots, a little more than the report shows
DOTS_PER_INCH = 110
TITLE, TEXT, SMALL = 10, 9, 8  # points
CLOSEST_TICKS = 0.08  # between two labels of fractions, as a share of the axis


@dataclass(frozen=True)
class Look:
    """Colour and mark of one method, the same in every picture."""

    colour: str
    mark: str


def looks_of(methods: Iterable[str]) -> dict[str, Look]:
    """Give each method its look: known ones by their place in the table of methods, others after them."""
    present = set(methods) - {FULL}
    known = sorted(set(METHODS) - {FULL})
    others = sorted(present - set(known))
    looks = {
        method: Look(COLOURS[number % len(COLOURS)], MARKS[(number + number // len(COLOURS)) % len(MARKS)])
        for number, method in enumerate(known + others)
    }
    return {method: looks[method] for method in sorted(present)} | {FULL: Look(GREY, "*")}


def page(height: float) -> "Figure":
    """Return an empty figure as wide as a page and so many inches high."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), dpi=DOTS_PER_INCH, layout="constrained")


def plain(panel: "Axes", title: str, *, grid: Literal["x", "y", "both"] = "y") -> None:
    """Give a panel its title, which is text and nothing else, and take away what says nothing."""
    panel.set_title(title, fontsize=TITLE, parse_math=False)
    panel.grid(axis=grid, color=LIGHT, linewidth=0.7)
    panel.set_axisbelow(True)
    panel.tick_params(labelsize=SMALL)
    panel.spines[["top", "right"]].set_visible(False)


def fraction_axis(panel: "Axes", fractions: Sequence[float]) -> None:
    """Make the horizontal axis a logarithmic one of fractions in per cent, with the labels there is room for."""
    left, right = fraction_limits(fractions)
    ticks: list[float] = []
    for fraction in sorted(fractions):
        if not ticks or math.log(fraction / ticks[-1]) >= CLOSEST_TICKS * math.log(right / left):
            ticks.append(fraction)
    panel.set_xscale("log")
    panel.set_xlim(left, right)
    panel.set_xticks(ticks, [percent(fraction).removesuffix(" %") for fraction in ticks])
    panel.minorticks_off()


def fraction_limits(fractions: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis of fractions."""
    return min(fractions) / 1.2, max(fractions) * 1.2


def samples_axis(panel: "Axes") -> None:
    """Write the samples of a horizontal axis in thousands and millions: 20k, 1.5M."""
    from matplotlib.ticker import EngFormatter

    panel.xaxis.set_major_formatter(EngFormatter(sep=""))


def legend_above(figure: "Figure", panels: Iterable["Axes"], columns: int = 5) -> None:
    """Explain the lines of all panels once, above them."""
    handles = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside upper center",
        ncols=min(columns, len(handles)),
        frameon=False,
        fontsize=TEXT,
    )


def png_of(figure: "Figure") -> bytes:
    """Return the picture with a small palette; equal figures give equal bytes."""
    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png")
    # The default chooses colours by their number of dots, and gives thin lines away to the many greys of the text.
    picture = Image.open(full).convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=1)
    picture.save(small, format="png", optimize=True)
    return small.getvalue()
