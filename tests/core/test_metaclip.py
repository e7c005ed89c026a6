from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from clipcov_assets.core import METHODS, Pool, metadata_entries
from clipcov_assets.core.draws import hashes, joint_uniform
from clipcov_assets.core.selection.metaclip import count_entries, implied_t, match_entries


def all_matches(captions: Sequence[str], entries: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    rows, places = zip(*match_entries(captions, entries), strict=True)
    return np.concatenate(rows), np.concatenate(places)


def matches(caption: str, *entries: str) -> list[str]:
    _, places = all_matches([caption], entries)
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


def test_matches_name_their_captions_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata_entries, "CAPTIONS_AT_ONCE", 2)
    rows, places = all_matches(["cat", "none", "cat dog dog", "", "dog"], ["dog", "cat"])
    assert list(zip(rows.tolist(), places.tolist(), strict=True)) == [(0, 1), (2, 0), (2, 1), (4, 0)]


@pytest.mark.parametrize("entry", ["dog cat", "dog  cat", "dog \n cat", "dog\ncat", "dog ", " cat", "\n"])
def test_no_entry_is_found_across_two_captions(entry: str) -> None:
    rows, _ = all_matches(["a dog", "cat on a mat"], [entry, "mat"])
    assert rows.tolist() == [1]


def test_a_caption_matches_the_same_wherever_it_stands(pools: SimpleNamespace) -> None:
    captions, entries = pools.random(0, [200]).captions, ["red", "old house", "New York", "dog", "on the"]
    rows, places = all_matches(captions, entries)
    for row in range(200):
        assert sorted(entries[place] for place in places[rows == row]) == sorted(
            entry for entry in entries if f" {entry} " in f" {metadata_entries.spaced(captions[row])} "
        )


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
    let_in = {0: "dog", 1: "cat" if draw(7, "b", "cat") < 3 * draw(7, "b", "dog") else "dog", 2: "dog", 3: ""}
    assert ranking.reasons["entry"].tolist() == [let_in[row] for row in ranking.order.tolist()]


def test_captions_without_a_match_come_last_by_uid() -> None:
    pool = Pool(uid=["d", "c", "b", "a"], captions=["", "cat", "x", "y"])
    ranking = METHODS["metaclip"](pool, 4, entries=["cat"])
    assert ranking.order.tolist() == [1, 3, 2, 0]
    assert ranking.gains[1:].tolist() == [-5, -5, -5]
    assert ranking.reasons["entry"].tolist() == ["cat", "", "", ""]


def test_each_prefix_is_the_subset_of_its_threshold(pools: SimpleNamespace) -> None:
    pool = pools.random(0, [300])
    entries = ["red", "dog", "New York", "old house", "blue", "tree sleeps"]
    ranking = METHODS["metaclip"](pool, 300, seed=3, entries=entries)
    rows, places = all_matches(pool.captions, entries)
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
    np.testing.assert_array_equal(first.reasons["entry"], second.reasons["entry"])


def test_the_entry_that_let_a_caption_in_has_the_smallest_product(pools: SimpleNamespace) -> None:
    pool, entries = pools.random(2, [150]), ["red", "dog", "New York", "old house", "blue", "a"]
    ranking = METHODS["metaclip"](pool, 150, seed=4, entries=entries)
    counts = count_entries(pool.captions, entries)
    for row, gain, entry in zip(ranking.order, ranking.gains, ranking.reasons["entry"], strict=True):
        products = {held: draw(4, pool.uid[row], held) * counts[held] for held in matches(pool.captions[row], *entries)}
        assert entry == min(products, key=products.__getitem__, default="")
        assert gain == pytest.approx(-products.get(entry, 151), rel=1e-6)


def test_of_equal_products_the_entry_that_sorts_first_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipcov_assets.core.selection.metaclip.joint_uniform", lambda *_: np.full(4, 0.5))
    pool = Pool(uid=[1, 2], captions=["dog and cat", "cat and dog"])
    ranking = METHODS["metaclip"](pool, 2, entries=["dog", "cat"])
    assert ranking.reasons["entry"].tolist() == ["cat", "cat"]


