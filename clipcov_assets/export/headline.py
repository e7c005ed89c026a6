"""What a lead reads first: the few sentences that a crawl's scores carry, and none that they do not.

The tables of a comparison enter, plain text leaves. It is judged by ImageNet where that is scored, else by the average
over most sets that has a value, else by the set with most images; the numbers are those of the tables beside it.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from clipcov_assets.core.metrics import Estimate
from clipcov_assets.core.suite import ACCURACY, GROUPS, known_set
from clipcov_assets.export.comparison_tables import ComparisonTables, of_crawl
from clipcov_assets.export.differences import LEVEL, p_value_words, points
from clipcov_assets.export.groups import group_estimates, group_titles
from clipcov_assets.export.standings import (
    FULL,
    Standing,
    Standings,
    metric_words,
    percent,
    printable,
    retained,
    show,
    smallest_fraction_reaching,
    standings_of,
)

CLIPCOV, IMAGENET, AVERAGE = "clipcov", "imagenet1k", "average"
KEPT = 0.9
NAMES = {
    CLIPCOV: "ClipCov",
    "clip_score": "CLIP score",
    "c_rho": "C-RHO",
    "semdedup": "SemDeDup",
    "metaclip": "MetaCLIP",
}


@dataclass(frozen=True)
class _Yardstick:
    """What a crawl is judged by: a set, or an average that stands in the place of one."""

    scores: pl.DataFrame
    standings: Standings
    name: str
    title: str

    @property
    def metric(self) -> str:
        metric = self.standings.main[self.name]
        return "accuracy" if metric == ACCURACY else metric_words(metric)

    @property
    def full(self) -> Standing | None:
        """The full pool, where it has a value."""
        return self.standings.full if self.estimate(self.standings.full) else None

    def estimate(self, row: Standing | None) -> Estimate | None:
        return self.standings.main_estimate(row, self.name)

    def value(self, row: Standing) -> float:
        estimate = self.estimate(row)
        return -1.0 if estimate is None else estimate.value

    def is_guessing(self, row: Standing) -> bool:
        """Whether a checkpoint's interval reaches down to guessing; an average has no level of it."""
        estimate, chance = self.estimate(row), self.standings.main_chance(self.name)
        return estimate is not None and chance is not None and estimate.low <= chance

    @property
    def guessing(self) -> str:
        chance = self.standings.main_chance(self.name)
        return "guessing" if chance is None else f"guessing ({100 * chance:.1f} %)"

    def scored(self, method: str | None = None) -> list[Standing]:
        """The subsets that have a value, small ones first: all, or those of a method."""
        return [row for row in self.standings.rows if self.estimate(row) and method in (None, row.method)]

    def smallest(self, method: str) -> float | None:
        """The smallest fraction that keeps enough of the full pool's metric."""
        rows = smallest_fraction_reaching(self.scores, self.standings.crawl, share=KEPT)
        found = rows.filter((pl.col("method") == method) & (pl.col("evaluation_set") == self.name))
        return found["fraction"][0] if len(found) else None

    def shares(self, row: Standing) -> tuple[float | None, float | None]:
        """What a subset keeps of the full pool's metric, and of what that has above guessing."""
        found = retained(self.scores, self.standings.crawl).filter(
            (pl.col("method") == row.method)
            & (pl.col("fraction") == row.fraction)
            & (pl.col("evaluation_set") == self.name)
        )
        return found["retained"][0], found["retained_above_chance"][0]


def headline(tables: ComparisonTables, crawl: str, *, wanted: Collection[tuple[str, float]] = ()) -> str:
    """Say how much of the full pool ClipCov keeps, whether it is ahead of the best other method, and how sure that is.

    Args:
        tables: Rows of any crawls; all but the scores may be empty.
        crawl: Which one.
        wanted: Method and fraction of every scorecard that there should be; of those missing nothing is said where
            it is empty.

    Returns:
        Sentences on one line, names in them as they are: whoever shows them escapes them.

    Raises:
        ValueError: No score of this crawl.
    """
    standings = standings_of(tables.scores, crawl)
    yardstick = _yardstick(tables, standings)
    found = [] if yardstick is None else list(_verdict(yardstick, tables.differences))
    nothing = [] if found else ["No scorecard of this crawl has a value yet."]
    return " ".join([*found, *nothing, *_missing(standings, wanted)])


def _yardstick(tables: ComparisonTables, standings: Standings) -> _Yardstick | None:
    """ImageNet, an average or the largest set; None where no set has a value."""
    everyone = [*standings.rows, *([standings.full] if standings.full else [])]
    checkpoints = [row for row in everyone if row.method == CLIPCOV and row.estimates] or everyone
    sets = [name for name in standings.images if any(standings.main_estimate(row, name) for row in checkpoints)]
    for name in sets:
        if _known_name(name) == IMAGENET:
            return _Yardstick(tables.scores, standings, name, _title(name))
    judged = {row.method for row in checkpoints}
    valued = {group for method, _, group in group_estimates(tables.groups, standings.crawl) if method in judged}
    widest = max((group for group in GROUPS if group.name in valued), key=lambda group: len(group.sets), default=None)
    if widest is not None:
        scores = _as_scores(tables, standings.crawl, widest.name)
        title = group_titles(tables.groups, standings.crawl)[widest.name]
        return _Yardstick(scores, standings_of(scores, standings.crawl), widest.name, title)
    if not sets:
        return None
    largest = min(sets, key=lambda name: (-standings.images[name], name))
    return _Yardstick(tables.scores, standings, largest, _title(largest))


