import numpy as np
import pytest
from numpy.typing import ArrayLike

from clipcov_assets.core.churn import Churn, churn


def compare(before: dict, now: dict, withdrawn: ArrayLike = ()) -> Churn:
    """Compare subsets that map pairs to latent classes."""
    pairs = [np.array(list(one), dtype=str) for one in (before, now)]
    classes = [np.array(list(one.values()), dtype=int) for one in (before, now)]
    in_pool = ~np.isin(pairs[0], np.array(list(withdrawn), dtype=str))
    return churn(*pairs, class_before=classes[0], class_now=classes[1], in_pool=in_pool)


def by_class(found: Churn, counts: np.ndarray) -> dict[int, int]:
    return dict(zip(found.latent_class.tolist(), counts.tolist(), strict=True))


BEFORE = {"a": 4, "b": 4, "c": 2, "d": 7}
NOW = {"e": 4, "a": 4, "c": 2, "f": 9, "g": 9}


def test_every_pair_is_kept_added_or_dropped_and_counts_for_its_class() -> None:
    found = compare(BEFORE, NOW)
    assert by_class(found, found.kept) == {2: 1, 4: 1, 7: 0, 9: 0}
    assert by_class(found, found.added) == {2: 0, 4: 1, 7: 0, 9: 2}
    assert by_class(found, found.dropped) == {2: 0, 4: 1, 7: 1, 9: 0}
    assert by_class(found, found.before) == {2: 1, 4: 2, 7: 1, 9: 0}
    assert by_class(found, found.now) == {2: 1, 4: 2, 7: 0, 9: 2}


def test_a_pair_is_dropped_because_the_pool_lost_it_or_because_it_fell_below_the_cut() -> None:
    found = compare(BEFORE, NOW, withdrawn=["d"])
    assert by_class(found, found.withdrawn) == {2: 0, 4: 0, 7: 1, 9: 0}
    assert by_class(found, found.below_the_cut) == {2: 0, 4: 1, 7: 0, 9: 0}


def test_two_of_four_pairs_are_kept_and_two_of_seven_are_common() -> None:
    found = compare(BEFORE, NOW)
    assert found.kept_share == pytest.approx(2 / 4)
    assert found.jaccard == pytest.approx(2 / 7)


def test_a_larger_subset_that_holds_the_earlier_one_keeps_all_of_it() -> None:
    found = compare({"a": 0}, {"a": 0, "b": 0})
    assert (found.kept_share, found.jaccard) == (1, 0.5)


@pytest.mark.parametrize(
    ("before", "now", "shares"), [({}, {}, (1, 1)), ({}, {"a": 0}, (1, 0)), ({"a": 0}, {}, (0, 0))]
)
def test_subsets_without_pairs(before: dict, now: dict, shares: tuple[float, float]) -> None:
    found = compare(before, now)
    assert (found.kept_share, found.jaccard) == shares
    assert found.added.sum() == len(now)


def test_a_pair_that_is_classified_anew_counts_for_its_class_of_now() -> None:
    found = compare({"a": 1}, {"a": 2})
    assert by_class(found, found.kept) == {2: 1}


def test_the_classes_with_most_change_come_first_and_those_without_any_not_at_all() -> None:
    found = compare(BEFORE, NOW)
    assert [int(found.latent_class[row]) for row in found.most_changed(9)] == [4, 9, 7]
    assert len(found.most_changed(2)) == 2


def test_numbers_may_stand_for_pairs() -> None:
    classes = np.zeros(3, int)
    found = churn(
        np.array([5, 1, 9]), np.array([9, 5, 0]), class_before=classes, class_now=classes, in_pool=classes == 0
    )
    assert (found.kept.tolist(), found.added.tolist(), found.dropped.tolist()) == ([2], [1], [1])
