"""Every picture of a comparison: tables enter, small PNGs leave, one file a picture."""

from collections.abc import Callable
from dataclasses import dataclass

from clipcov_assets.export.charts.accuracy import accuracy_curves
from clipcov_assets.export.charts.classes import class_changes
from clipcov_assets.export.charts.cost import cost_frontier
from clipcov_assets.export.charts.forest import difference_forest
from clipcov_assets.export.charts.learning import learning_curves
from clipcov_assets.export.comparison_tables import ComparisonTables


@dataclass(frozen=True)
class Picture:
    """One kind of picture.

    Attributes:
        title: What it shows, as a heading.
        caption: How to read it.
        draw: Tables and crawl -> PNG, or None where the tables hold nothing to draw.
    """

    title: str
    caption: str
    draw: Callable[[ComparisonTables, str], bytes | None]


PICTURES: dict[str, Picture] = {
    "accuracy_curves": Picture(
        "Accuracy against subset size",
        "The main metric of each set: acc1 where no other is named. Thin bars: 95 % interval over images. Pale broad "
        "bars: one standard deviation over training seeds to each side, where there are several. The grey band is the "
        "full pool's interval. Methods stand beside each other at one size so that their bars can be told apart.",
        lambda tables, crawl: accuracy_curves(tables.scores, tables.groups, crawl),
    ),
    "difference_forest": Picture(
        "Which differences are real",
        "Difference of acc1 on the same images with its 95 % interval; right of the line ClipCov is ahead. Filled: "
        "real (p below 0.05 after Holm's correction for all comparisons of the crawl). Hollow: within noise.",
        lambda tables, crawl: difference_forest(tables.differences, crawl),
    ),
    "cost_frontier": Picture(
        "Accuracy against cost",
        "Each mark is a checkpoint; its height is the mean over all sets of the main metric, corrected so that 0 is "
        "guessing and 100 is perfect. Nothing cheaper is better than the line, and sizes are written beside its "
        "corners. The cost is that of one training, without ranking and evaluation; device-hours compare only where "
        "all ran on the same kind of machine with nothing beside them.",
        lambda tables, crawl: cost_frontier(tables.scores, tables.trainings, crawl),
    ),
    "class_changes": Picture(
        "Classes gained and lost",
        "The classes whose recall differs most between the two subsets, at the largest size that both have: up to ten "
        "gains and ten losses a set. The extremes of many classes look large by luck alone, the more so the fewer "
        "images (in brackets) a class has: with ten images one of them is ten points.",
        lambda tables, crawl: class_changes(tables.class_recalls, crawl),
    ),
    "learning_curves": Picture(
        "Learning curves",
        "Loss on the training batches, averaged over sixtieths of a training, and the learning rate below; one line a "
        "training, so several seeds are several thin lines. A small subset is repeated more often and can reach a low "
        "loss by heart.",
        lambda tables, crawl: learning_curves(tables.curves, crawl),
    ),
}


def pictures(tables: ComparisonTables, crawl: str) -> dict[str, bytes]:
    """Draw all pictures that a crawl's tables hold something for.

    Returns:
        Name -> PNG, in the order of `PICTURES`.

    Raises:
        ValueError: No score of this crawl.
    """
    drawn = {name: picture.draw(tables, crawl) for name, picture in PICTURES.items()}
    return {name: png for name, png in drawn.items() if png is not None}
