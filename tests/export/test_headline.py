import html
from dataclasses import replace

import polars as pl
import pytest

from clipcov_assets.export.comparison_tables import ComparisonTables
from clipcov_assets.export.headline import headline
from clipcov_assets.export.report import html_report
from tests.comparisons import build_differences, build_groups, build_scores, build_tables

MINUS = "\N{MINUS SIGN}"
ACCURACIES = {
    ("clipcov", 0.1): 0.40,
    ("clipcov", 0.3): 0.47,
    ("clip_score", 0.3): 0.449,
    ("random", 0.3): 0.30,
    ("full", 1.0): 0.50,
}
IMAGENET = "wds_imagenet1k_test"
REAL, LUCK = (0.021, 0.004, 0.038, 0.001, 0.01), (0.021, -0.01, 0.05, 0.2, 0.6)


def said(
    accuracies: dict[tuple[str, float], float | None] = ACCURACIES,
    *differences: tuple,
    evaluation_set: str = IMAGENET,
    wanted: tuple[tuple[str, float], ...] = (),
    **build: object,
) -> str:
    scores = build_scores(accuracies, evaluation_sets=(evaluation_set,), **build)
    tables = build_tables(scores, differences=build_differences(*differences))
    return headline(tables, "crawl-1", wanted=wanted)


def test_it_opens_with_what_the_smallest_sufficient_size_keeps() -> None:
    assert said().startswith(
        "ClipCov at 30 % of the pool (300 pairs) keeps 94 % of the full pool's accuracy on ImageNet: "
        "47.0 [44.5, 49.5] against 50.0 [47.5, 52.5] per cent, with 95 % intervals. No smaller size of it keeps 90 %. "
        "Of what the full pool has above guessing (10.0 %), it keeps 92.5 %."
    )


def test_a_size_that_keeps_enough_is_called_luck_where_more_pairs_keep_less() -> None:
    found = said(ACCURACIES | {("clipcov", 0.1): 0.48, ("clipcov", 0.3): 0.40})
    assert found.startswith("ClipCov at 10 % of the pool (100 pairs) keeps 96 %")
    assert "But this may be luck, since more pairs keep less: 80 % at 30 %." in found


def test_where_no_size_keeps_enough_the_largest_is_told_and_never_rounded_up() -> None:
    found = said(ACCURACIES | {("clipcov", 0.3): 0.4499})
    assert found.startswith(
        "No size of ClipCov keeps 90 % of the full pool's accuracy on ImageNet. Its largest, 30 % of the pool "
        "(300 pairs), keeps 89.9 %: "
    )


def test_a_difference_that_holds_is_told_with_its_interval() -> None:
    assert (
        "The difference to CLIP score, the best other method at this size, is +2.1 points, 95 % interval +0.4 to +3.8, "
        "and holds for all comparisons together (p = 0.01)." in said(ACCURACIES, (0.3, "clip_score", IMAGENET, *REAL))
    )


@pytest.mark.parametrize(
    "numbers",
    [LUCK, (0.021, 0.004, 0.038, 0.03, 0.15), (0.021, 0.0, 0.05, 0.01, 0.04)],
    ids=["neither", "only alone", "an interval with 0"],
)
def test_a_difference_that_interval_or_test_do_not_carry_cannot_be_told_from_luck(numbers: tuple[float, ...]) -> None:
    found = said(ACCURACIES, (0.3, "clip_score", IMAGENET, *numbers))
    assert "it cannot be told from luck" in found
    assert "and holds" not in found


def test_being_behind_is_told_as_plainly() -> None:
    found = said(
        ACCURACIES | {("clip_score", 0.3): 0.499}, (0.3, "clip_score", IMAGENET, -0.029, -0.05, -0.01, 0.001, 0.01)
    )
    assert f"is {MINUS}2.9 points, 95 % interval {MINUS}5.0 to {MINUS}1.0, and holds" in found


def test_all_comparisons_are_counted_since_one_was_picked() -> None:
    found = said(
        ACCURACIES,
        (0.3, "clip_score", IMAGENET, *REAL),
        (0.1, "random", IMAGENET, *REAL),
        (0.1, "clip_score", IMAGENET, -0.03, -0.05, -0.01, 0.001, 0.01),
        (0.3, "random", IMAGENET, *LUCK),
    )
    assert "Of all 4 comparisons, over sizes and sets, 2 hold in favour of ClipCov and 1 against it." in found


def test_a_subset_of_another_size_is_no_rival() -> None:
    scores = build_scores(ACCURACIES | {("clipcov_or_random", 0.3): 0.6}, evaluation_sets=(IMAGENET,))
    is_union = pl.col("method") == "clipcov_or_random"
    union = scores.with_columns(pairs=pl.when(is_union).then(500).otherwise(pl.col("pairs")))
    assert "The best other method at this size, CLIP score," in headline(build_tables(union), "crawl-1")
    assert "No other method is scored at this size." in said({("clipcov", 0.3): 0.47, ("full", 1.0): 0.5})


@pytest.mark.parametrize(
    "other, verdict", [(0.449, "the intervals overlap, so"), (0.30, "the intervals do not overlap;")]
)
def test_where_images_were_not_compared_only_intervals_speak(other: float, verdict: str) -> None:
    found = said(ACCURACIES | {("clip_score", 0.3): other, ("random", 0.3): 0.2})
    assert f"CLIP score, reaches {100 * other:.1f} [" in found
    assert verdict in found
    assert "image by image they were not compared" in found


