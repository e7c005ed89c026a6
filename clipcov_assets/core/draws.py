"""Random draws that belong to a name: a seed and names enter, uniform numbers leave.

A draw depends on nothing but the seed and the names, so it stays the same when a pool grows, is split or
shuffled.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clipcov_assets.core.pool import Array

Hashes = NDArray[np.uint64]

NAMES_AT_ONCE = 8_192  # one long name widens the array of its block alone


def uniform(seed: int, uid: Array) -> NDArray[np.float64]:
    """Return (n,) draws in [0, 1), one for each uid."""
    return as_uniform(mixed(hashes(uid) ^ seed_hash(seed)))


def joint_uniform(seed: int, first: Hashes, second: Hashes) -> NDArray[np.float64]:
    """Return (m,) draws in [0, 1), one for each pair of hashes."""
    return as_uniform(mixed(mixed(first ^ seed_hash(seed)) + second))


def hashes(names: Array | Sequence[str]) -> Hashes:
    """Return (n,) 64-bit hashes of strings or integers; how wide an array's strings are does not matter."""
    blocks = (np.asarray(names[start : start + NAMES_AT_ONCE]) for start in range(0, len(names), NAMES_AT_ONCE))
    return np.concatenate([np.empty(0, np.uint64), *map(_block_hashes, blocks)])


def _block_hashes(names: Array) -> Hashes:
    if names.dtype.kind != "U":
        return mixed(names.astype(np.uint64))
    width = names.dtype.itemsize // 4
    letters = np.ascontiguousarray(names).view(np.uint32).reshape(len(names), width)
    state = np.zeros(len(names), np.uint64)
    for column in letters.T:
        state = np.where(column == 0, state, mixed(state ^ column))  # 0 pads the shorter strings
    return mixed(state)


def seed_hash(seed: int) -> np.uint64:
    """Return the hash of a seed, any integer."""
    return np.uint64(mixed(np.array([seed % 2**64], np.uint64))[0])


def mixed(state: Hashes) -> Hashes:
    """Return a step of splitmix64 (Steele, Lea and Flood, 2014): each bit depends on all of `state`."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def as_uniform(state: Hashes) -> NDArray[np.float64]:
    """Return the upper 53 bits as a fraction in [0, 1)."""
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
