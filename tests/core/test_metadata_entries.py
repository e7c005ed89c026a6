from importlib.resources import files

import numpy as np
import pytest

from clipcov_assets.core.metadata_entries import bigrams, default_entries, spaced, unigrams, wordnet_entries

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


def test_unigrams_are_counted_with_their_case_and_without_punctuation() -> None:
    assert unigrams(CAPTIONS, minimum_count=3) == ("New", "York", "a")
    assert unigrams(["a . b ( 7", "a . b ( 7"], minimum_count=2) == ("7", "a", "b")


def test_bigrams_do_not_cross_punctuation() -> None:
    assert bigrams(["York, New"] * 9, minimum_count=1, minimum_information=-9) == ()


def test_bigrams_by_hand() -> None:
    # 13 words, 8 pairs of neighbours. "New York" is 3 of them: log2(3/8 * 13 * 13 / (3 * 3)) = 2.82 bits.
    assert bigrams(CAPTIONS, minimum_count=3, minimum_information=2.81) == ("New York",)
    assert bigrams(CAPTIONS, minimum_count=3, minimum_information=2.83) == ()
    assert bigrams(CAPTIONS, minimum_count=4, minimum_information=0) == ()


def test_default_entries_are_sorted_distinct_and_the_same_for_shuffled_captions() -> None:
    captions = [f"{CAPTIONS[i % 4]}. {'qwx zzyzx' if i < 5 else ''}" for i in range(40)]
    entries = default_entries(captions)
    assert list(entries) == sorted(set(entries))
    assert {"zzyzx", "qwx zzyzx", "Louvre"} <= set(entries)
    assert default_entries(np.random.default_rng(0).permutation(captions).tolist()) == entries