@pytest.mark.parametrize("at_once", [1, 7, 10_000])
def test_the_captions_at_a_time_change_nothing(
    at_once: int, pools: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pools.random(3, [100])
    whole = METHODS["metaclip"](pool, 100)
    monkeypatch.setattr(metadata_entries, "CAPTIONS_AT_ONCE", at_once)
    parts = METHODS["metaclip"](pool, 100)
    np.testing.assert_array_equal(parts.order, whole.order)
    np.testing.assert_array_equal(parts.reasons["entry"], whole.reasons["entry"])


def test_the_counts_of_crawls_add_up_to_the_counts_of_the_pool(pools: SimpleNamespace) -> None:
    captions, entries = pools.random(4, [300]).captions, ["red", "dog", "New York", "old house", "zebra"]
    crawls = captions[:90], captions[90:100], captions[100:]
    total = sum((count_entries(crawl, entries) for crawl in crawls), Counter())
    assert total == count_entries(captions, entries)
    assert total["dog"] == sum("dog" in caption.split() for caption in captions)
    assert "zebra" not in total


def test_a_ranking_by_added_counts_is_that_of_the_whole_pool_whatever_the_order_of_the_crawls(
    pools: SimpleNamespace,
) -> None:
    pool, entries = pools.random(5, [200]), ["red", "dog", "New York", "old house"]
    whole = METHODS["metaclip"](pool, 200, seed=2, entries=entries)
    counts = count_entries(pool.captions[120:], entries) + count_entries(pool.captions[:120], entries)
    added = METHODS["metaclip"](pool, 200, seed=2, counts=counts)
    np.testing.assert_array_equal(added.order, whole.order)
    np.testing.assert_array_equal(added.gains, whole.gains)


def test_a_shard_ranks_its_pairs_as_the_pool_does_with_the_counts_of_the_pool(pools: SimpleNamespace) -> None:
    pool, entries = pools.random(6, [120]), ["red", "dog", "New York", "old house"]
    whole = METHODS["metaclip"](pool, 120, seed=2, entries=entries)
    counts = count_entries(pool.captions, entries)
    for rows in (np.arange(50), np.arange(119, 49, -1)):
        shard = METHODS["metaclip"](pools.rows_of(pool, rows), len(rows), seed=2, counts=counts)
        expected = whole.order[np.isin(whole.order, rows)]
        matched = shard.reasons["entry"] != ""
        np.testing.assert_array_equal(rows[shard.order], expected)
        np.testing.assert_array_equal(shard.gains[matched], whole.gains[np.isin(whole.order, rows)][matched])


def test_counts_without_all_crawls_are_refused() -> None:
    pool = Pool(uid=[1, 2], captions=["dog", "a dog"])
    with pytest.raises(ValueError, match="counts: 2 captions of the pool hold 'dog', more than the 1 counted"):
        METHODS["metaclip"](pool, 1, counts={"dog": 1})


def test_entries_and_counts_are_not_taken_together() -> None:
    with pytest.raises(ValueError, match="entries or counts, not both"):
        METHODS["metaclip"](Pool(uid=[1], captions=["dog"]), 1, entries=["dog"], counts={"dog": 1})


def test_the_default_entries_hold_wordnet_and_the_captions_own_words() -> None:
    pool = Pool(uid=np.arange(7), captions=["a giraffe", *["qwxz"] * 5, "rarewordonce"])
    gains = METHODS["metaclip"](pool, 7).gains
    assert (gains > -8).sum() == 6


@pytest.mark.parametrize("entries", [[], ["", " "]])
def test_entries_must_not_be_empty(entries: list[str]) -> None:
    with pytest.raises(ValueError, match="entries is empty"):
        METHODS["metaclip"](Pool(uid=[1], captions=["a"]), 1, entries=entries)
    with pytest.raises(ValueError, match="entries is empty"):
        count_entries(["a"], entries)
