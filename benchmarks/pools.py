"""Synthetic inputs with the geometry of CLIP: sizes and a seed enter, columns of a pool leave.

Embeddings of one modality lie in a narrow cone, images and captions in different ones. A row is the unit
vector of

    sqrt(0.45) m + sqrt(0.15) c_k + sqrt(q_e) z_e + sqrt(0.4 - q_e) r

with m the axis of the modality's cone (cosine of both axes: 0.11), c_k a random centre of class k, z_e a
part that image and caption of pair e share, r a part of the row's own, and q_e uniform between 0 and 0.15.
z_e and r are normal, their standard deviation falls with dimension i as i^-1/4 and their mean square length is 1. Mean
cosines:

| | same class | other class |
|---|---|---|
| image and image, caption and caption | 0.60 | 0.45 |
| image and caption, of one pair | 0.20 to 0.35 | |
| image and caption, of two pairs | 0.20 | 0.05 |

Rows come in random order, as classes are mixed in a crawl, under uids of 32 hexadecimal digits.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

WIDTH = 512
EMBEDDINGS = ("image_embeddings", "text_embeddings")
CONE, CLASS, MATCH, CONES_COSINE = 0.45, 0.15, 0.15, 0.11
SKEW = 12.374165  # for 200 classes the largest is then 7 times the mean and the smallest half of it
VOCABULARY = 100_000
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in ("a", "e", "i", "o", "u", "an", "or")]
CAPTIONS_AT_ONCE = 50_000

Columns = dict[str, Any]


def skewed_sizes(n: int, classes: int) -> list[int]:
    """Return falling class sizes that sum to n; with 200 classes from 7 times the mean to half of it."""
    shares = 0.5 + 6.5 * np.linspace(1, 0, classes) ** SKEW
    ends = np.rint(np.cumsum(shares) * (n / shares.sum())).astype(int)
    return [int(size) for size in np.diff(ends, prepend=0)]


def equal_sizes(n: int, classes: int) -> list[int]:
    """Return class sizes that sum to n and differ by 1 at most."""
    return [len(part) for part in np.array_split(np.empty(n, np.bool_), classes)]


def zipf_sizes(n: int, classes: int) -> list[int]:
    """Return class sizes that fall as 1/1, 1/2, 1/3 ... and sum to n, each at least 1."""
    shares = np.cumsum(1 / np.arange(1, classes + 1))
    ends = np.rint((n - classes) * shares / shares[-1]).astype(int)
    return [int(size) + 1 for size in np.diff(ends, prepend=0)]


def clip_like(
    sizes: Sequence[int],
    *,
    width: int = WIDTH,
    dtype: DTypeLike = np.float32,
    embeddings: Sequence[str] = EMBEDDINGS,
    seed: int = 0,
) -> Columns:
    """Return the columns uid, latent_class, class_embeddings and `embeddings` of a pool.

    Args:
        sizes: Pairs of each class.
        width: Of an embedding.
        dtype: Of the embeddings, float16 or float32.
        embeddings: Those that are wanted, of `EMBEDDINGS`.
        seed: Another seed, another pool of the same geometry.
    """
    n, random = sum(sizes), np.random.default_rng(seed)
    rows_of = np.split(random.permutation(n), np.cumsum(sizes)[:-1])
    columns: Columns = {"uid": uids(n, random), "latent_class": np.empty(n, np.int64)}
    columns |= {name: np.empty((n, width), dtype) for name in embeddings}
    geometry = Geometry(len(sizes), width, random)
    columns["class_embeddings"] = geometry.class_embeddings

    def fill(k: int) -> None:
        rows = rows_of[k]
        columns["latent_class"][rows] = k
        made = geometry.pairs(np.full(sizes[k], k), np.random.default_rng([seed, k]), embeddings)
        for name, block in made.items():
            columns[name][rows] = block

    with ThreadPoolExecutor(os.cpu_count()) as executor:
        list(executor.map(fill, range(len(sizes))))
    return columns


class Geometry:
    """Where cones and classes lie.

    Args:
        classes: K.
        width: d.
        random: Draws the axes and the centres.
    """

    def __init__(self, classes: int, width: int, random: np.random.Generator) -> None:
        """Draw them."""
        first, other = np.linalg.qr(random.standard_normal((width, 2)))[0].T
        second = CONES_COSINE * first + (1 - CONES_COSINE**2) ** 0.5 * other
        self.axes = dict(zip(EMBEDDINGS, (first, second), strict=True))
        self.centres = CLASS**0.5 * unit(random.standard_normal((classes, width)))
        self.class_embeddings = unit(CONE**0.5 * second + self.centres).astype(np.float32)
        spectrum = np.arange(1, width + 1) ** -0.25
        self.spectrum = (spectrum / np.linalg.norm(spectrum)).astype(np.float32)

    def pairs(
        self, latent_class: NDArray[Any], random: np.random.Generator, embeddings: Sequence[str] = EMBEDDINGS
    ) -> Columns:
        """Draw a pair for each of these latent classes: (n, d) float32 rows by name."""
        shape = (len(latent_class), len(self.spectrum))
        match = random.uniform(0, MATCH, (shape[0], 1)).astype(np.float32)
        shared = np.sqrt(match) * random.standard_normal(shape, np.float32) * self.spectrum
        made = {}
        for name in embeddings:
            rows = np.sqrt(1 - CONE - CLASS - match) * random.standard_normal(shape, np.float32) * self.spectrum
            rows += shared
            rows += (CONE**0.5 * self.axes[name] + self.centres).astype(np.float32)[latent_class]
            made[name] = unit(rows)
        return made


def captions_and_entries(n: int, entries: int, *, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return n captions of 8 to 20 words, and metadata entries that are found in them.

    Words are drawn from a vocabulary by Zipf's law. Half of the entries are every second word of it, common
    and rare ones alike, the other half are pairs of adjacent words of the captions.

    Args:
        n: Captions.
        entries: Entries; fewer where few captions do not hold as many word pairs.
        seed: Of the draws.
    """
    random = np.random.default_rng(seed)
    words = list(made_up_words(VOCABULARY))
    frequency = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
    captions: list[str] = []
    chosen = dict.fromkeys(words[: entries - entries % 2 : 2])
    for start in range(0, n, CAPTIONS_AT_ONCE):
        lengths = random.integers(8, 21, min(CAPTIONS_AT_ONCE, n - start))
        drawn = np.searchsorted(frequency, random.random(lengths.sum()) * frequency[-1])
        for caption in np.split(drawn, np.cumsum(lengths)[:-1]):
            spoken = [words[word] for word in caption]
            captions.append(" ".join(spoken))
            if len(chosen) < entries:
                chosen.update(dict.fromkeys(f"{a} {b}" for a, b in pairwise(spoken)))
    return captions, list(chosen)[:entries]


def made_up_words(count: int) -> Iterator[str]:
    """Yield different words of one to four syllables, short ones first, as common words are."""
    base = len(SYLLABLES)
    for place in range(1, count + 1):
        word, rest = "", place
        while rest:
            rest, syllable = divmod(rest - 1, base)
            word += SYLLABLES[syllable]
        yield word


def head(columns: Columns, rows: int) -> Columns:
    """Return the first rows of every column."""
    return {name: column if name == "class_embeddings" else column[:rows] for name, column in columns.items()}


def size_in_bytes(columns: Columns) -> int:
    """Return the memory of all columns; for captions that of their letters."""
    return sum(
        column.nbytes if isinstance(column, np.ndarray) else sum(map(len, column)) for column in columns.values()
    )


def uids(n: int, random: np.random.Generator) -> NDArray[np.str_]:
    """Return (n,) strings of 32 hexadecimal digits."""
    digits = random.bytes(16 * n).hex().encode()
    return np.frombuffer(digits, "S32").astype("U32")


def unit(rows: NDArray[Any]) -> NDArray[Any]:
    """Return rows of length 1."""
    units: NDArray[Any] = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return units
