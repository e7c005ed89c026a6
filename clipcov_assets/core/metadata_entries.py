"""Metadata for MetaCLIP: WordNet's names and captions enter, a sorted tuple of entries leaves.

MetaCLIP's own list cannot be shipped; this one is rebuilt from WordNet and from the words of the captions, and
is the same for every order of the captions. The counts of words are additive: those of two crawls add up to
those of both, so that each crawl is counted once. The thresholds of the paper (a count of 100) belong to the
size of Wikipedia.

Source: Xu et al. 2023, arXiv:2309.16671, section 3.1.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from clipcov_assets.core.pool import Array

MARKS = ",.;:?!`"
BOUNDARY = " , "  # between captions: no pair of words crosses a mark
CAPTIONS_AT_ONCE = 16_384


def spaced(text: str) -> str:
    """Return text with spaces around , . ; : ? ! ` and instead of tabs and line ends, else unchanged."""
    for mark in MARKS:
        text = text.replace(mark, f" {mark} ")
    return text.replace("\t", " ").replace("\n", " ").replace("\r", " ")


@dataclass(frozen=True, eq=False)
class WordCounts:
    """How often words, and pairs of words side by side, occur in captions.

    Additive: if a and b are the counts of two crawls, a + b are the counts of both. A caption that both crawls
    deliver counts twice, unless the caller leaves it out of one.

    Args:
        words: (w,) strings as objects, sorted, without lone punctuation marks.
        counts: (w,) int64, how often each occurs.
        pairs: (p, 2) int64 places in `words` of neighbours that no lone punctuation mark parts, sorted.
        pair_counts: (p,) int64, how often each pair occurs.
    """

    words: Array
    counts: NDArray[np.int64]
    pairs: NDArray[np.int64]
    pair_counts: NDArray[np.int64]

    def __add__(self, other: "WordCounts") -> "WordCounts":
        words = sorted({*self.words, *other.words})
        place = {word: place for place, word in enumerate(words)}
        mine, others = (np.array([place[word] for word in part.words], np.int64) for part in (self, other))
        counts = np.zeros(len(words), np.int64)
        counts[mine] += self.counts
        counts[others] += other.counts
        keys = np.append(_keys(mine[self.pairs]), _keys(others[other.pairs]))
        keys, pair_counts = _summed(keys, np.append(self.pair_counts, other.pair_counts))
        return WordCounts(np.array(words, object), counts, _pairs(keys), pair_counts)


def count_words(captions: Iterable[str]) -> WordCounts:
    """Return the counts of words and word pairs, equal for every order of the captions.

    Memory grows with the different words and pairs, not with the captions.
    """
    number: defaultdict[str, int] = defaultdict()
    number.default_factory = number.__len__  # each new word gets the next number
    spoken, counts = np.empty(0, np.bool_), np.empty(0, np.int64)
    keys, key_counts = np.empty(0, np.int64), np.empty(0, np.int64)
    waiting: list[Array] = []
    for chunk in chunks(captions):
        said = spaced(BOUNDARY.join(chunk)).split()
        numbers = np.fromiter(map(number.__getitem__, said), np.int64, len(said))
        new = list(islice(number, len(spoken), None))
        spoken = np.append(spoken, np.array([len(word) > 1 or word.isalnum() for word in new], np.bool_))
        counts = np.append(counts, np.zeros(len(new), np.int64)) + np.bincount(numbers, minlength=len(number))
        pairs = np.stack([numbers[:-1], numbers[1:]], axis=1)
        waiting.append(_keys(pairs[spoken[pairs].all(axis=1)]))
        if sum(map(len, waiting)) > len(keys):  # each key is moved a few times then, not once for each chunk
            keys, key_counts = _counted(keys, key_counts, waiting)
            waiting = []
    keys, key_counts = _counted(keys, key_counts, waiting)
    words = np.array([*number], object)
    order = np.array(sorted(np.flatnonzero(spoken), key=words.__getitem__), np.int64)
    place = np.empty(len(words), np.int64)
    place[order] = np.arange(len(order))
    keys, key_counts = _summed(_keys(place[_pairs(keys)]), key_counts)
    return WordCounts(words[order], counts[order], _pairs(keys), key_counts)


def default_entries(counts: WordCounts) -> tuple[str, ...]:
    """Return WordNet's names and the unigrams and bigrams of counted captions, sorted."""
    return tuple(sorted({*wordnet_entries(), *unigrams(counts), *bigrams(counts)}))


@cache
def wordnet_entries() -> tuple[str, ...]:
    """Return the names of all synsets of WordNet 3.0, sorted; the licence lies beside the file."""
    names = files("clipcov_assets.core").joinpath("wordnet_entries.txt").read_text(encoding="utf-8")
    return tuple(names.splitlines())


def unigrams(counts: WordCounts, *, minimum_count: int = 5) -> tuple[str, ...]:
    """Return the words that occur at least `minimum_count` times, sorted."""
    return tuple(counts.words[counts.counts >= minimum_count])


def bigrams(counts: WordCounts, *, minimum_count: int = 5, minimum_information: float = 3.0) -> tuple[str, ...]:
    """Return the neighbouring words that occur often, and together more often than by chance, sorted.

    Args:
        counts: Of the captions.
        minimum_count: How often the two words must be neighbours.
        minimum_information: Pointwise mutual information in bits, log2(p(ab) / (p(a) p(b))).
    """
    often = counts.pair_counts >= minimum_count
    pairs, together = counts.pairs[often], counts.pair_counts[often] / counts.pair_counts.sum()
    apart = (counts.counts / counts.counts.sum())[pairs].prod(axis=1)
    first, second = counts.words[pairs[together >= apart * 2.0**minimum_information]].T
    return tuple(sorted(f"{a} {b}" for a, b in zip(first, second, strict=True)))


def chunks(captions: Iterable[str]) -> Iterator[Sequence[str]]:
    """Yield the captions, many at a time."""
    left = iter(captions)
    while chunk := tuple(islice(left, CAPTIONS_AT_ONCE)):
        yield chunk


def _keys(pairs: Array) -> NDArray[np.int64]:
    """Return (p,) one number for each (p, 2) pair, which sorts like it."""
    keys: NDArray[np.int64] = pairs[:, 0] << 32 | pairs[:, 1]
    return keys


def _pairs(keys: Array) -> NDArray[np.int64]:
    return np.stack([keys >> 32, keys & (2**32 - 1)], axis=1)


def _counted(keys: Array, counts: Array, more: Sequence[Array]) -> tuple[Array, Array]:
    """Return the keys and their counts with more keys that count once each."""
    keys = np.concatenate([keys, *more])
    return _summed(keys, np.append(counts, np.ones(len(keys) - len(counts), np.int64)))


def _summed(keys: Array, counts: Array) -> tuple[Array, Array]:
    """Return each key once, sorted, with the sum of its counts."""
    order = np.argsort(keys)
    keys = keys[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    return keys[starts], np.add.reduceat(counts[order], starts)
