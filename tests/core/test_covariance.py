import math
from types import SimpleNamespace

import numpy as np
import pytest

from clipcov_assets.core import Pool
from clipcov_assets.core.covariance import cross_covariance, cross_covariance_error, cross_products
from clipcov_assets.core.statistics import no_statistics, sums_by_class


def covariance_of(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    statistics = sums_by_class(images, texts, np.zeros(len(images), int), 1)
    return cross_covariance(cross_products(images, texts), statistics)


def test_the_cross_covariance_is_centred(pools: SimpleNamespace) -> None:
    pool = pools.random(1, [40], dtype="float16")
    images, texts = pool.image_embeddings.astype(float), pool.text_embeddings.astype(float)
    expected = (images - images.mean(0)).T @ (texts - texts.mean(0)) / 40
    np.testing.assert_allclose(covariance_of(pool.image_embeddings, pool.text_embeddings), expected, atol=1e-12)


def test_the_products_of_two_crawls_add_up_to_those_of_both(pools: SimpleNamespace) -> None:
    pool: Pool = pools.random(2, [9000], width=3)
    images, texts = pool.image_embeddings, pool.text_embeddings
    together = cross_products(images[:8500], texts[:8500]) + cross_products(images[8500:], texts[8500:])
    np.testing.assert_allclose(together, images.astype(float).T @ texts, rtol=1e-9)


def test_the_whole_pool_has_no_error_in_any_order(pools: SimpleNamespace) -> None:
    pool = pools.random(0, [50])
    images, texts = pool.image_embeddings, pool.text_embeddings
    order = np.random.default_rng(0).permutation(50)
    shuffled = covariance_of(images[order], texts[order])
    assert cross_covariance_error(shuffled, covariance_of(images, texts)) < 1e-12


def test_the_error_of_one_pair_is_the_whole_covariance_by_hand() -> None:
    # The pool's covariance is [[1, -1], [-1, 1]] / 4; one pair varies not at all.
    rows = np.eye(2)
    np.testing.assert_allclose(covariance_of(rows, rows), [[0.25, -0.25], [-0.25, 0.25]])
    assert cross_covariance_error(covariance_of(rows[:1], rows[:1]), covariance_of(rows, rows)) == pytest.approx(1)


def test_a_pool_that_does_not_vary() -> None:
    assert cross_covariance_error(np.zeros((2, 2)), np.zeros((2, 2))) == 0
    assert cross_covariance_error(np.eye(2), np.zeros((2, 2))) == math.inf


def test_an_empty_subset_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        cross_covariance(np.zeros((2, 2)), no_statistics((1, 2)))
