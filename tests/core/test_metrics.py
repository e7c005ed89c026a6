from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest, hypergeom, permutation_test

from clipcov_assets.core.metrics import (
    Measurement,
    above_chance,
    adjusted_p_values,
    average,
    chance,
    class_recalls,
    paired_difference,
    retrieval_chance,
    retrieval_score,
    score,
)


def one_seed(*values: int) -> np.ndarray:
    return np.array([values])


def test_a_worked_example() -> None:
    # Class 0: two images, both hit. Class 1: four images, one hit, two in the top five, one later.
    label, rank = np.array([0, 0, 1, 1, 1, 1]), one_seed(0, 0, 0, 1, 4, 5)
    values = {name: one.estimate.value for name, one in score(label, rank, n_classes=6, seed=0).items()}
    assert values == {"acc1": 3 / 6, "acc5": 5 / 6, "mean_per_class_recall": (2 / 2 + 1 / 4) / 2}


def test_a_worked_example_of_two_seeds() -> None:
    # The first seed hits 3 of 4 images, the second 1; class 0 has three of the images.
    label, rank = np.array([0, 0, 0, 1]), np.array([[0, 0, 1, 0], [1, 1, 0, 1]])
    found = {name: one.estimate for name, one in score(label, rank, n_classes=2, seed=0).items()}
    assert found["acc1"].value == (3 / 4 + 1 / 4) / 2
    assert found["mean_per_class_recall"].value == pytest.approx(((2 / 3 + 1) / 2 + (1 / 3 + 0) / 2) / 2)
    # Two values that differ by d have a standard deviation of d / sqrt(2).
    assert found["acc1"].seed_deviation == pytest.approx((3 / 4 - 1 / 4) / np.sqrt(2))


def test_one_seed_has_no_deviation() -> None:
    assert score(np.array([0, 1]), one_seed(0, 1), n_classes=2, seed=0)["acc1"].estimate.seed_deviation is None


def test_below_five_classes_there_is_no_acc5() -> None:
    label, rank = np.array([0, 1, 2, 3]), one_seed(0, 1, 2, 3)
    assert set(score(label, rank, n_classes=4, seed=0)) == set(chance(4)) == {"acc1", "mean_per_class_recall"}
    assert score(label, rank, n_classes=5, seed=0)["acc5"].estimate.value == 1


def test_the_interval_of_a_share_is_the_binomial_one() -> None:
    # 100 of 400 hits: the standard error is sqrt(0.25 * 0.75 / 400) = 0.02165.
    rank = np.repeat([0, 9], [100, 300])[None]
    estimate = score(np.zeros(400, dtype=int), rank, n_classes=10, seed=0, resamples=5000)["acc1"].estimate
    assert estimate.low == pytest.approx(0.25 - 1.96 * 0.02165, abs=0.005)
    assert estimate.high == pytest.approx(0.25 + 1.96 * 0.02165, abs=0.005)


def test_seeds_that_agree_on_every_image_make_the_interval_no_narrower() -> None:
    label, rank = np.arange(60) % 6, (np.arange(60) % 7 % 6)[None]
    alone = score(label, rank, n_classes=6, seed=0)["acc1"].estimate
    agreeing = score(label, np.repeat(rank, 3, axis=0), n_classes=6, seed=0)["acc1"].estimate
    assert (agreeing.value, agreeing.low, agreeing.high, agreeing.seed_deviation) == pytest.approx(
        (alone.value, alone.low, alone.high, 0)
    )


def interval_by_hand(metric, images: int) -> list[float]:
    """Percentiles over 2,000 resamplings, image by image."""
    rng = np.random.default_rng(0)
    return list(np.percentile([metric(rng.integers(0, images, size=images)) for _ in range(2000)], [2.5, 97.5]))


@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_agree_with_resampling_the_images_one_by_one(seeds: int) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 7, size=150)
    rank = np.minimum(rng.integers(0, 7, size=(seeds, 150)), label)

    def recall(rows: np.ndarray) -> float:
        drawn, hit = label[rows], rank[:, rows] == 0
        return float(np.mean([np.mean(hit[:, drawn == k]) for k in np.unique(drawn)]))

    measured = score(label, rank, n_classes=7, seed=0, resamples=2000)
    recalls, top_five = measured["mean_per_class_recall"].estimate, measured["acc5"].estimate
    assert recalls.value == pytest.approx(recall(np.arange(150)))
    assert [recalls.low, recalls.high] == pytest.approx(interval_by_hand(recall, 150), abs=0.01)
    by_hand = interval_by_hand(lambda rows: float(np.mean(rank[:, rows] < 5)), 150)
    assert [top_five.low, top_five.high] == pytest.approx(by_hand, abs=0.01)


