"""Which differences between methods are real, in words.

A table with a row for every (crawl, fraction, method, other, evaluation_set) enters; sentences leave.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from clipcov_assets.export.comparison_tables import of_crawl
from clipcov_assets.export.escape import escape_markdown
from clipcov_assets.export.standings import percent, printable

LEVEL = 0.05
COMPARED = (
    "Compared image by image, on the same images: the difference of acc1 in points, its 95 % interval over images, "
    f"and a p-value that holds for all comparisons of the crawl together (Holm's correction). Below {LEVEL} a "
    "difference is called real."
)
ONE_SEED = "With one seed the test is McNemar's exact one. Another training seed may still change it."
SEVERAL_SEEDS = (
    "With several seeds an image's hits are averaged over them and the test flips signs; interval and p-value hold "
    "for these trainings, and the spread of the seeds stands beside the scores."
)


def differences_in_words(differences: pl.DataFrame, crawl: str) -> list[str]:
    """Write a sentence for each comparison of a crawl: small fractions first, then by evaluation set and method."""
    rows = of_crawl(differences, crawl)
    if rows.is_empty():
        return []
    ordered = rows.sort("fraction", "evaluation_set", "method", "other")
    return [_sentence(row) for row in ordered.iter_rows(named=True)]


def explanation_of(differences: pl.DataFrame, crawl: str) -> str:
    """Say how a crawl's comparisons were made, and what they cannot tell."""
    rows = of_crawl(differences, crawl)
    seeds = set() if rows.is_empty() else set(rows["seeds"])
    words = [COMPARED]
    words += [SEVERAL_SEEDS] if seeds - {1} else []
    words += [ONE_SEED] if 1 in seeds else []
    return " ".join(words)


def differences_markdown(differences: pl.DataFrame, crawl: str) -> str:
    """Write the same as a Markdown list, with what it means."""
    items = (f"- {escape_markdown(sentence)}" for sentence in differences_in_words(differences, crawl))
    return "\n".join([explanation_of(differences, crawl), "", *items])


def _sentence(row: Mapping[str, Any]) -> str:
    names = f"{printable(row['method'])} against {printable(row['other'])}"
    interval = f"[{points(row['low'])}, {points(row['high'])}]"
    p_value = row["adjusted_p_value"]
    verdict = "real" if p_value < LEVEL else "within noise"
    seeds = f" (mean of {row['seeds']} seeds)" if row["seeds"] > 1 else ""
    return (
        f"{percent(row['fraction'])}, {printable(row['evaluation_set'])}: {names} {points(row['difference'])} points "
        f"{interval}{seeds}, {p_value_words(p_value)}: {verdict}"
    )


def points(difference: float) -> str:
    """Write a difference in points, with its sign and no negative zero."""
    return f"{100 * difference:+.1f}".replace("-0.0", "+0.0").replace("-", "\N{MINUS SIGN}")


def p_value_words(p_value: float) -> str:
    """Write a p-value, a tiny one as a bound."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"
