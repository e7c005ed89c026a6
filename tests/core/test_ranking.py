import numpy as np
import pytest

from clipcov_assets.core.ranking import check_budget, ranking_from_scores


def test_the_largest_score_comes_first_and_ties_go_to_the_smaller_uid() -> None:
    ranking = ranking_from_scores(np.array(["d", "c", "b", "a"]), np.array([1.0, 5.0, 1.0, 0.0]), 3)
    assert ranking.order.tolist() == [1, 2, 0]
    assert ranking.gains.tolist() == [5.0, 1.0, 1.0]
    assert (ranking.order.dtype, ranking.gains.dtype) == (np.int64, np.float32)


def test_scores_that_float32_cannot_tell_apart_keep_their_order() -> None:
    scores = np.array([1.0, 1.0 + 1e-12])
    assert ranking_from_scores(np.array([1, 2]), scores, 2).order.tolist() == [1, 0]


def test_reasons_follow_the_picks() -> None:
    reasons = {"entry": np.array(["x", "y", "z"]), "partner": np.array([-1, 0, 1])}
    ranking = ranking_from_scores(np.array([1, 2, 3]), np.array([1.0, 3.0, 2.0]), 2, reasons=reasons)
    assert {name: reason.tolist() for name, reason in ranking.reasons.items()} == {
        "entry": ["y", "z"],
        "partner": [0, 1],
    }


def test_a_ranking_without_reasons_has_none() -> None:
    assert dict(ranking_from_scores(np.array([1]), np.array([1.0]), 1).reasons) == {}


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        ranking_from_scores(np.array([1, 2]), np.array([1.0, np.nan]), 1)


@pytest.mark.parametrize("budget", [0, -1, 4, 1.5, True, None, "2"])
def test_a_budget_is_a_whole_number_of_pairs(budget: object) -> None:
    with pytest.raises(ValueError, match=r"budget is .* from 1 to the pool's 3 pairs"):
        check_budget(budget, 3)


def test_a_budget_may_be_any_integer_type() -> None:
    check_budget(np.int64(3), 3)
