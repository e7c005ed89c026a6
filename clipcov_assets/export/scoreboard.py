"""The comparison as plain text for a terminal."""

from collections.abc import Iterator, Sequence

import polars as pl

from clipcov_assets.core.suite import ACCURACY
from clipcov_assets.export.standings import ABSENT, Standings, metric_words, percent, printable, show, standings_of

WIDTH = 120  # characters of a terminal line
GAP = "  "


def scoreboard(scores: pl.DataFrame, crawl: str) -> str:
    """Lay out the main metric of every method and fraction on every evaluation set, at most `WIDTH` characters wide.

    The first row is chance, the last the full pool. Evaluation sets that do not fit go into a further table.

    Raises:
        ValueError: No score of this crawl.
    """
    standings = standings_of(scores, crawl)
    header = _header_lines(standings)
    columns = [_right_aligned(_column(standings, name, header)) for name in standings.images]
    labels = _labels(standings, header)
    tables = ("\n".join(_ruled(standings, lines, header)) for lines in _side_by_side(labels, columns))
    return "\n\n".join([_title(standings), *tables]) + "\n"


def _title(standings: Standings) -> str:
    metric = "accuracy (acc1)" if _only_accuracy(standings) else "main metric of each set"
    spread = " ± deviation over seeds" if standings.most_seeds > 1 else ""
    return f"{printable(standings.crawl)}: zero-shot {metric} in per cent [95 % interval]{spread}"


def _only_accuracy(standings: Standings) -> bool:
    return set(standings.main.values()) == {ACCURACY}


def _header_lines(standings: Standings) -> int:
    """Name and images of a set, and its metric where it is not acc1 everywhere."""
    return 2 if _only_accuracy(standings) else 3


def _who(standings: Standings) -> list[tuple[str, str, str]]:
    """Method, fraction and pairs of chance, of every subset, and of the full pool."""
    subsets = [(printable(row.method), percent(row.fraction), f"{row.pairs:,}") for row in standings.rows]
    full_pairs = f"{standings.full.pairs:,}" if standings.full else ABSENT
    return [("chance", "", ""), *subsets, ("full", "100 %", full_pairs)]


def _labels(standings: Standings, header: int) -> list[str]:
    above = [("", "", "")] * (header - 1)
    methods, *numbers = zip(*above, ("method", "fraction", "pairs"), *_who(standings), strict=True)
    width = max(map(len, methods))
    columns = [[method.ljust(width) for method in methods], *map(_right_aligned, numbers)]
    return [GAP.join(cells) for cells in zip(*columns, strict=True)]


def _column(standings: Standings, evaluation_set: str, header: int) -> list[str]:
    """Name, metric and size of an evaluation set, then its main metric in the order of `_who`."""
    metric = [metric_words(standings.main[evaluation_set])] * (header - 2)
    level = standings.main_chance(evaluation_set)
    chance = ABSENT if level is None else f"{100 * level:4.1f}"
    values = [show(standings.main_estimate(row, evaluation_set)) for row in (*standings.rows, standings.full)]
    # Values begin below each other, whether an interval or a deviation follows or not.
    width = max(map(len, values))
    cells = [value if value == ABSENT else value.ljust(width) for value in (chance, *values)]
    return [printable(evaluation_set), *metric, f"{standings.images[evaluation_set]:,} images", *cells]


def _right_aligned(cells: Sequence[str]) -> list[str]:
    width = max(map(len, cells))
    return [cell.rjust(width) for cell in cells]


def _side_by_side(labels: list[str], columns: list[list[str]]) -> Iterator[list[str]]:
    """Yield the lines of tables: labels and as many columns beside them as fit."""
    lines = labels
    for column in columns:
        if lines is not labels and len(lines[0]) + len(GAP) + len(column[0]) > WIDTH:
            yield lines
            lines = labels
        lines = [line + GAP + cell for line, cell in zip(lines, column, strict=True)]
    yield lines


def _ruled(standings: Standings, lines: list[str], header: int) -> Iterator[str]:
    """Set header, chance, each fraction and the full pool apart."""
    rule = "-" * len(lines[0])
    chance, *subsets, full = (line.rstrip() for line in lines[header:])
    yield from (*(line.rstrip() for line in lines[:header]), rule, chance)
    before = None
    for row, line in zip(standings.rows, subsets, strict=True):
        if row.fraction != before:
            yield ""
        before = row.fraction
        yield line
    yield from (rule, full)
