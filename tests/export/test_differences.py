import polars as pl

from clipcov_assets.export.differences import differences_in_words, differences_markdown
from clipcov_assets.export.report import html_report
from clipcov_assets.tables import DIFFERENCES

NUMBERS = ("difference", "low", "high", "p_value", "adjusted_p_value")


def differences(*rows: tuple, crawl: str = "crawl-1") -> pl.DataFrame:
    """Rows of fraction, method compared with, evaluation set, and the five numbers."""
    records = [
        {
            "crawl": crawl,
            "fraction": fraction,
            "method": "clipcov",
            "other": other,
            "evaluation_set": name,
            "images": 200,
        }
        | dict(zip(NUMBERS, numbers, strict=True))
        for fraction, other, name, *numbers in rows
    ]
    return pl.DataFrame(records, schema=pl.DataFrame(DIFFERENCES.empty_table()).schema)


REAL = (0.1, "clip_score", "pets", 0.021, 0.004, 0.038, 0.001, 0.02)
NOISE = (0.05, "random", "pets", -0.0004, -0.03, 0.03, 0.9, 1.0)


def test_a_difference_is_said_in_points_with_its_verdict() -> None:
    assert differences_in_words(differences(REAL, NOISE), "crawl-1") == [
        "5 %, pets: clipcov against random +0.0 points [\N{MINUS SIGN}3.0, +3.0], p = 1: within noise",
        "10 %, pets: clipcov against clip_score +2.1 points [+0.4, +3.8], p = 0.02: real",
    ]


def test_a_tiny_p_value_is_not_called_zero() -> None:
    (sentence,) = differences_in_words(differences((*REAL[:6], 0.0, 1e-12)), "crawl-1")
    assert sentence.endswith("p < 0.001: real")


def test_another_crawls_differences_are_not_told() -> None:
    assert differences_in_words(differences(REAL, crawl="crawl-2"), "crawl-1") == []


def test_names_are_escaped_in_markdown_and_in_the_report(scores: pl.DataFrame) -> None:
    attack = "<script>alert(1)</script>|*x*"
    table = differences((0.1, "random", attack, 0.1, 0.0, 0.2, 0.5, 0.5))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\|\\*x\\*" in differences_markdown(table, "crawl-1")
    page = html_report(scores, table, links={})
    assert "<script>" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;|*x*" in page
    assert "Which differences are real" in page


def test_a_crawl_without_comparisons_has_no_such_heading(scores: pl.DataFrame) -> None:
    assert "Which differences are real" not in html_report(scores, differences(REAL, crawl="crawl-2"), links={})
