import math
from types import SimpleNamespace

import numpy as np
import pytest

from clipcov_assets.core.covariance import cross_covariance, cross_covariance_error


def test_the_whole_pool_has_no_error_in_any_order(pools: SimpleNamespace) -> None:
    pool = pools.random(0, [50])
    order = np.random.default_rng(0).permutation(50)
    assert cross_covariance_error(pool.image_embeddings, pool.text_embeddings, order) < 1e-12


def test_the_cross_covariance_is_centred(pools: SimpleNamespace) -> None:
    pool = pools.random(1, [40], dtype="float16")
    images, texts = pool.image_embeddings.astype(float), pool.text_embeddings.astype(float)
    expected = (images - images.mean(0)).T @ (texts - texts.mean(0)) / 40
    found = cross_covariance(pool.image_embeddings, pool.text_embeddings, np.arange(40))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_error_of_one_pair_is_the_whole_covariance_by_hand() -> None:
    # The pool's covariance is [[1, -1], [-1, 1]] / 4; one pair varies not at all.
    rows = np.eye(2)
    assert cross_covariance_error(rows, rows, [0]) == pytest.approx(1)


def test_a_pool_that_does_not_vary() -> None:
    rows = np.array([[1.0, 0.0]] * 2)
    assert cross_covariance_error(rows, rows, [0]) == 0
    crossed = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    texts = crossed[[0, 0, 1, 1]]
    assert cross_covariance_error(crossed, texts, [0, 3]) == math.inf


def test_an_empty_subset_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="order is empty"):
        cross_covariance_error(np.eye(2), np.eye(2), [])