def test_another_metric_than_accuracy_is_named_and_so_is_that_of_the_difference() -> None:
    found = said(ACCURACIES, (0.3, "clip_score", IMAGENET, *REAL), main="mean_per_class_recall")
    assert "of the full pool's mean per-class recall on ImageNet" in found
    assert "is +2.1 points of acc1, 95 % interval" in found


def test_guessing_is_called_guessing() -> None:
    low = {one: value / 4 for one, value in ACCURACIES.items()}  # clipcov 11.75 [9.3, 14.3]
    assert "But this cannot be told from guessing (10.0 %)." in said(low | {("full", 1.0): 0.13})
    assert "But the full pool itself cannot be told from guessing (10.0 %), so the share says nothing." in said(low)
    assert "cannot be told from guessing" not in said()


def test_without_the_full_pool_no_share_is_claimed() -> None:
    found = said({one: value for one, value in ACCURACIES.items() if one[0] != "full"})
    assert found.startswith("ClipCov at 30 % of the pool (300 pairs), its largest size so far, reaches 47.0")
    assert "the full pool has no value there" in found
    assert "keeps" not in found


@pytest.mark.parametrize("scored", [None, {("clipcov", 0.3): None}], ids=["not there", "without a value"])
def test_without_clipcov_the_highest_is_named_and_nothing_is_called_better(scored: dict | None) -> None:
    others = {one: value for one, value in ACCURACIES.items() if one[0] != "clipcov"}
    found = said(others | (scored or {}))
    assert found.startswith(
        "ClipCov has no scorecard here. At 30 % of the pool (300 pairs) CLIP score, the highest of 2, reaches 44.9 "
    )
    assert "That is 89.8 % of the full pool's. No difference was tested." in found


def test_the_full_pool_alone_and_nothing_at_all_are_told_as_such() -> None:
    assert said({("full", 1.0): 0.5}).startswith("Only the full pool is scored so far: 50.0 [47.5, 52.5] per cent")
    assert said({("clipcov", 0.1): None, ("full", 1.0): None}) == "No scorecard of this crawl has a value yet."
    with pytest.raises(ValueError, match="no scorecard of crawl 'crawl-9' yet"):
        headline(build_tables(build_scores(ACCURACIES)), "crawl-9")


def test_without_imagenet_an_average_is_the_measure_and_else_the_set_with_most_images() -> None:
    scores = build_scores(ACCURACIES, evaluation_sets=("pets", "birds", "a set of ours"))
    groups = build_groups({(*one, "others5"): value for one, value in ACCURACIES.items()})
    found = headline(build_tables(scores, groups=groups), "crawl-1")
    assert "keeps 94 % of the full pool's average on the five without ImageNet: 47.0 [46.0, 48.0] against" in found
    assert "guessing" not in found
    most = scores.with_columns(
        images=pl.when(pl.col("evaluation_set") == "birds").then(900).otherwise(pl.col("images"))
    )
    assert "accuracy on birds:" in headline(build_tables(most), "crawl-1")
    assert "accuracy on a set of ours:" in headline(build_tables(scores), "crawl-1")
    with_imagenet = pl.concat([most, build_scores(ACCURACIES, evaluation_sets=(IMAGENET,))])
    assert "accuracy on ImageNet:" in headline(build_tables(with_imagenet, groups=groups), "crawl-1")


def test_seeds_are_told_and_what_they_cannot_tell() -> None:
    assert "trained with one seed: another seed may change this." in said()
    several = said(seed_deviation=0.012)
    assert "47.0 [44.5, 49.5] ±1.2 against" in several
    assert "These are means over 3 seeds; intervals are over images, not over seeds." in several


def test_missing_scorecards_are_counted() -> None:
    wanted = tuple(ACCURACIES)
    assert said(wanted=wanted).endswith("Scorecards missing: none of 5.")
    assert said(wanted=(*wanted, ("semdedup", 0.1), ("random", 0.1))).endswith("Scorecards missing: 2 of 7.")
    assert "missing" not in said()


def test_equal_tables_give_equal_words_whatever_the_order_of_the_rows(tables: ComparisonTables) -> None:
    backwards = replace(tables, **{name: table.reverse() for name, table in vars(tables).items()})
    assert headline(tables, "crawl-1") == headline(backwards, "crawl-1")
    # Of equal rivals the first by name is told.
    assert "MetaCLIP" not in said(ACCURACIES | {("metaclip", 0.3): 0.449})


def test_names_stay_on_one_line() -> None:
    found = said(
        {("clipcov", 0.1): 0.4, ("a\nb", 0.1): 0.3, ("full", 1.0): 0.4}, evaluation_set="x\ny\x1b[31m" + 90 * "z"
    )
    assert found.isprintable()
    assert 60 * "z" not in found


PICTURE = {"accuracy_curves": b"a picture"}


def test_it_stands_first_in_the_section_of_its_crawl_escaped(tables: ComparisonTables) -> None:
    wanted = [("clipcov", 0.05), ("semdedup", 0.05)]
    page = html_report(tables, "crawl-1", links={}, drawn=PICTURE, wanted=wanted)
    found = html.escape(headline(tables, "crawl-1", wanted=wanted))
    assert f'<h2>crawl-1</h2>\n<p class="lead">{found}</p>' in page
    assert "Scorecards missing: 1 of 2." in page
    attack = build_scores(ACCURACIES, evaluation_sets=("<script>x</script>",))
    assert "<script" not in html_report(build_tables(attack), "crawl-1", links={}, drawn=PICTURE)
