from types import SimpleNamespace

import numpy as np
import pytest

from clipcov_assets.core.statistics import class_statistics


def test_statistics_count_and_sum_each_class(pools: SimpleNamespace) -> None:
    pool = pools.random(0, [4, 0, 3])
    statistics = class_statistics(pool)
    assert statistics.counts.tolist() == [4, 0, 3]
    assert statistics.image_sums[1].tolist() == [0.0] * 6
    for k in (0, 2):
        rows = pool.latent_class == k
        np.testing.assert_allclose(statistics.image_sums[k], pool.image_embeddings[rows].sum(0), atol=1e-6)
        np.testing.assert_allclose(statistics.text_sums[k], pool.text_embeddings[rows].sum(0), atol=1e-6)


def test_statistics_of_two_crawls_add_up_to_those_of_both(pools: SimpleNamespace) -> None:
    pool = pools.random(1, [9, 6, 4])
    first, second = (pools.rows_of(pool, rows) for rows in (np.arange(8), np.arange(8, 19)))
    together, whole = class_statistics(first) + class_statistics(second), class_statistics(pool)
    np.testing.assert_array_equal(together.counts, whole.counts)
    np.testing.assert_allclose(together.image_sums, whole.image_sums, rtol=1e-12)
    np.testing.assert_allclose(together.text_sums, whole.text_sums, rtol=1e-12)


def test_a_crawl_can_be_taken_out_again(pools: SimpleNamespace) -> None:
    pool = pools.random(1, [9, 0, 4])
    first, second = (pools.rows_of(pool, rows) for rows in (np.arange(6), np.arange(6, 13)))
    left = class_statistics(pool) - class_statistics(second)
    np.testing.assert_array_equal(left.counts, class_statistics(first).counts)
    np.testing.assert_allclose(left.image_sums, class_statistics(first).image_sums, atol=1e-12)
    nothing = class_statistics(pool) - class_statistics(pool)
    assert not nothing.counts.any()
    assert not nothing.text_sums.any()


def test_shuffled_rows_have_the_same_statistics_to_the_last_bit(pools: SimpleNamespace) -> None:
    pool = pools.random(2, [40, 30])
    shuffled = pools.rows_of(pool, np.random.default_rng(0).permutation(len(pool)))
    np.testing.assert_array_equal(class_statistics(pool).image_sums, class_statistics(shuffled).image_sums)


def test_statistics_of_other_classes_do_not_add(pools: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=r"\(3, 6\) and \(2, 6\)"):
        class_statistics(pools.random(0, [1, 1, 1])) + class_statistics(pools.random(0, [1, 1]))
