import polars as pl

from clipcov_assets.export.differences import differences_in_words, differences_markdown, explanation_of
from tests.comparisons import build_differences

REAL = (0.1, "clip_score", "pets", 0.021, 0.004, 0.038, 0.001, 0.02)
NOISE = (0.05, "random", "pets", -0.0004, -0.03, 0.03, 0.9, 1.0)
ANOTHER_SEED = "Another training seed may still change it."


def test_a_difference_is_said_in_points_with_its_verdict() -> None:
    assert differences_in_words(build_differences(REAL, NOISE), "crawl-1") == [
        "5 %, pets: clipcov against random +0.0 points [\N{MINUS SIGN}3.0, +3.0], p = 1: within noise",
        "10 %, pets: clipcov against clip_score +2.1 points [+0.4, +3.8], p = 0.02: real",
    ]


def test_a_mean_over_seeds_says_so() -> None:
    (sentence,) = differences_in_words(build_differences(REAL, seeds=3), "crawl-1")
    assert sentence.endswith("[+0.4, +3.8] (mean of 3 seeds), p = 0.02: real")


def test_only_one_seed_is_warned_of() -> None:
    one, three = build_differences(REAL), build_differences(NOISE, seeds=3)
    assert ANOTHER_SEED in explanation_of(one, "crawl-1")
    assert ANOTHER_SEED not in explanation_of(three, "crawl-1")
    both = explanation_of(pl.concat([one, three]), "crawl-1")
    assert ANOTHER_SEED in both and "averaged" in both


def test_a_tiny_p_value_is_not_called_zero() -> None:
    (sentence,) = differences_in_words(build_differences((*REAL[:6], 0.0, 1e-12)), "crawl-1")
    assert sentence.endswith("p < 0.001: real")


def test_another_crawls_differences_are_not_told() -> None:
    assert differences_in_words(build_differences(REAL, crawl="crawl-2"), "crawl-1") == []
    assert differences_in_words(pl.DataFrame(), "crawl-1") == []


def test_names_are_escaped_in_markdown() -> None:
    table = build_differences((0.1, "random", "<script>alert(1)</script>|*x*", 0.1, 0.0, 0.2, 0.5, 0.5))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\|\\*x\\*" in differences_markdown(table, "crawl-1")
