from types import SimpleNamespace

import numpy as np
import pytest

from clipcov_assets.core import METHODS, Pool

RANKERS = {name: (name, {}) for name in METHODS} | {
    "clipcov-released": ("clipcov", {"variant": "released"}),
    "clipcov-sum": ("clipcov", {"inter": "sum"}),
    "clipcov-auto": ("clipcov", {"alpha": "auto"}),
    "clipcov-signed": ("clipcov", {"signed": True}),
    "clipcov-equal": ("clipcov", {"equal": True}),
    "semdedup-equal": ("semdedup", {"equal": True}),
    "clip_score-equal": ("clip_score", {"equal": True}),
}


@pytest.fixture(params=RANKERS, scope="module")
def ranker(request: pytest.FixtureRequest, pools: SimpleNamespace) -> SimpleNamespace:
    """A ranking function of a pool and a budget, and a pool of 60 pairs."""
    name, own = RANKERS[request.param]
    own = dict(own)
    pool = pools.random(11, [25, 20, 0, 14, 1], signed=own.pop("signed", False))
    pool = pools.with_equal_rows(pool, 0) if own.pop("equal", False) else pool
    return SimpleNamespace(pool=pool, rank=lambda pool, budget: METHODS[name](pool, budget, seed=5, **own))


def test_a_ranking_holds_as_many_distinct_rows_as_its_budget(ranker: SimpleNamespace) -> None:
    for budget in (1, 17, 60):
        ranking = ranker.rank(ranker.pool, budget)
        assert ranking.order.shape == ranking.gains.shape == (budget,)
        assert (ranking.order.dtype, ranking.gains.dtype) == (np.int64, np.float32)
        assert len(set(ranking.order.tolist())) == budget
        assert set(ranking.order.tolist()) <= set(range(60))
        assert np.isfinite(ranking.gains).all()


def test_a_ranking_of_a_smaller_budget_is_a_prefix(ranker: SimpleNamespace) -> None:
    whole = ranker.rank(ranker.pool, 60)
    for budget in (1, 2, 30, 59):
        part = ranker.rank(ranker.pool, budget)
        np.testing.assert_array_equal(part.order, whole.order[:budget])
        np.testing.assert_array_equal(part.gains, whole.gains[:budget])


def test_shuffling_the_rows_changes_nothing(ranker: SimpleNamespace, pools: SimpleNamespace) -> None:
    whole = ranker.rank(ranker.pool, 60)
    for seed in range(3):
        shuffled = pools.rows_of(ranker.pool, np.random.default_rng(seed).permutation(60))
        ranking = ranker.rank(shuffled, 60)
        np.testing.assert_array_equal(shuffled.uid[ranking.order], ranker.pool.uid[whole.order])
        np.testing.assert_array_equal(ranking.gains, whole.gains)


def test_ranking_twice_gives_the_same(ranker: SimpleNamespace) -> None:
    first, second = (ranker.rank(ranker.pool, 60) for _ in range(2))
    np.testing.assert_array_equal(first.order, second.order)
    np.testing.assert_array_equal(first.gains, second.gains)


@pytest.mark.parametrize("name", METHODS)
def test_a_budget_out_of_range_is_refused(name: str, pools: SimpleNamespace) -> None:
    pool = pools.random(0)
    for budget in (0, len(pool) + 1):
        with pytest.raises(ValueError, match=f"budget is {budget}: .* the pool's 13 pairs"):
            METHODS[name](pool, budget)


@pytest.mark.parametrize("name", METHODS)
def test_a_pool_of_one_pair_has_one_ranking(name: str, pools: SimpleNamespace) -> None:
    assert METHODS[name](pools.random(0, [1]), 1).order.tolist() == [0]


@pytest.mark.parametrize("name", METHODS)
def test_integer_uids_rank_like_the_strings_that_sort_as_they_do(name: str, pools: SimpleNamespace) -> None:
    pool = pools.random(0)
    numbered = pools.rows_of(pool, np.arange(len(pool)), uid=pool.uid_rank)
    if name not in ("random", "metaclip"):  # these draw by the uid itself
        np.testing.assert_array_equal(METHODS[name](numbered, 13).order, METHODS[name](pool, 13).order)


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"random", "full"}))
def test_a_missing_column_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} reads the column .*, which this pool lacks"):
        METHODS[name](Pool(uid=["a"]), 1)


def test_an_unknown_method_is_named_and_the_known_ones_listed() -> None:
    with pytest.raises(ValueError, match="unknown selection method 'clip_cov': choose one of clipcov, clip_score"):
        METHODS["clip_cov"]