def test_all_hits_leave_no_doubt() -> None:
    estimate = score(np.array([0, 1, 2]), one_seed(0, 0, 0), n_classes=3, seed=0)["acc1"].estimate
    assert (estimate.value, estimate.low, estimate.high) == (1, 1, 1)


def test_the_same_seed_draws_the_same_images() -> None:
    label, rank = np.arange(30) % 6, (np.arange(30) % 4)[None]
    first, same, other, own = (
        score(label, rank, n_classes=6, seed=seed)["acc1"].of_resamples.tolist() for seed in (1, 1, 2, [1, 7])
    )
    assert first == same
    assert first not in (other, own)


@pytest.mark.parametrize(
    ("label", "rank", "named"),
    [
        ([], [[]], "no image"),
        ([0], [[0, 1]], r"\(1, 2\) of 1 images"),
        ([0, 1], [0, 1], r"\(2,\) of 2 images; give one row a seed"),
        ([0, 9], [[0, 0]], "label 9 in row 1"),
        ([0, 1], [[0, 0], [0, 5]], "rank_of_label 5 in row 1"),
    ],
)
def test_unusable_predictions_are_named(label: list[int], rank: list, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        score(np.array(label, dtype=int), np.array(rank, dtype=int), n_classes=5, seed=0)


def test_chance_is_one_guess_in_k() -> None:
    assert chance(10) == {"acc1": 0.1, "acc5": 0.5, "mean_per_class_recall": 0.1}


def test_recall_of_each_class_is_the_mean_over_seeds() -> None:
    images, recall = class_recalls(np.array([2, 0, 0]), np.array([[0, 0, 1], [1, 0, 0]]), n_classes=3)
    assert images.tolist() == [2, 0, 1]
    assert recall.tolist() == pytest.approx([3 / 4, np.nan, 1 / 2], nan_ok=True)


def test_above_chance_guessing_is_0_and_perfection_1() -> None:
    assert [above_chance(value, 0.2) for value in (0.2, 1, 0.6, 0)] == pytest.approx([0, 1, 0.5, -0.25])
    assert above_chance(1, 1) is None


def recall_by_hand(rank_of_caption, rank_of_image, image_of_caption, rows) -> list[float]:
    """Text and image recall at 1 of images drawn one by one, each with its captions."""
    captions = np.concatenate([np.flatnonzero(image_of_caption == image) for image in rows])
    return [float((rank_of_caption[:, rows] < 1).mean()), float((rank_of_image[:, captions] < 1).mean())]


def test_a_worked_example_of_retrieval() -> None:
    # Image 0 has two captions, images 1 and 2 have one. Image 1 finds its caption second, the others find theirs
    # at once; both captions of image 0 find it, those of the others come second.
    found = retrieval_score(one_seed(0, 1, 0), one_seed(0, 0, 1, 1), np.array([0, 0, 1, 2]), seed=0)
    assert {name: one.estimate.value for name, one in found.items()} == {
        "text_recall_at_1": 2 / 3,
        "text_recall_at_5": 1,
        "text_recall_at_10": 1,
        "image_recall_at_1": 2 / 4,
        "image_recall_at_5": 1,
        "image_recall_at_10": 1,
        "mean_recall_at_1": (2 / 3 + 2 / 4) / 2,
    }
    assert set(found) == set(retrieval_chance([2, 1, 1]))


def test_captions_are_resampled_with_their_image() -> None:
    rng = np.random.default_rng(1)
    image_of_caption = np.sort(np.concatenate([np.arange(80), rng.integers(0, 80, size=120)]))
    rank_of_caption = rng.integers(0, 3, size=(2, 80))
    # Captions of one image share their luck.
    rank_of_image = np.minimum(rank_of_caption[:, image_of_caption], rng.integers(0, 4, size=(2, 200)))
    found = retrieval_score(rank_of_caption, rank_of_image, image_of_caption, seed=0, resamples=2000)
    for place, name in enumerate(("text_recall_at_1", "image_recall_at_1")):
        by_hand = interval_by_hand(
            lambda rows, place=place: recall_by_hand(rank_of_caption, rank_of_image, image_of_caption, rows)[place], 80
        )
        estimate = found[name].estimate
        assert [estimate.low, estimate.high] == pytest.approx(by_hand, abs=0.012)
    both = interval_by_hand(
        lambda rows: np.mean(recall_by_hand(rank_of_caption, rank_of_image, image_of_caption, rows)), 80
    )
    estimate = found["mean_recall_at_1"].estimate
    assert [estimate.low, estimate.high] == pytest.approx(both, abs=0.012)


def test_guessing_among_captions_is_hypergeometric() -> None:
    captions = np.array([5, 1, 2, 4, 5])
    for k in (1, 5, 10):
        by_hand = np.mean([1 - hypergeom(captions.sum(), own, k).pmf(0) for own in captions])
        assert retrieval_chance(captions)[f"text_recall_at_{k}"] == pytest.approx(by_hand)
    assert retrieval_chance(captions)["image_recall_at_1"] == 1 / 5
    assert retrieval_chance(captions)["image_recall_at_10"] == 1
    assert retrieval_chance([1, 1])["text_recall_at_5"] == 1


def test_a_model_that_guesses_reaches_chance() -> None:
    rng = np.random.default_rng(0)
    image_of_caption = np.repeat(np.arange(50), np.arange(50) % 3 + 1)
    ahead = rng.random((400, 50, len(image_of_caption))).argsort(axis=-1).argsort(axis=-1)
    own = image_of_caption == np.arange(50)[:, None]
    rank_of_caption = np.where(own, ahead, 10**6).min(axis=-1)
    rank_of_image = rng.integers(0, 50, size=(400, len(image_of_caption)))
    found = retrieval_score(rank_of_caption, rank_of_image, image_of_caption, seed=0, resamples=2)
    level = retrieval_chance(np.bincount(image_of_caption))
    assert {name: one.estimate.value for name, one in found.items()} == pytest.approx(level, abs=0.01)


@pytest.mark.parametrize(
    ("of_caption", "of_image", "image", "named"),
    [
        ([[]], [[]], [], "no image"),
        ([0, 0], [[0, 0]], [0, 1], "one row a seed"),
        ([[0, 0]], [[0, 0, 0]], [0, 1], r"\(1, 3\) of 2 captions"),
        ([[0, 0]], [[0, 0]], [0, 0], "image 1 has no caption"),
        ([[0, 0]], [[0, 0]], [0, 2], "image_of_caption 2 in row 1"),
        ([[0, 2]], [[0, 0]], [0, 1], "rank_of_caption 2 in row 1"),
        ([[0, 0]], [[-1, 0]], [0, 1], "rank_of_image -1 in row 0"),
    ],
)
def test_unusable_retrievals_are_named(of_caption: list, of_image: list, image: list, named: str) -> None:
    ranks = (np.array(one, dtype=int) for one in (of_caption, of_image, image))
    with pytest.raises(ValueError, match=named):
        retrieval_score(*ranks, seed=0)


def test_an_average_over_sets_is_as_sure_as_its_sets_together() -> None:
    # Two sets with standard errors 0.02165 and 0.05: that of their mean is sqrt(0.02165^2 + 0.05^2) / 2.
    measured = [
        score(np.zeros(images, int), np.repeat([0, 9], parts)[None], n_classes=10, seed=[0, images], resamples=5000)
        for images, parts in ((400, [100, 300]), (100, [50, 50]))
    ]
    estimate = average([one["acc1"] for one in measured]).estimate
    assert estimate.value == pytest.approx((0.25 + 0.5) / 2)
    half = 1.96 * np.hypot(0.02165, 0.05) / 2
    assert [estimate.low, estimate.high] == pytest.approx([0.375 - half, 0.375 + half], abs=0.006)


def test_an_average_is_taken_seed_by_seed_before_their_spread() -> None:
    # Each set moves by 0.2 between the seeds, but in opposite directions: their mean does not move.
    draws = np.full(10, 0.5)
    opposite = [Measurement(np.array(values), draws) for values in ([0.4, 0.6], [0.6, 0.4])]
    assert average(opposite).estimate.seed_deviation == pytest.approx(0)
    assert average([opposite[0]] * 2).estimate.seed_deviation == pytest.approx(0.2 / np.sqrt(2))


def test_metrics_of_other_seeds_are_not_averaged() -> None:
    draws = np.full(10, 0.5)
    with pytest.raises(ValueError, match="the same seeds"):
        average([Measurement(np.array([0.4]), draws), Measurement(np.array([0.4, 0.6]), draws)])
    with pytest.raises(ValueError, match="at least one"):
        average([])


def hits(only: int, only_other: int, both: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Two models: how many images only the first gets right, only the second, both, neither."""
    counts = (only, only_other, both, neither)
    return np.repeat([[True, False, True, False]], counts, axis=1), np.repeat(
        [[False, True, True, False]], counts, axis=1
    )


def test_a_paired_difference_counts_only_the_images_on_which_two_models_differ() -> None:
    # Of 10 images on which they differ the first is right on 9: 2 (1 + 10) / 2^10 by hand.
    found = paired_difference(*hits(9, 1, 50, 40), seed=0)
    assert found.value == pytest.approx(0.08)
    assert found.p_value == pytest.approx(22 / 1024)
    assert 0 < found.low < 0.08 < found.high
    assert paired_difference(*hits(9, 1, 0, 90), seed=0) == found


@pytest.mark.parametrize(("only", "only_other"), [(1, 0), (5, 5), (7, 2), (40, 60), (5000, 5300)])
def test_with_one_seed_each_the_p_value_is_mcnemars(only: int, only_other: int) -> None:
    found = paired_difference(*hits(only, only_other, 3, 3), seed=0)
    assert found.p_value == pytest.approx(binomtest(only, only + only_other).pvalue, rel=1e-6)


def test_the_clearest_differences_are_not_told_apart() -> None:
    assert paired_difference(*hits(500, 0, 0, 0), seed=0).p_value == 1e-10


@pytest.mark.parametrize(("seeds", "other_seeds"), [(2, 2), (3, 2), (1, 3)])
def test_with_several_seeds_every_way_to_flip_the_signs_is_counted(seeds: int, other_seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    hit, other_hit = rng.random((seeds, 10)) < 0.8, rng.random((other_seeds, 10)) < 0.4
    difference = hit.mean(axis=0) - other_hit.mean(axis=0)
    flipped = np.array(list(product([-1, 1], repeat=10))) @ difference
    found = paired_difference(hit, other_hit, seed=0)
    assert found.value == pytest.approx(difference.mean())
    assert found.p_value == pytest.approx(np.mean(np.abs(flipped) >= abs(difference.sum()) - 1e-9))


def test_the_p_value_is_that_of_scipys_permutation_test() -> None:
    rng = np.random.default_rng(3)
    hit, other_hit = rng.random((3, 12)) < 0.7, rng.random((3, 12)) < 0.3
    with_scipy = permutation_test(
        (hit.sum(axis=0), other_hit.sum(axis=0)),
        lambda ours, theirs: int(ours.sum() - theirs.sum()),
        permutation_type="samples",
        n_resamples=np.inf,
    )
    assert paired_difference(hit, other_hit, seed=0).p_value == pytest.approx(with_scipy.pvalue)


def test_a_paired_interval_is_narrower_than_two_separate_ones() -> None:
    hit, other_hit = hits(12, 4, 100, 84)
    paired = paired_difference(hit, other_hit, seed=0, resamples=5000)
    # The standard error of (b - c) / n is sqrt(b + c - (b - c)^2 / n) / n.
    assert paired.high - paired.low == pytest.approx(2 * 1.96 * np.sqrt(16 - 64 / 200) / 200, rel=0.1)
    separate = [score(np.zeros(200, int), 9 * ~one, n_classes=10, seed=0)["acc1"].estimate for one in (hit, other_hit)]
    assert paired.high - paired.low < sum(one.high - one.low for one in separate) / 2


def test_the_paired_interval_of_several_seeds_agrees_with_resampling_images() -> None:
    rng = np.random.default_rng(0)
    hit, other_hit = rng.random((3, 100)) < 0.5, rng.random((2, 100)) < 0.3
    difference = hit.mean(axis=0) - other_hit.mean(axis=0)
    found = paired_difference(hit, other_hit, seed=0, resamples=2000)
    by_hand = interval_by_hand(lambda rows: float(difference[rows].mean()), 100)
    assert [found.low, found.high] == pytest.approx(by_hand, abs=0.01)


def test_two_models_that_agree_on_every_image_do_not_differ() -> None:
    found = paired_difference(*hits(0, 0, 3, 4), seed=0)
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize(("shape", "other"), [((1, 0), (1, 0)), ((1, 3), (1, 4)), ((0, 3), (1, 3)), ((3,), (3,))])
def test_models_that_saw_different_images_are_not_compared(shape: tuple, other: tuple) -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        paired_difference(np.zeros(shape, bool), np.zeros(other, bool), seed=0)


def test_holms_p_values_by_hand() -> None:
    assert adjusted_p_values([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert adjusted_p_values([0.6, 0.9]).tolist() == [1, 1]
    assert adjusted_p_values([]).tolist() == []


def test_among_models_that_do_not_differ_hardly_ever_one_is_called_real() -> None:
    random = np.random.default_rng(0)
    worlds = random.random((200, 2, 10, 1, 400)) < 0.3
    called = [
        adjusted_p_values([paired_difference(*pair, seed=0, resamples=1).p_value for pair in zip(*world, strict=True)])
        for world in worlds
    ]
    assert np.mean([p_values.min() < 0.05 for p_values in called]) <= 0.06


def test_methods_that_do_not_differ_over_three_seeds_have_a_small_p_value_as_rarely_as_it_says() -> None:
    random = np.random.default_rng(0)
    pairs = random.random((4000, 2, 3, 200)) < 0.3
    p_values = np.array([paired_difference(*pair, seed=0, resamples=1).p_value for pair in pairs])
    for level in (0.01, 0.05, 0.5):
        # Three standard errors of a share among 4,000, and never far below: the test would be blind.
        assert 0.6 * level < np.mean(p_values <= level) < level + 3 * np.sqrt(level * (1 - level) / 4000)
