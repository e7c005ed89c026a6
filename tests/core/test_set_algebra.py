import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcov_assets.core import METHODS, Pool, difference, intersection, union
from clipcov_assets.core.set_algebra import Combination

uids = st.text("abcdefgh", min_size=1, max_size=2)
numbers = st.integers(0, 12)
pairs_of_orders = st.one_of(
    *(st.tuples(*[st.lists(one, unique=True, max_size=12)] * 2) for one in (uids, numbers)),
)


def test_the_three_operations_by_hand() -> None:
    first, second = ["d", "a", "c", "b"], ["b", "e", "d"]
    assert intersection(first, second).tolist() == ["d", "b"]
    assert difference(first, second).tolist() == ["a", "c"]
    assert union(first, second).tolist() == ["d", "b", "a", "e", "c"]


@given(pairs_of_orders)
def test_as_sets_they_are_pythons(orders: tuple[list, list]) -> None:
    first, second = orders
    assert set(intersection(first, second).tolist()) == set(first) & set(second)
    assert set(difference(first, second).tolist()) == set(first) - set(second)
    assert set(union(first, second).tolist()) == set(first) | set(second)


@given(pairs_of_orders)
def test_intersection_and_difference_divide_the_first_order_and_keep_it(orders: tuple[list, list]) -> None:
    first, second = orders
    assert intersection(first, second).tolist() == [uid for uid in first if uid in second]
    assert difference(first, second).tolist() == [uid for uid in first if uid not in second]


@given(pairs_of_orders)
def test_a_union_holds_each_pair_once_by_its_smaller_rank_and_the_first_before_the_second(
    orders: tuple[list, list],
) -> None:
    ranks = {}
    for side, order in enumerate(orders):
        for rank, uid in enumerate(order):
            ranks[uid] = min(ranks.get(uid, (rank, side)), (rank, side))
    assert union(*orders).tolist() == sorted(ranks, key=ranks.__getitem__)


@given(pairs_of_orders, st.integers(0, 12))
def test_a_head_of_the_first_order_gives_a_head_of_intersection_and_difference(
    orders: tuple[list, list], k: int
) -> None:
    first, second = orders
    for operation in (intersection, difference):
        part, whole = operation(first[:k], second).tolist(), operation(first, second).tolist()
        assert part == whole[: len(part)]


@given(pairs_of_orders, st.integers(0, 12))
def test_heads_of_both_give_a_head_of_the_union_and_some_of_the_intersection(orders: tuple[list, list], k: int) -> None:
    first, second = orders
    part, whole = union(first[:k], second[:k]).tolist(), union(first, second).tolist()
    assert part == whole[: len(part)]
    assert set(intersection(first[:k], second[:k]).tolist()) <= set(intersection(first, second).tolist())


def test_heads_of_both_need_not_give_a_head_of_intersection_or_difference() -> None:
    first, second = ["a", "b", "c"], ["b", "c", "a"]
    assert intersection(first[:2], second[:2]).tolist() == ["b"]
    assert intersection(first, second).tolist() == ["a", "b", "c"]
    assert difference(first[:2], second[:2]).tolist() == ["a"]
    assert difference(first, second).tolist() == []


def test_the_orders_of_two_rankings_combine_by_row_or_by_uid() -> None:
    pool = Pool(uid=["c", "a", "b", "d"], clip_score=[0.1, 0.9, 0.5, 0.7])
    first, second = METHODS["clip_score"](pool, 3).order, METHODS["full"](pool, 3).order
    assert pool.uid[intersection(first, second)].tolist() == ["a", "b"]
    assert union(pool.uid[first], np.array(pool.uid[second], object)).tolist() == ["a", "d", "b", "c"]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (["a", "b", "a"], ["b"], "the first order holds pair a twice: give every pair once"),
        (["a"], ["b", "b"], "the second order holds pair b twice"),
        ([["a", "b"]], ["b"], r"the first order has shape \(1, 2\): give one row of uids"),
        ([0, 1], ["a"], "one order is of whole numbers, the other is not: give uids in both, or rows of one pool"),
    ],
)
def test_what_is_no_order_of_pairs_is_refused(first: list, second: list, words: str) -> None:
    for operation in (intersection, union, difference):
        with pytest.raises(ValueError, match=words):
            operation(first, second)


@pytest.mark.parametrize(
    ("operator", "name", "summary", "order"),
    [
        ("&", "random_and_full", "Pairs that both random and full pick, in the order of random.", [2]),
        ("|", "random_or_full", "Pairs that random or full picks, the two taking turns by rank.", [1, 3, 2]),
        ("-", "random_without_full", "Pairs that random picks and full does not, in the order of random.", [1]),
    ],
)
def test_a_combination_has_a_name_a_sentence_and_an_order(
    operator: str, name: str, summary: str, order: list[int]
) -> None:
    combination = Combination("random", operator, "full")
    assert (combination.name, combination.summary) == (name, summary)
    assert combination([1, 2], [3, 2]).tolist() == order