def _as_scores(tables: ComparisonTables, crawl: str, group: str) -> pl.DataFrame:
    """An average over sets in the columns of scores, as if it were one set; guessing has no level there."""
    checkpoint = ["crawl", "method", "fraction"]
    averages = of_crawl(tables.groups, crawl).filter(pl.col("group") == group)
    return (
        of_crawl(tables.scores, crawl)
        .select(*checkpoint, "pairs", "seeds")
        .unique()
        .join(averages.select(*checkpoint, "value", "low", "high", "seed_deviation"), on=checkpoint)
        .with_columns(
            evaluation_set=pl.lit(group),
            metric=pl.lit(AVERAGE),
            is_main=pl.lit(True),
            chance=pl.lit(None, pl.Float64),
            images=pl.lit(0),
        )
    )


def _verdict(yardstick: _Yardstick, differences: pl.DataFrame) -> Iterator[str]:
    scored = yardstick.scored(CLIPCOV)
    if not scored:
        yield from _without_clipcov(yardstick)
        return
    smallest = yardstick.smallest(CLIPCOV)
    ours = next((row for row in scored if row.fraction == smallest), scored[-1])
    yield from _kept(yardstick, scored, ours, reaches=smallest is not None)
    rivals = [
        row
        for row in yardstick.scored()
        if (row.fraction, row.pairs) == (ours.fraction, ours.pairs) and row.method != CLIPCOV
    ]
    # The first of equals: they are in the order of their names.
    rival = max(rivals, key=yardstick.value, default=None)
    yield from _against(yardstick, differences, ours, rival)
    yield from _balance(differences, yardstick.standings.crawl)
    yield _seeds([row for row in (ours, rival, yardstick.full) if row])


def _kept(yardstick: _Yardstick, scored: list[Standing], ours: Standing, *, reaches: bool) -> Iterator[str]:
    """What ClipCov keeps of the full pool, and whether that is more than guessing."""
    measured = f"{yardstick.metric} on {yardstick.title}"
    if yardstick.full is None:
        yield (
            f"ClipCov at {_size(ours)}, its largest size so far, reaches {_shown(yardstick, ours)} per cent "
            f"{measured}, with its 95 % interval. What share of the full pool's that is cannot be said: the full pool "
            "has no value there."
        )
        yield from _guessing(yardstick, ours)
        return
    share, above = yardstick.shares(ours)
    numbers = f"{_shown(yardstick, ours)} against {_shown(yardstick, yardstick.full)} per cent, with 95 % intervals"
    keeps = "" if share is None else f" keeps {_share(share)}"
    if reaches:
        smaller = " No smaller size of it keeps 90 %." if ours is not scored[0] else ""
        yield f"ClipCov at {_size(ours)}{keeps} of the full pool's {measured}: {numbers}.{smaller}"
        yield from _larger_keep_less(yardstick, [row for row in scored if row.fraction > ours.fraction])
    else:
        largest = f"{_size(ours)},{keeps}" if keeps else _size(ours)
        yield f"No size of ClipCov keeps 90 % of the full pool's {measured}. Its largest, {largest}: {numbers}."
    if yardstick.is_guessing(yardstick.full):
        yield f"But the full pool itself cannot be told from {yardstick.guessing}, so the share says nothing."
    elif yardstick.is_guessing(ours):
        yield from _guessing(yardstick, ours)
    elif above is not None:
        yield f"Of what the full pool has above {yardstick.guessing}, it keeps {_share(above)}."


def _larger_keep_less(yardstick: _Yardstick, larger: list[Standing]) -> Iterator[str]:
    """The smallest size that keeps enough is the luckiest one, too, where a larger one keeps less."""
    kept = {row.fraction: share for row in larger if (share := yardstick.shares(row)[0]) is not None and share < KEPT}
    if kept:
        sizes = ", ".join(f"{_share(share)} at {percent(fraction)}" for fraction, share in kept.items())
        yield f"But this may be luck, since more pairs keep less: {sizes}."


def _guessing(yardstick: _Yardstick, row: Standing) -> Iterator[str]:
    if yardstick.is_guessing(row):
        yield f"But this cannot be told from {yardstick.guessing}."


