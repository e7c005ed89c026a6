import numpy as np
import pytest

from clipcov_assets.core.metrics import chance, score


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
