from types import SimpleNamespace

import numpy as np
import pytest

from clipcov_assets.core import METHODS, Pool
from clipcov_assets.core.draws import hashes, joint_uniform
from clipcov_assets.core.selection.metaclip import implied_t, match_entries


def matches(caption: str, *entries: str) -> list[str]:
    _, places = match_entries([caption], entries)
    return sorted(entries[place] for place in places)


@pytest.mark.parametrize("caption", ["dog", "a dog.", "dog,cat", "the dog\nsleeps", "dog; dog dog", "?dog?"])
def test_a_word_is_found_between_spaces_and_marks(caption: str) -> None:
    assert matches(caption, "dog") == ["dog"]


@pytest.mark.parametrize("caption", ["(dog)", '"dog"', "dog's", "dog/cat", "dog-cat", "Dog", "dogs", "hotdog", ""])
def test_a_word_is_not_found_in_another_word_or_case(caption: str) -> None:
    assert matches(caption, "dog") == []


def test_entries_of_several_words_need_single_spaces() -> None:
    assert matches("in New York,NY", "New York") == ["New York"]
    assert matches("in New  York", "New York") == []


def test_entries_with_a_mark_that_is_spaced_are_never_found() -> None:
    assert matches("St. Louis shouts Yahoo!", "St. Louis", "Yahoo!", "Louis") == ["Louis"]


def test_overlapping_entries_are_all_found_once() -> None:
    found = matches("a big red dog and a big red dog", "big red", "red dog", "dog", "big red dog", "cat")
    assert found == ["big red", "big red dog", "dog", "red dog"]


def test_matches_name_their_captions() -> None:
    rows, places = match_entries(["cat", "none", "cat dog"], ["dog", "cat"])
    assert sorted(zip(rows.tolist(), places.tolist(), strict=True)) == [(0, 1), (2, 0), (2, 1)]


def draw(seed: int, uid: str, entry: str) -> float:
    return float(joint_uniform(seed, hashes(np.array([uid])), hashes(np.array([entry])))[0])


def test_a_caption_is_ranked_by_its_smallest_draw_times_count_by_hand() -> None:
    pool = Pool(uid=["a", "b", "c", "d"], captions=["a dog", "a dog and a cat", "dog", "nothing"])
    ranking = METHODS["metaclip"](pool, 4, seed=7, entries=["dog", "cat"])
    keys = {
        0: 3 * draw(7, "a", "dog"),
        1: min(3 * draw(7, "b", "dog"), 1 * draw(7, "b", "cat")),
        2: 3 * draw(7, "c", "dog"),
        3: 4 + 1,
    }
    assert ranking.order.tolist() == sorted(keys, key=keys.__getitem__)
    np.testing.assert_allclose(ranking.gains, sorted(-key for key in keys.values())[::-1], rtol=1e-6)


def test_captions_without_a_match_come_last_by_uid() -> None:
    pool = Pool(uid=["d", "c", "b", "a"], captions=["", "cat", "x", "y"])
    ranking = METHODS["metaclip"](pool, 4, entries=["cat"])
    assert ranking.order.tolist() == [1, 3, 2, 0]
    assert ranking.gains[1:].tolist() == [-5, -5, -5]


def test_each_prefix_is_the_subset_of_its_threshold(pools: SimpleNamespace) -> None:
    pool = pools.random(0, [300])
    entries = ["red", "dog", "New York", "old house", "blue", "tree sleeps"]
    ranking = METHODS["metaclip"](pool, 300, seed=3, entries=entries)
    rows, places = match_entries(pool.captions, entries)
    counts = np.bincount(places, minlength=len(entries))
    draws = np.array([draw(3, pool.uid[row], entries[place]) for row, place in zip(rows, places, strict=True)])
    for budget in (20, 100, 150):
        t = (implied_t(ranking.gains[budget - 1]) + implied_t(ranking.gains[budget])) / 2
        kept = set(rows[draws < t / np.maximum(counts[places], t)])
        assert kept == set(ranking.order[:budget].tolist())


def test_rare_entries_are_kept_before_frequent_ones() -> None:
    captions = ["common"] * 990 + ["rare"] * 10
    pool = Pool(uid=np.arange(1000), captions=captions)
    ranking = METHODS["metaclip"](pool, 40, entries=["common", "rare"])
    assert set(range(990, 1000)) <= set(ranking.order.tolist())


def test_the_order_of_the_entries_and_repeated_ones_do_not_matter(pools: SimpleNamespace) -> None:
    pool = pools.random(1, [60])
    first = METHODS["metaclip"](pool, 60, entries=["red", "dog", "cat"])
    second = METHODS["metaclip"](pool, 60, entries=["cat", "dog", "", "cat", "red", " "])
    np.testing.assert_array_equal(first.order, second.order)


def test_the_default_entries_hold_wordnet_and_the_captions_own_words() -> None:
    pool = Pool(uid=np.arange(7), captions=["a giraffe", *["qwxz"] * 5, "rarewordonce"])
    gains = METHODS["metaclip"](pool, 7).gains
    assert (gains > -8).sum() == 6


@pytest.mark.parametrize("entries", [[], ["", " "]])
def test_entries_must_not_be_empty(entries: list[str]) -> None:
    with pytest.raises(ValueError, match="entries is empty"):
        METHODS["metaclip"](Pool(uid=[1], captions=["a"]), 1, entries=entries)
