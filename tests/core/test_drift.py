import math
from types import SimpleNamespace

import numpy as np
import pytest

from clipcov_assets.core.covariance import cross_products
from clipcov_assets.core.drift import Drift, PoolSums
from clipcov_assets.core.statistics import no_statistics, sums_by_class

EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def sums(*pairs: tuple[int, list[float], list[float]], classes: int = 3) -> PoolSums:
    """The sums of pairs: latent class, image and text."""
    latent_class, images, texts = (np.array(part) for part in zip(*pairs, strict=True))
    return PoolSums(sums_by_class(images, texts, latent_class, classes), cross_products(images, texts))


def of_classes(*counts: int) -> PoolSums:
    """The sums of so many equal pairs of each class."""
    pairs = [(k, EAST, EAST) for k, count in enumerate(counts) for _ in range(count)]
    return sums(*pairs, classes=len(counts))


def random_sums(pools: SimpleNamespace, seed: int, sizes: list[int]) -> PoolSums:
    pool = pools.random(seed, sizes)
    images, texts = pool.image_embeddings, pool.text_embeddings
    return PoolSums(sums_by_class(images, texts, pool.latent_class, len(sizes)), cross_products(images, texts))


def test_a_pool_has_not_drifted_from_itself(pools: SimpleNamespace) -> None:
    pool = random_sums(pools, 0, [9, 0, 4])
    drift = Drift(pool, pool)
    assert [drift.class_shares, drift.image_centres, drift.text_centres] == [0, 0, 0]
    assert drift.cross_covariance == 0
    assert drift.gained(3) == drift.lost(3) == []


def test_the_drift_of_class_shares_is_the_share_that_changed_class() -> None:
    # Shares 1/2, 1/2, 0 become 1/4, 1/2, 1/4: a quarter of the pool has gone from the first class to the third.
    drift = Drift(of_classes(2, 2, 0), of_classes(1, 2, 1))
    assert drift.class_shares == pytest.approx(0.25)
    np.testing.assert_allclose(drift.share_changes, [-0.25, 0, 0.25])
    assert (drift.gained(5), drift.lost(5)) == ([2], [0])


def test_pools_without_a_common_class_are_as_far_apart_as_shares_can_be() -> None:
    drift = Drift(of_classes(3, 0), of_classes(0, 5))
    assert drift.class_shares == 1
    assert math.isnan(drift.image_centres)
    assert np.isnan(drift.image_distances).all()
    assert drift.moved(2) == []


def test_the_classes_that_gained_or_lost_most_come_first() -> None:
    drift = Drift(of_classes(10, 20, 30, 40), of_classes(19, 12, 41, 28))
    assert (drift.gained(1), drift.gained(9)) == ([2], [2, 0])
    assert (drift.lost(1), drift.lost(9)) == ([3], [3, 1])


def test_the_drift_of_centres_weighs_a_class_as_the_smaller_of_its_shares() -> None:
    # Class 0 turns its images by a right angle and class 1 stays. Smaller shares: 1/4 and 1/2, so 1/3 of the weight.
    before = sums((0, EAST, EAST), (0, EAST, EAST), (1, NORTH, EAST), (1, NORTH, EAST))
    now = sums((0, NORTH, EAST), (1, NORTH, EAST), (1, NORTH, EAST), (1, NORTH, EAST))
    drift = Drift(before, now)
    assert drift.image_centres == pytest.approx(1 / 3)
    assert drift.text_centres == pytest.approx(0)
    assert Drift(now, before).image_centres == pytest.approx(1 / 3)
    assert drift.moved(3) == [0]
    np.testing.assert_allclose(drift.image_distances, [1, 0, np.nan])


def test_images_and_captions_drift_apart_from_each_other() -> None:
    drift = Drift(sums((0, EAST, EAST)), sums((0, EAST, WEST)))
    assert (drift.image_centres, drift.text_centres) == pytest.approx((0, 2))


def test_a_class_whose_embeddings_cancel_out_has_nothing_in_common_with_another() -> None:
    drift = Drift(sums((0, EAST, EAST), (0, WEST, EAST)), sums((0, EAST, EAST)))
    assert drift.image_centres == 1


def test_a_rare_class_that_moved_far_comes_after_a_common_one_that_moved_less() -> None:
    before = sums(*[(0, EAST, EAST)] * 9, (1, EAST, EAST))
    now = sums(*[(0, EAST, NORTH)] * 9, (1, WEST, EAST))
    assert Drift(before, now).moved(3) == [0, 1]
    assert Drift(before, now).moved(1) == [0]


def test_the_drift_of_the_cross_covariance_is_relative_to_the_pool_before() -> None:
    # Covariances by hand: [[1, -1], [-1, 1]] / 4 before; a pool that does not vary has none.
    before, now = sums((0, EAST, EAST), (0, NORTH, NORTH)), sums((0, EAST, EAST))
    assert Drift(before, now).cross_covariance == pytest.approx(1)
    assert Drift(now, before).cross_covariance == math.inf
    swapped = sums((0, EAST, NORTH), (0, NORTH, EAST))
    assert Drift(before, swapped).cross_covariance == pytest.approx(2)


def test_what_is_new_is_what_is_left_when_the_pool_before_is_taken_out(pools: SimpleNamespace) -> None:
    pairs = [(0, EAST, NORTH), (1, NORTH, NORTH), (2, WEST, EAST), (1, EAST, WEST)]
    new = sums(*pairs) - sums(*pairs[:2])
    assert new.statistics.counts.tolist() == [0, 1, 1]
    drift = Drift(sums(*pairs[2:]), new)
    assert [drift.class_shares, drift.image_centres, drift.cross_covariance] == pytest.approx([0, 0, 0])


def test_pools_of_other_classes_or_without_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(3, 2\) classes and width cannot be compared"):
        Drift(of_classes(1, 1), of_classes(1, 1, 1))
    with pytest.raises(ValueError, match="without pairs"):
        Drift(of_classes(1, 1), PoolSums(no_statistics((2, 2)), np.zeros((2, 2))))
