from types import SimpleNamespace

import numpy as np
import pytest

from clipcov_assets.core import METHODS, Pool, duplicates
from clipcov_assets.core.duplicates import nearest, rounding
from clipcov_assets.core.selection.semdedup import (
    EPSILONS,
    duplication,
    epsilon_curve,
    implied_epsilon,
    spherical_kmeans,
)

# Angles of 0, 30 and 60 degrees: a ~ b and b ~ c with cosine 0.87, a and c with cosine 0.5.
A, B, C = np.array([[1, 0], [0.75**0.5, 0.5], [0.5, 0.75**0.5]], np.float32)


def walked(*images: np.ndarray, centrality: list[float], cluster: list[int] | None = None) -> tuple[list, list]:
    """Largest similarities and partners of images whose uids are their places."""
    n = len(images)
    cluster = np.zeros(n, int) if cluster is None else np.array(cluster)
    largest, partner = duplication(np.stack(images), np.arange(n), cluster, np.array(centrality))
    return largest.round(6).tolist(), partner.tolist()


def by_hand(images: np.ndarray, cluster: np.ndarray, centrality: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rule pair by pair, for rows in the order of uid: at least 0, and the smaller uid of equal partners."""
    largest, partner = np.zeros(len(images)), np.full(len(images), -1)
    rows = images.astype(float)
    products = rows @ rows.T
    for j in range(len(images)):
        earlier = (cluster == cluster[j]) & (
            (centrality < centrality[j]) | ((centrality == centrality[j]) & (np.arange(len(images)) < j))
        )
        if earlier.any() and products[j][earlier].max() > 0:
            largest[j] = products[j][earlier].max()
            partner[j] = np.flatnonzero(earlier & (products[j] > largest[j] - 1e-12))[0]
    return largest, partner


def cone(n: int, width: int, *, copies: float = 0.0, dtype: str = "float32") -> np.ndarray:
    """Unit rows that are alike, a share of them copies of others."""
    random = np.random.default_rng(n)
    rows = random.normal(size=(n, width)) + 2 * np.eye(width)[0]
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)
    return rows[np.where(random.random(n) < copies, random.integers(0, max(1, n // 10), n), np.arange(n))]


def test_in_a_chain_each_link_is_a_duplicate_of_the_one_before() -> None:
    assert walked(A, B, C, centrality=[0.1, 0.2, 0.3]) == ([0, 0.866025, 0.866025], [-1, 0, 1])


def test_the_middle_of_the_chain_is_the_duplicate_when_it_comes_last() -> None:
    assert walked(A, B, C, centrality=[0.1, 0.3, 0.2]) == ([0, 0.866025, 0.5], [-1, 0, 0])


def test_both_ends_are_duplicates_when_the_middle_comes_first() -> None:
    assert walked(A, B, C, centrality=[0.2, 0.1, 0.3]) == ([0.866025, 0, 0.866025], [1, -1, 1])


def test_at_equal_distance_the_smaller_uid_comes_first() -> None:
    assert walked(A, B, C, centrality=[0, 0, 0]) == ([0, 0.866025, 0.866025], [-1, 0, 1])


def test_duplicates_across_clusters_are_not_seen() -> None:
    assert walked(A, A, A, centrality=[0, 0, 0], cluster=[1, 0, 1]) == ([0, 0, 1], [-1, -1, 0])


def test_opposite_images_are_no_less_than_unlike_and_have_no_partner() -> None:
    assert walked(A, -A, B, centrality=[0.1, 0.2, 0.3]) == ([0, 0, 0.866025], [-1, -1, 0])


@pytest.mark.parametrize("centrality", [[0.1, 0.2, 0.3], [0.2, 0.1, 0.3]])
def test_among_equal_partners_the_smaller_uid_is_named(centrality: list[float]) -> None:
    above, below = np.array([[0.6, 0.8], [0.6, -0.8]], np.float32)
    assert walked(above, below, A, centrality=centrality)[1][2] == 0
    assert walked(A, A, A, centrality=centrality)[1][2] == 0


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("copies", [0.0, 0.5])
def test_clusters_of_many_tiles_equal_the_rule_pair_by_pair(
    dtype: str, copies: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "TILE", 32)
    images = cone(300, 24, copies=copies, dtype=dtype)
    random = np.random.default_rng(0)
    kind = np.unique(images, axis=0, return_inverse=True)[1].ravel()
    cluster = np.where(random.random(300) < 0.6, 0, random.integers(0, 9, 300))[kind]
    centrality = random.integers(0, 100, 300)[kind] / 100
    found, partner = duplication(images, np.arange(300), cluster, centrality)
    largest, expected = by_hand(images, cluster, centrality)
    np.testing.assert_allclose(found, largest, atol=1e-12)
    np.testing.assert_array_equal(partner, expected)


def test_images_closer_than_float32_can_tell_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "TILE", 16)
    random = np.random.default_rng(0)
    rows = np.repeat(cone(2, 512), 60, axis=0).astype(float) + random.normal(size=(120, 512)) * 1e-5
    images = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    cluster, centrality = np.zeros(120, int), random.random(120)
    found, partner = duplication(images, np.arange(120), cluster, centrality)
    largest, expected = by_hand(images, cluster, centrality)
    np.testing.assert_allclose(found, largest, rtol=0, atol=1e-13)
    np.testing.assert_array_equal(partner, expected)


def test_equal_images_tie_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "TILE", 8)
    images = cone(40, 512)
    images[np.arange(1, 40, 3)] = images[0]
    images[np.arange(2, 40, 3)] = images[3]
    found, _ = duplication(images, np.arange(40), np.zeros(40, int), np.random.default_rng(0).permutation(40) / 40)
    copies = found[np.arange(1, 40, 3)]
    assert len(set(copies[copies > 0.99].tolist())) == 1


def test_ten_thousand_equal_images_are_not_compared_with_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    multiply = duplicates.raise_largest
    monkeypatch.setattr(duplicates, "raise_largest", lambda *all: compared.append(all[0].size) or multiply(*all))
    images = np.concatenate([np.repeat(cone(1, 16), 10_000, axis=0), cone(50, 16)])
    centrality = np.where(np.arange(10_050) < 10_000, 0.5, np.linspace(0, 1, 10_050))
    duplication(images, np.arange(10_050), np.zeros(10_050, int), centrality)
    assert sum(compared) == 51 * 51


@pytest.mark.parametrize("width", [3, 64, 512, 1024])
def test_a_float32_product_is_no_farther_off_than_its_bound(width: int) -> None:
    rows = cone(200, width)
    exact = rows.astype(float) @ rows.T.astype(float)
    assert np.abs((rows @ rows.T).astype(float) - exact).max() < rounding(width)


def test_the_nearest_of_equal_centroids_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "TILE", 16)
    images, others = cone(70, 33, dtype="float16"), np.tile(cone(9, 33), (3, 1))
    found, products = nearest(images, np.random.default_rng(0).permutation(70), others)
    expected = images.astype(float) @ others[:9].T.astype(float)
    np.testing.assert_array_equal(found, expected.argmax(axis=1))
    np.testing.assert_allclose(products, expected.max(axis=1), atol=1e-12)


def test_one_image_of_each_kind_comes_before_all_copies() -> None:
    kinds = np.eye(4, dtype=np.float32)
    pool = Pool(uid=[f"{i:02d}" for i in range(12)], image_embeddings=kinds[np.arange(12) % 4])
    ranking = METHODS["semdedup"](pool, 12, n_clusters=4)
    assert ranking.order.tolist() == list(range(12))
    np.testing.assert_allclose(ranking.gains, [0] * 4 + [-1] * 8)
    assert ranking.reasons["partner"].tolist() == [-1] * 4 + [0, 1, 2, 3] * 2


def test_hard_images_stay_in_one_cluster_by_hand() -> None:
    # The centroid of A, A and C lies nearest to A: C comes first, then one A, then its copy.
    pool = Pool(uid=["x", "y", "z"], image_embeddings=[A, A, C])
    ranking = METHODS["semdedup"](pool, 3, n_clusters=1)
    assert ranking.order.tolist() == [2, 0, 1]
    assert ranking.reasons["partner"].tolist() == [-1, 2, 0]
    np.testing.assert_allclose(ranking.gains, [0, -0.5, -1], atol=1e-6)
    assert implied_epsilon(ranking.gains[1]) == pytest.approx(0.5)


def test_a_partner_is_as_similar_as_the_gain_says_and_comes_from_the_pool_in_any_order(pools: SimpleNamespace) -> None:
    pool = pools.with_equal_rows(pools.random(2, [90], width=8), 0)
    whole = METHODS["semdedup"](pool, 90, n_clusters=4)
    partner, duplicated = whole.reasons["partner"], whole.gains < 0
    images = pool.image_embeddings.astype(float)
    similarity = (images[whole.order] * images[partner]).sum(axis=1)
    np.testing.assert_allclose(similarity[duplicated], -whole.gains[duplicated], atol=1e-6)
    assert (partner[~duplicated] == -1).all()
    shuffled = pools.rows_of(pool, np.random.default_rng(0).permutation(90))
    other = METHODS["semdedup"](shuffled, 90, n_clusters=4).reasons["partner"]
    np.testing.assert_array_equal(shuffled.uid[other][duplicated], pool.uid[partner][duplicated])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_number_of_cores_changes_nothing(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = cone(20_000, 96, copies=0.1, dtype=dtype)
    pool = Pool(uid=np.random.default_rng(0).permutation(20_000), image_embeddings=images)
    rankings = []
    for cores in (1, 5):
        monkeypatch.setenv("OMP_NUM_THREADS", str(cores))
        rankings.append(METHODS["semdedup"](pool, 20_000, n_clusters=60))
    first, second = rankings
    np.testing.assert_array_equal(first.order, second.order)
    np.testing.assert_array_equal(first.gains, second.gains)
    np.testing.assert_array_equal(first.reasons["partner"], second.reasons["partner"])


def test_float16_ranks_like_the_same_numbers_in_float32() -> None:
    images = cone(2_000, 48, copies=0.2, dtype="float16")
    narrow, wide = (
        METHODS["semdedup"](Pool(uid=np.arange(2_000), image_embeddings=images.astype(dtype)), 2_000)
        for dtype in (np.float16, np.float32)
    )
    np.testing.assert_array_equal(narrow.order, wide.order)
    np.testing.assert_array_equal(narrow.gains, wide.gains)


def test_all_copies_of_an_image_are_found_among_many_clusters() -> None:
    images = cone(3_000, 64)
    images[1_000:] = images[np.arange(2_000) % 1_000]
    pool = Pool(uid=np.random.default_rng(0).permutation(3_000), image_embeddings=images)
    gains = METHODS["semdedup"](pool, 3_000, n_clusters=200).gains
    assert (gains < -0.999).sum() == 2_000


def test_clusters_that_start_empty_are_given_images() -> None:
    # Three starts in four are copies of one image, and only one of them can be the nearest to anything.
    images = np.concatenate([np.repeat(cone(1, 8), 300, axis=0), cone(100, 8)])
    cluster, _ = spherical_kmeans(images, np.arange(400), 40, seed=0)
    assert len(set(cluster.tolist())) > 20


def test_every_prefix_is_what_its_epsilon_keeps(pools: SimpleNamespace) -> None:
    pool = pools.random(1, [80], width=4)
    ranking = METHODS["semdedup"](pool, 80, n_clusters=3)
    largest = np.empty(80)
    largest[ranking.order] = -ranking.gains
    for budget in (10, 40, 79):
        if ranking.gains[budget] < ranking.gains[budget - 1]:
            kept = np.flatnonzero(largest <= 1 - implied_epsilon(ranking.gains[budget - 1]))
            assert set(kept) == set(ranking.order[:budget])


def test_the_epsilon_curve_counts_the_pairs_that_stay() -> None:
    gains = np.array([0, -0.25, -0.5, -0.75, -1], np.float32)
    assert epsilon_curve(gains, epsilons=[0, 0.1, 0.25, 0.3, 0.5, 0.75, 1]).tolist() == [5, 4, 4, 3, 3, 2, 1]


def test_the_epsilon_curve_falls_along_its_ladder(pools: SimpleNamespace) -> None:
    gains = METHODS["semdedup"](pools.random(3, [200], width=8), 200).gains
    curve = epsilon_curve(gains)
    assert curve.shape == (len(EPSILONS),) == (10,)
    assert curve.dtype == np.int64
    assert (np.diff(curve) <= 0).all()
    assert curve[-1] == (gains >= np.float32(0.512 - 1)).sum()


@pytest.mark.parametrize("n_clusters", [0, 4, -1])
def test_clusters_are_at_most_the_pairs(n_clusters: int) -> None:
    pool = Pool(uid=["x", "y", "z"], image_embeddings=[A, B, C])
    with pytest.raises(ValueError, match=f"n_clusters is {n_clusters}"):
        METHODS["semdedup"](pool, 1, n_clusters=n_clusters)


def test_a_pool_of_one_pair_is_one_cluster() -> None:
    assert METHODS["semdedup"](Pool(uid=["x"], image_embeddings=[A]), 1).gains.tolist() == [0]