def _against(yardstick: _Yardstick, differences: pl.DataFrame, ours: Standing, rival: Standing | None) -> Iterator[str]:
    """Whether ClipCov is ahead of the best other method of its size."""
    if rival is None:
        yield "No other method is scored at this size."
        return
    name = method_words(rival.method)
    row = _difference(yardstick, differences, ours, rival)
    if row is None:
        own, other = yardstick.estimate(ours), yardstick.estimate(rival)
        overlap = own is not None and other is not None and own.low <= other.high and other.low <= own.high
        verdict = (
            "the intervals overlap, so the two cannot be told apart" if overlap else "the intervals do not overlap"
        )
        yield (
            f"The best other method at this size, {name}, reaches {_shown(yardstick, rival)} per cent: {verdict}; "
            "image by image they were not compared."
        )
        return
    measured = "" if yardstick.metric == "accuracy" else f" of {ACCURACY}"
    difference = (
        f"The difference to {name}, the best other method at this size, is {points(row['difference'])} points"
        f"{measured}, 95 % interval {points(row['low'])} to {points(row['high'])}"
    )
    p_value = p_value_words(row["adjusted_p_value"])
    if _holds(row):
        yield f"{difference}, and holds for all comparisons together ({p_value})."
    else:
        yield f"{difference}: it cannot be told from luck ({p_value} for all comparisons together)."


def _difference(
    yardstick: _Yardstick, differences: pl.DataFrame, ours: Standing, rival: Standing
) -> dict[str, Any] | None:
    rows = of_crawl(differences, yardstick.standings.crawl)
    if rows.is_empty():
        return None
    found = rows.filter(
        (pl.col("method") == CLIPCOV)
        & (pl.col("other") == rival.method)
        & (pl.col("fraction") == ours.fraction)
        & (pl.col("evaluation_set") == yardstick.name)
    )
    return found.row(0, named=True) if len(found) else None


def _holds(row: dict[str, Any]) -> bool:
    """Whether test and interval both say that a difference is not luck."""
    return bool(row["adjusted_p_value"] < LEVEL and (row["low"] > 0 or row["high"] < 0))


def _balance(differences: pl.DataFrame, crawl: str) -> Iterator[str]:
    """All comparisons at a glance, since the one above was picked."""
    rows = [row for row in of_crawl(differences, crawl).iter_rows(named=True) if row["method"] == CLIPCOV]
    if len(rows) > 1:
        held = [row["difference"] for row in rows if _holds(row)]
        ahead = sum(difference > 0 for difference in held)
        yield (
            f"Of all {len(rows)} comparisons, over sizes and sets, {ahead or 'none'} hold in favour of ClipCov and "
            f"{len(held) - ahead or 'none'} against it."
        )


def _without_clipcov(yardstick: _Yardstick) -> Iterator[str]:
    """What can be said where ClipCov has no value: who is highest at the largest size, and no more."""
    rows = yardstick.scored()
    measured = f"per cent {yardstick.metric} on {yardstick.title}"
    if rows:
        largest = [row for row in rows if (row.fraction, row.pairs) == (rows[-1].fraction, rows[-1].pairs)]
        best = max(largest, key=yardstick.value)
        alone = "the only one" if len(largest) == 1 else f"the highest of {len(largest)}"
        share = yardstick.shares(best)[0] if yardstick.full else None
        kept = "" if share is None else f" That is {_share(share)} of the full pool's."
        yield (
            f"ClipCov has no scorecard here. At {_size(best)} {method_words(best.method)}, {alone}, reaches "
            f"{_shown(yardstick, best)} {measured}, with its 95 % interval.{kept} No difference was tested."
        )
    elif yardstick.full:
        best = yardstick.full
        yield (
            f"Only the full pool is scored so far: {_shown(yardstick, best)} {measured}, with its 95 % interval. "
            "No subset can be judged yet."
        )
    else:
        return
    yield from _guessing(yardstick, best)
    yield _seeds([best])


def _seeds(rows: list[Standing]) -> str:
    fewest, most = min(row.seeds for row in rows), max(row.seeds for row in rows)
    if most == 1:
        return "Every model here was trained with one seed: another seed may change this."
    means = f"These are means over {most} seeds" if fewest == most else f"These are means over {fewest} to {most} seeds"
    return f"{means}; intervals are over images, not over seeds."


def _missing(standings: Standings, wanted: Collection[tuple[str, float]]) -> Iterator[str]:
    if wanted:
        rows = [*standings.rows, *([standings.full] if standings.full else [])]
        missing = len(set(wanted) - {(row.method, row.fraction) for row in rows})
        yield f"Scorecards missing: {missing or 'none'} of {len(wanted)}."


def method_words(method: str) -> str:
    """Write a method's name as people do; one that is not known as it is."""
    return "the full pool" if method == FULL else NAMES.get(method, printable(method))


def _known_name(evaluation_set: str) -> str | None:
    known = known_set(evaluation_set)
    return known.name if known else None


def _title(evaluation_set: str) -> str:
    known = known_set(evaluation_set)
    return known.title if known else printable(evaluation_set)


def _size(row: Standing) -> str:
    return f"{percent(row.fraction)} of the pool ({row.pairs:,} pairs)"


def _shown(yardstick: _Yardstick, row: Standing) -> str:
    return show(yardstick.estimate(row)).strip().replace("[ ", "[").replace(",  ", ", ")


def _share(share: float) -> str:
    """A share in per cent, never rounded up: 89.96 % is not 90 %."""
    return f"{math.floor(1000 * share + 1e-9) / 10:g} %"
