"""The comparison as plain text for a terminal, and as Markdown for Dagster."""

import html
import re
from collections.abc import Iterator, Sequence

import polars as pl

from clipcov_assets.export.standings import (
    ABSENT,
    Standings,
    percent,
    printable,
    show,
    smallest_fraction_reaching,
    standings_of,
)

WIDTH = 120  # characters of a terminal line
GAP = "  "
HEADER_LINES = 2


def scoreboard(scores: pl.DataFrame, crawl: str) -> str:
    """Lay out acc1 of every method and fraction on every evaluation set, at most `WIDTH` characters wide.

    The first row is chance, the last the full pool. Evaluation sets that do not fit go into a further table.

    Raises:
        ValueError: No score of this crawl.
    """
    standings = standings_of(scores, crawl)
    columns = [_right_aligned(_column(standings, name)) for name in standings.images]
    tables = ("\n".join(_ruled(standings, lines)) for lines in _side_by_side(_labels(standings), columns))
    title = f"{printable(crawl)}: zero-shot accuracy (acc1) in per cent [95 % interval]"
    return "\n\n".join([title, *tables]) + "\n"


def comparison_markdown(scores: pl.DataFrame, crawl: str) -> str:
    """Write the scoreboard and the smallest sufficient fractions as two Markdown tables.

    Raises:
        ValueError: No score of this crawl.
    """
    standings = standings_of(scores, crawl)
    names = [_markdown(name) for name in standings.images]
    cells = [_who(standings), *(_column(standings, name)[HEADER_LINES:] for name in standings.images)]
    rows = [[*map(_markdown, who), *row] for who, *row in zip(*cells, strict=True)]
    smallest = smallest_fraction_reaching(scores, crawl)
    fractions = {(method, name): fraction for method, name, fraction, _ in smallest.iter_rows()}
    reached = [
        [_markdown(method), *(_fraction(fractions[method, name]) for name in standings.images)]
        for method in standings.methods
    ]
    return (
        "Zero-shot accuracy (acc1) in per cent, with 95 % intervals:\n\n"
        f"{_markdown_table(['method', 'fraction', 'pairs', *names], rows)}\n\n"
        "Smallest fraction that reaches 90 % of the full pool's acc1:\n\n"
        f"{_markdown_table(['method', *names], reached)}\n"
    )


def _who(standings: Standings) -> list[tuple[str, str, str]]:
    """Method, fraction and pairs of chance, of every subset, and of the full pool."""
    subsets = [(printable(row.method), percent(row.fraction), f"{row.pairs:,}") for row in standings.rows]
    full_pairs = f"{standings.full.pairs:,}" if standings.full else ABSENT
    return [("chance", "", ""), *subsets, ("full", "100 %", full_pairs)]


def _labels(standings: Standings) -> list[str]:
    methods, *numbers = zip(("", "", ""), ("method", "fraction", "pairs"), *_who(standings), strict=True)
    width = max(map(len, methods))
    columns = [[method.ljust(width) for method in methods], *map(_right_aligned, numbers)]
    return [GAP.join(cells) for cells in zip(*columns, strict=True)]


def _column(standings: Standings, evaluation_set: str) -> list[str]:
    """Name and size of an evaluation set, then acc1 in the order of `_who`."""
    place = evaluation_set, "acc1"
    chance = f"{100 * standings.chance[place]:4.1f}" if place in standings.chance else ABSENT
    estimates = [row.estimates.get(place) for row in standings.rows]
    values = [show(estimate) for estimate in (*estimates, standings.full_estimate(evaluation_set))]
    # Chance stands below the values, not below the ends of their intervals.
    chance = chance.ljust(max(map(len, values)))
    return [printable(evaluation_set), f"{standings.images[evaluation_set]:,} images", chance, *values]


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


def _ruled(standings: Standings, lines: list[str]) -> Iterator[str]:
    """Set header, chance, each fraction and the full pool apart."""
    rule = "-" * len(lines[0])
    header, chance, *subsets, full = lines[:HEADER_LINES], *lines[HEADER_LINES:]
    yield from (*(line.rstrip() for line in header), rule, chance.rstrip())
    before = None
    for row, line in zip(standings.rows, subsets, strict=True):
        if row.fraction != before:
            yield ""
        before = row.fraction
        yield line
    yield from (rule, full)


def _fraction(fraction: float | None) -> str:
    return "none" if fraction is None else percent(fraction)


def escape_markdown(text: str) -> str:
    """Make text fit for a line of Markdown: shown as it is, never acted on."""
    return re.sub(r"([\\`*|~\[\]])", r"\\\1", html.escape(text, quote=False))


def _markdown(name: str) -> str:
    return escape_markdown(printable(name))


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|" + " --- |" * len(header), *lines[1:]])
