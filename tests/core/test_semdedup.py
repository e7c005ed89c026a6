from types import SimpleNamespace

import numpy as np
import pytest

from clipcov_assets.core import METHODS, Pool
from clipcov_assets.core.selection.semdedup import duplication, implied_epsilon

ONE_CLUSTER = np.zeros(3, int)
# Angles of 0, 30 and 60 degrees: a ~ b and b ~ c with cosine 0.87, a and c with cosine 0.5.
A, B, C = np.array([[1, 0], [0.75**0.5, 0.5], [0.5, 0.75**0.5]], np.float32)


def test_in_a_chain_each_link_is_a_duplicate_of_the_one_before() -> None:
    found = duplication(np.stack([A, B, C]), ONE_CLUSTER, np.array([0.1, 0.2, 0.3]))
    np.testing.assert_allclose(found, [0, 0.75**0.5, 0.75**0.5], atol=1e-6)


def test_the_middle_of_the_chain_is_the_duplicate_when_it_comes_last() -> None:
    found = duplication(np.stack([A, B, C]), ONE_CLUSTER, np.array([0.1, 0.3, 0.2]))
    np.testing.assert_allclose(found, [0, 0.75**0.5, 0.5], atol=1e-6)


def test_both_ends_are_duplicates_when_the_middle_comes_first() -> None:
    found = duplication(np.stack([A, B, C]), ONE_CLUSTER, np.array([0.2, 0.1, 0.3]))
    np.testing.assert_allclose(found, [0.75**0.5, 0, 0.75**0.5], atol=1e-6)


def test_at_equal_distance_the_earlier_row_comes_first() -> None:
    found = duplication(np.stack([A, B, C]), ONE_CLUSTER, np.zeros(3))
    np.testing.assert_allclose(found, [0, 0.75**0.5, 0.75**0.5], atol=1e-6)


def test_duplicates_across_clusters_are_not_seen() -> None:
    found = duplication(np.stack([A, A, A]), np.array([1, 0, 1]), np.zeros(3))
    np.testing.assert_allclose(found, [0, 0, 1], atol=1e-6)


def test_opposite_images_are_no_less_than_unlike() -> None:
    found = duplication(np.stack([A, -A, B]), ONE_CLUSTER, np.array([0.1, 0.2, 0.3]))
    np.testing.assert_allclose(found, [0, 0, 0.75**0.5], atol=1e-6)


def test_large_clusters_are_compared_pair_by_pair(pools: SimpleNamespace) -> None:
    rows = pools.random(0, [200], width=16).image_embeddings
    centrality = np.random.default_rng(0).random(200)
    walk = np.argsort(centrality)
    sim = (rows[walk].astype(float) @ rows[walk].astype(float).T) * np.tri(200, k=-1)
    np.testing.assert_allclose(duplication(rows, np.zeros(200, int), centrality)[walk], sim.max(1), atol=1e-12)


def test_equal_images_tie_wherever_they_stand() -> None:
    found = duplication(np.repeat(B[None], 100, axis=0), np.zeros(100, int), np.zeros(100))
    assert len(set(found[1:].tolist())) == 1


def test_one_image_of_each_kind_comes_before_all_copies() -> None:
    kinds = np.eye(4, dtype=np.float32)
    pool = Pool(uid=[f"{i:02d}" for i in range(12)], image_embeddings=kinds[np.arange(12) % 4])
    ranking = METHODS["semdedup"](pool, 12, n_clusters=4)
    assert ranking.order.tolist() == list(range(12))
    np.testing.assert_allclose(ranking.gains, [0] * 4 + [-1] * 8)


def test_hard_images_stay_in_one_cluster_by_hand() -> None:
    # The centroid of A, A and C lies nearest to A: C comes first, then one A, then its copy.
    pool = Pool(uid=["x", "y", "z"], image_embeddings=[A, A, C])
    ranking = METHODS["semdedup"](pool, 3, n_clusters=1)
    assert ranking.order.tolist() == [2, 0, 1]
    np.testing.assert_allclose(ranking.gains, [0, -0.5, -1], atol=1e-6)
    assert implied_epsilon(ranking.gains[1]) == pytest.approx(0.5)


def test_every_prefix_is_what_its_epsilon_keeps(pools: SimpleNamespace) -> None:
    pool = pools.random(1, [80], width=4)
    ranking = METHODS["semdedup"](pool, 80, n_clusters=3)
    largest = np.empty(80)
    largest[ranking.order] = -ranking.gains
    for budget in (10, 40, 79):
        if ranking.gains[budget] < ranking.gains[budget - 1]:
            kept = np.flatnonzero(largest <= 1 - implied_epsilon(ranking.gains[budget - 1]))
            assert set(kept) == set(ranking.order[:budget])


@pytest.mark.parametrize("n_clusters", [0, 4, -1])
def test_clusters_are_at_most_the_pairs(n_clusters: int) -> None:
    pool = Pool(uid=["x", "y", "z"], image_embeddings=[A, B, C])
    with pytest.raises(ValueError, match=f"n_clusters is {n_clusters}"):
        METHODS["semdedup"](pool, 1, n_clusters=n_clusters)


def test_a_pool_of_one_pair_is_one_cluster() -> None:
    assert METHODS["semdedup"](Pool(uid=["x"], image_embeddings=[A]), 1).gains.tolist() == [0]
