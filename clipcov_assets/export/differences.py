"""Which differences between methods are real, in words.

A table with a row for every (crawl, fraction, method, other, evaluation_set) enters; sentences leave.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from clipcov_assets.export.scoreboard import escape_markdown
from clipcov_assets.export.standings import percent, printable

LEVEL = 0.05
EXPLANATION = (
    "Compared image by image, on the same images: the difference of acc1 in points, its 95 % interval over images, "
    "and a p-value that holds for all comparisons of the crawl together (exact McNemar test, Holm's correction). Below "
    f"{LEVEL} a difference is called real. Another training seed may still change it."
)


def differences_in_words(differences: pl.DataFrame, crawl: str) -> list[str]:
    """Write a sentence for each comparison of a crawl: small fractions first, then by evaluation set and method."""
    rows = differences.filter(pl.col("crawl") == crawl).sort("fraction", "evaluation_set", "method", "other")
    return [_sentence(row) for row in rows.iter_rows(named=True)]


def differences_markdown(differences: pl.DataFrame, crawl: str) -> str:
    """Write the same as a Markdown list, with what it means."""
    items = (f"- {escape_markdown(sentence)}" for sentence in differences_in_words(differences, crawl))
    return "\n".join([EXPLANATION, "", *items])


def _sentence(row: Mapping[str, Any]) -> str:
    names = f"{printable(row['method'])} against {printable(row['other'])}"
    interval = f"[{_points(row['low'])}, {_points(row['high'])}]"
    p_value = row["adjusted_p_value"]
    verdict = "real" if p_value < LEVEL else "within noise"
    return (
        f"{percent(row['fraction'])}, {printable(row['evaluation_set'])}: {names} {_points(row['difference'])} points "
        f"{interval}, {_p_value(p_value)}: {verdict}"
    )


def _points(difference: float) -> str:
    """Write a difference in points, with its sign and no negative zero."""
    return f"{100 * difference:+.1f}".replace("-0.0", "+0.0").replace("-", "\N{MINUS SIGN}")


def _p_value(p_value: float) -> str:
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"
