from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clipcov_assets.core import METHODS, Pool, double_greedy, objective
from clipcov_assets.core.objective import TERMS


def by_definition(pool: Pool, order: np.ndarray, value: Callable[..., float], **own: Any) -> list[int]:
    """Algorithm 1, lines 11-20, with every value of F from its definition."""
    small, large = [], list(order)
    for row in order:
        without = [other for other in large if other != row]
        a = value(pool, [*small, row], **own) - value(pool, small, **own)
        b = value(pool, without, **own) - value(pool, large, **own)
        if a >= b:
            small.append(row)
        else:
            large = without
    return small


@pytest.mark.parametrize("inter", ["mean", "sum"])
@pytest.mark.parametrize("terms", [TERMS, ("class",), ("class", "inter"), ("self", "label")], ids="+".join)
def test_double_greedy_follows_the_algorithm(terms: tuple[str, ...], inter: str, pools: SimpleNamespace) -> None:
    removed_in_all = 0
    for seed in range(3):
        pool = pools.random(seed, [5, 4, 1], signed=True)
        own = {"inter": inter, "terms": terms}
        order = METHODS["clipcov"](pool, 8, **own).order
        kept, removed = double_greedy(pool, order, **own)
        assert kept.tolist() == by_definition(pool, order, pools.objective, **own)
        assert removed == len(order) - len(kept)
        removed_in_all += removed
    assert removed_in_all or terms == ("self", "label")


def test_nothing_is_removed_where_every_gain_is_positive(pools: SimpleNamespace) -> None:
    pool = pools.random(0, [20, 10])
    order = METHODS["clipcov"](pool, 15).order
    kept, removed = double_greedy(pool, order)
    assert removed == 0
    np.testing.assert_array_equal(kept, order)


def test_removing_never_lowers_the_objective(pools: SimpleNamespace) -> None:
    pool = pools.random(1, [40, 30], signed=True)
    order = METHODS["clipcov"](pool, 60).order
    kept, removed = double_greedy(pool, order)
    assert removed > 0
    assert objective(pool, kept) >= objective(pool, order)


def test_an_empty_subset_stays_empty(pools: SimpleNamespace) -> None:
    kept, removed = double_greedy(pools.random(0), [])
    assert (kept.tolist(), removed) == ([], 0)


def test_rows_must_be_distinct_rows_of_the_pool(pools: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="repeats"):
        double_greedy(pools.random(0), [1, 1])
