import tracemalloc

import numpy as np

from clipcov_assets.core.draws import hashes, joint_uniform, uniform

UIDS = np.array([f"pair-{i}" for i in range(20_000)])


def test_draws_are_uniform() -> None:
    draws = uniform(0, UIDS)
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.histogram(draws, bins=20, range=(0, 1))[0]
    assert np.abs(counts - 1000).max() < 150


def test_neighbouring_seeds_and_entries_draw_independently() -> None:
    first, second = uniform(0, UIDS), uniform(1, UIDS)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    names = hashes(UIDS)
    first, second = (joint_uniform(0, names, np.full_like(names, entry)) for entry in (1, 2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03


def test_a_draw_does_not_depend_on_the_other_uids_nor_on_the_width_of_their_array() -> None:
    wider = np.array(["a", "a much longer uid"])
    assert uniform(3, wider)[0] == uniform(3, np.array(["a"]))[0]


def test_integers_draw_too() -> None:
    draws = uniform(0, np.array([-1, 0, 1]))
    assert len(set(draws.tolist())) == 3


def test_any_integer_is_a_seed() -> None:
    assert uniform(-1, UIDS[:1]) != uniform(2**70 + 5, UIDS[:1])


def test_hashes_differ() -> None:
    assert len(set(hashes(UIDS).tolist())) == len(UIDS)
    assert len(set(hashes(np.array(["ab", "ba", "a", "b", "aa", ""])).tolist())) == 6


def test_names_in_a_list_hash_like_those_in_an_array_however_many_there_are() -> None:
    whole = hashes(UIDS)
    np.testing.assert_array_equal(hashes(UIDS.tolist()), whole)
    for part in (slice(0, 1), slice(8_191, 8_193), slice(19_999, None)):
        np.testing.assert_array_equal(hashes(UIDS[part]), whole[part])
    assert hashes([]).shape == (0,)


def test_one_long_name_does_not_widen_all_others() -> None:
    names = ["a"] * 50_000 + ["x" * 2_000]
    tracemalloc.start()
    found = hashes(names)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6  # an array of all of them takes 400 MB
    assert found[0] == hashes(["a"])[0]
