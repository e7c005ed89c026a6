import numpy as np
import pytest

from clipcov_assets.core.metrics import adjusted_p_values, chance, paired_difference, score


def test_a_worked_example() -> None:
    # Class 0: two images, both hit. Class 1: four images, one hit, two in the top five, one later.
    label = np.array([0, 0, 1, 1, 1, 1])
    rank = np.array([0, 0, 0, 1, 4, 5])
    values = {name: one.value for name, one in score(label, rank, n_classes=6, seed=0).items()}
    assert values == {"acc1": 3 / 6, "acc5": 5 / 6, "mean_per_class_recall": (2 / 2 + 1 / 4) / 2}


def test_below_five_classes_there_is_no_acc5() -> None:
    label, rank = np.array([0, 1, 2, 3]), np.array([0, 1, 2, 3])
    assert set(score(label, rank, n_classes=4, seed=0)) == set(chance(4)) == {"acc1", "mean_per_class_recall"}
    assert score(label, rank, n_classes=5, seed=0)["acc5"].value == 1


def test_the_interval_of_a_share_is_the_binomial_one() -> None:
    # 100 of 400 hits: the standard error is sqrt(0.25 * 0.75 / 400) = 0.02165.
    rank = np.repeat([0, 9], [100, 300])
    estimate = score(np.zeros(400, dtype=int), rank, n_classes=10, seed=0, resamples=5000)["acc1"]
    assert estimate.low == pytest.approx(0.25 - 1.96 * 0.02165, abs=0.005)
    assert estimate.high == pytest.approx(0.25 + 1.96 * 0.02165, abs=0.005)


def test_intervals_agree_with_resampling_the_images_one_by_one() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 7, size=150)
    rank = np.minimum(rng.integers(0, 7, size=150), label)

    def recall(rows: np.ndarray) -> float:
        return float(np.mean([np.mean(rank[rows][label[rows] == k] == 0) for k in np.unique(label[rows])]))

    drawn = [recall(rng.integers(0, 150, size=150)) for _ in range(2000)]
    estimate = score(label, rank, n_classes=7, seed=0, resamples=2000)["mean_per_class_recall"]
    assert estimate.value == pytest.approx(recall(np.arange(150)))
    assert [estimate.low, estimate.high] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.01)


def test_all_hits_leave_no_doubt() -> None:
    estimate = score(np.array([0, 1, 2]), np.array([0, 0, 0]), n_classes=3, seed=0)["acc1"]
    assert (estimate.value, estimate.low, estimate.high) == (1, 1, 1)


def test_the_same_seed_gives_the_same_interval() -> None:
    label, rank = np.arange(30) % 6, np.arange(30) % 4
    assert score(label, rank, n_classes=6, seed=1) == score(label, rank, n_classes=6, seed=1)
    assert score(label, rank, n_classes=6, seed=1) != score(label, rank, n_classes=6, seed=2)


@pytest.mark.parametrize(
    ("label", "rank", "named"),
    [([], [], "no image"), ([0], [0, 1], "1 labels but 2 ranks"), ([0, 9], [0, 0], "label 9 in row 1")],
)
def test_unusable_predictions_are_named(label: list[int], rank: list[int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        score(np.array(label, dtype=int), np.array(rank, dtype=int), n_classes=5, seed=0)


def test_chance_is_one_guess_in_k() -> None:
    assert chance(10) == {"acc1": 0.1, "acc5": 0.5, "mean_per_class_recall": 0.1}


def hits(only: int, only_other: int, both: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Two models: how many images only the first gets right, only the second, both, neither."""
    counts = (only, only_other, both, neither)
    return np.repeat([True, False, True, False], counts), np.repeat([False, True, True, False], counts)


def test_a_paired_difference_counts_only_the_images_on_which_two_models_differ() -> None:
    # Of 10 images on which they differ the first is right on 9: 2 (1 + 10) / 2^10 by hand.
    found = paired_difference(*hits(9, 1, 50, 40), seed=0)
    assert found.value == pytest.approx(0.08)
    assert found.p_value == pytest.approx(22 / 1024)
    assert 0 < found.low < 0.08 < found.high
    assert paired_difference(*hits(9, 1, 0, 90), seed=0) == found


def test_a_paired_interval_is_narrower_than_two_separate_ones() -> None:
    hit, other_hit = hits(12, 4, 100, 84)
    paired = paired_difference(hit, other_hit, seed=0, resamples=5000)
    # The standard error of (b - c) / n is sqrt(b + c - (b - c)^2 / n) / n.
    assert paired.high - paired.low == pytest.approx(2 * 1.96 * np.sqrt(16 - 64 / 200) / 200, rel=0.1)
    separate = [score(np.zeros(200, int), 9 * ~one, n_classes=10, seed=0)["acc1"] for one in (hit, other_hit)]
    assert paired.high - paired.low < sum(one.high - one.low for one in separate) / 2


def test_two_models_that_agree_on_every_image_do_not_differ() -> None:
    found = paired_difference(*hits(0, 0, 3, 4), seed=0)
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize(("n", "other"), [(0, 0), (3, 4)])
def test_models_that_saw_different_images_are_not_compared(n: int, other: int) -> None:
    with pytest.raises(ValueError, match=f"{n} and {other} images"):
        paired_difference(np.zeros(n, bool), np.zeros(other, bool), seed=0)


def test_holms_p_values_by_hand() -> None:
    assert adjusted_p_values([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert adjusted_p_values([0.6, 0.9]).tolist() == [1, 1]
    assert adjusted_p_values([]).tolist() == []


def test_among_models_that_do_not_differ_hardly_ever_one_is_called_real() -> None:
    random = np.random.default_rng(0)
    worlds = random.random((200, 2, 10, 400)) < 0.3
    called = [
        adjusted_p_values([paired_difference(*pair, seed=0, resamples=1).p_value for pair in zip(*world, strict=True)])
        for world in worlds
    ]
    assert np.mean([p_values.min() < 0.05 for p_values in called]) <= 0.06
