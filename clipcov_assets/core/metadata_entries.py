"""Metadata for MetaCLIP: WordNet's names and captions enter, a sorted tuple of entries leaves.

MetaCLIP's own list cannot be shipped; this one is rebuilt from WordNet and from the pool, and is the same
for every order of the captions. The thresholds of the paper (a count of 100) belong to the size of
Wikipedia.

Source: Xu et al. 2023, arXiv:2309.16671, section 3.1.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from itertools import pairwise

SPACES = str.maketrans({mark: f" {mark} " for mark in ",.;:?!`"} | dict.fromkeys("\t\n\r", " "))


def spaced(text: str) -> str:
    """Return text with spaces around , . ; : ? ! ` and instead of tabs and line ends, else unchanged."""
    return text.translate(SPACES)


def default_entries(captions: Sequence[str]) -> tuple[str, ...]:
    """Return WordNet's names and the captions' own unigrams and bigrams, sorted."""
    return tuple(sorted({*wordnet_entries(), *unigrams(captions), *bigrams(captions)}))


@cache
def wordnet_entries() -> tuple[str, ...]:
    """Return the names of all synsets of WordNet 3.0, sorted; the licence lies beside the file."""
    names = files("clipcov_assets.core").joinpath("wordnet_entries.txt").read_text(encoding="utf-8")
    return tuple(names.splitlines())


def unigrams(captions: Iterable[str], *, minimum_count: int = 5) -> tuple[str, ...]:
    """Return the words that occur at least `minimum_count` times, sorted, without lone punctuation marks."""
    counts = Counter(word for caption in captions for word in words(caption))
    return tuple(sorted(word for word, count in counts.items() if word and count >= minimum_count))


def bigrams(captions: Iterable[str], *, minimum_count: int = 5, minimum_information: float = 3.0) -> tuple[str, ...]:
    """Return the neighbouring words that occur often, and together more often than by chance, sorted.

    Args:
        captions: n strings.
        minimum_count: How often the two words must be neighbours.
        minimum_information: Pointwise mutual information in bits, log2(p(ab) / (p(a) p(b))).
    """
    single, double = Counter[str](), Counter[tuple[str, str]]()
    for caption in captions:
        spoken = words(caption)
        single.update(word for word in spoken if word)
        double.update(pair for pair in pairwise(spoken) if all(pair))
    total_single, total_double = single.total(), double.total()

    def information(first: str, second: str) -> float:
        together = double[first, second] / total_double
        return math.log2(together * total_single**2 / (single[first] * single[second]))

    return tuple(
        sorted(
            f"{first} {second}"
            for (first, second), count in double.items()
            if count >= minimum_count and information(first, second) >= minimum_information
        )
    )


def words(caption: str) -> list[str]:
    """Return a caption's words; a lone punctuation mark leaves an empty string, which no bigram crosses."""
    return [word if len(word) > 1 or word.isalnum() else "" for word in spaced(caption).split()]
