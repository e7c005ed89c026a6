import tracemalloc
from collections import Counter
from importlib.resources import files
from itertools import pairwise

import numpy as np
import pytest

from clipcov_assets.core import metadata_entries
from clipcov_assets.core.metadata_entries import (
    WordCounts,
    bigrams,
    count_words,
    default_entries,
    spaced,
    unigrams,
    wordnet_entries,
)

CAPTIONS = ["New York, New York!", "a dog in New York", "a cat", "a dog"]


def test_wordnet_is_shipped_with_its_licence() -> None:
    assert len(wordnet_entries()) == 87_379
    assert {"dog", "New York", "Louvre"} <= set(wordnet_entries())
    assert "Princeton University" in files("clipcov_assets.core").joinpath("wordnet_LICENSE.txt").read_text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("New York,NY", "New York , NY"),
        ("wait... what?!", "wait .  .  .  what ?  ! "),
        ("a\tb\nc\rd", "a b c d"),
        ('Dog\'s (dog) "dog" dog-cat', 'Dog\'s (dog) "dog" dog-cat'),
        ("a;b:c`d", "a ; b : c ` d"),
    ],
)
def test_captions_are_spaced_around_seven_marks_only(text: str, expected: str) -> None:
    assert spaced(text) == expected


def counted(counts: WordCounts) -> tuple[dict[str, int], dict[str, int]]:
    """Counts of words, and of pairs written side by side."""
    pairs = [" ".join(pair) for pair in counts.words[counts.pairs]]
    return (
        dict(zip(counts.words, counts.counts.tolist(), strict=True)),
        dict(zip(pairs, counts.pair_counts.tolist(), strict=True)),
    )


def random_captions(n: int) -> list[str]:
    random = np.random.default_rng(n)
    words = ["a", "dog", "New", "York", ",", "sleeps.", "?", "(", "d\u00e9j\u00e0", "\u732b", "x" * 300, "", "7"]
    return [" ".join(random.choice(words, random.integers(0, 12))) for _ in range(n)]


def test_words_and_pairs_are_counted_by_hand() -> None:
    words, pairs = counted(count_words(CAPTIONS))
    assert words == {"New": 3, "York": 3, "a": 3, "cat": 1, "dog": 2, "in": 1}
    assert pairs == {"New York": 3, "a cat": 1, "a dog": 2, "dog in": 1, "in New": 1}


def test_words_are_counted_with_their_case_and_without_lone_marks() -> None:
    words, pairs = counted(count_words(["a . b ( 7", "A (b)", "", " \n "]))
    assert words == {"(b)": 1, "7": 1, "A": 1, "a": 1, "b": 1}
    assert pairs == {"A (b)": 1}


def test_no_captions_have_no_words() -> None:
    assert counted(count_words([])) == counted(count_words(["", ", !"])) == ({}, {})
    assert unigrams(count_words([])) == bigrams(count_words([])) == ()


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_counts_equal_those_of_a_loop(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata_entries, "CAPTIONS_AT_ONCE", at_once)
    captions, words, pairs = random_captions(100), Counter[str](), Counter[str]()
    for caption in captions:
        said = [word if len(word) > 1 or word.isalnum() else None for word in spaced(caption).split()]
        words.update(word for word in said if word)
        pairs.update(f"{a} {b}" for a, b in pairwise(said) if a and b)
    counts = count_words(captions)
    assert counted(counts) == (words, pairs)
    assert counts.words.tolist() == sorted(words)
    assert counts.pairs.tolist() == sorted(counts.pairs.tolist())


def test_memory_does_not_grow_with_the_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata_entries, "CAPTIONS_AT_ONCE", 100)
    captions = random_captions(100)
    tracemalloc.start()
    counts = count_words(captions[i % 100] for i in range(20_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts.pair_counts.sum() == 200 * count_words(captions).pair_counts.sum() > 25_000
    assert peak < 150_000  # a number for each pair takes more


@pytest.mark.parametrize("parts", [(0, 100), (37, 100), (1, 2, 50, 100)])
def test_the_counts_of_crawls_add_up_in_any_order(parts: tuple[int, ...]) -> None:
    captions = random_captions(100)
    crawls = [count_words(captions[start:stop]) for start, stop in pairwise((0, *parts))]
    whole = count_words(captions)
    for order in (crawls, crawls[::-1]):
        total = sum(order[1:], order[0])
        for field in ("words", "counts", "pairs", "pair_counts"):
            np.testing.assert_array_equal(getattr(total, field), getattr(whole, field), strict=True)


def test_unigrams_occur_often() -> None:
    assert unigrams(count_words(CAPTIONS), minimum_count=3) == ("New", "York", "a")


def test_bigrams_do_not_cross_punctuation_nor_captions() -> None:
    assert bigrams(count_words(["York, New"] * 9), minimum_count=1, minimum_information=-9) == ()
    assert bigrams(count_words(["York", "New"] * 9), minimum_count=1, minimum_information=-9) == ()


def test_bigrams_by_hand() -> None:
    # 13 words, 8 pairs of neighbours. "New York" is 3 of them: log2(3/8 * 13 * 13 / (3 * 3)) = 2.82 bits.
    counts = count_words(CAPTIONS)
    assert bigrams(counts, minimum_count=3, minimum_information=2.81) == ("New York",)
    assert bigrams(counts, minimum_count=3, minimum_information=2.83) == ()
    assert bigrams(counts, minimum_count=4, minimum_information=0) == ()


def test_default_entries_are_sorted_distinct_and_the_same_for_shuffled_captions() -> None:
    captions = [f"{CAPTIONS[i % 4]}. {'qwx zzyzx' if i < 5 else ''}" for i in range(40)]
    entries = default_entries(count_words(captions))
    assert list(entries) == sorted(set(entries))
    assert {"zzyzx", "qwx zzyzx", "Louvre"} <= set(entries)
    for seed in range(3):
        assert default_entries(count_words(np.random.default_rng(seed).permutation(captions).tolist())) == entries
