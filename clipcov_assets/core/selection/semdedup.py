"""SemDeDup: image embeddings enter, pairs from the most novel to the most duplicated leave."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clipcov_assets.core.cores import core_count
from clipcov_assets.core.pool import Array, Pool
from clipcov_assets.core.ranking import Ranking, check_budget, ranking_from_scores

ITERATIONS = 20
ROWS_AT_ONCE = 4_096  # as many as faiss multiplies at once; fixed, because the bits of its products depend on it
EPSILONS = tuple(0.001 * 2**step for step in range(10))  # 0.001 to 0.512


def rank_by_semdedup(pool: Pool, budget: int, *, seed: int = 0, n_clusters: int | None = None) -> Ranking:
    """Rank pairs by the largest similarity of their image to an earlier one of its cluster, smallest first.

    A cluster is walked from the image farthest from the centroid to the nearest ("hard" examples stay), equal ones
    by uid. Every earlier image counts, whether or not it would be kept itself: in a chain a ~ b ~ c both b and c
    are duplicates. Equal images share a cluster. The ranking depends neither on the order of the rows nor on the
    number of cores; another kind of processor or version of faiss may round a centroid otherwise.

    Args:
        pool: Reads `image_embeddings`. Beside them, memory is a few MB for each core.
        budget: Pairs to rank, 1 <= budget <= n.
        seed: Of the k-means start.
        n_clusters: Clusters of the spherical k-means; sqrt(n) by default.

    Returns:
        `budget` pool rows; gains are minus the largest similarity, which is at least 0: a cluster's first
        has 0. The reason `partner` is the pool row of the earlier image that is so similar, the smaller uid among
        equally similar ones, and -1 where the largest similarity is 0.

    Raises:
        ValueError: `budget` or `n_clusters` out of range, or a missing column.

    Source: Abbas et al. 2023, arXiv:2303.09540.
    """
    check_budget(budget, len(pool))
    (images,) = pool.require("image_embeddings", method="semdedup")
    cluster, centrality = clusters_of(pool, seed=seed, n_clusters=n_clusters)
    largest, partner = duplication(images, pool.uid_rank, cluster, centrality)
    return rank_by_duplication(pool, budget, largest, partner)


def clusters_of(pool: Pool, *, seed: int = 0, n_clusters: int | None = None) -> tuple[Array, Array]:
    """Return the (n,) cluster of each pair's image and its (n,) similarity to the centroid; see `rank_by_semdedup`.

    Raises:
        ValueError: `n_clusters` out of range, or a missing column.
    """
    (images,) = pool.require("image_embeddings", method="semdedup")
    n_clusters = max(1, round(len(pool) ** 0.5)) if n_clusters is None else n_clusters
    if not 1 <= n_clusters <= len(pool):
        raise ValueError(f"n_clusters is {n_clusters}: it must be from 1 to the pool's {len(pool)} pairs")
    return spherical_kmeans(images, pool.by_uid, n_clusters, seed=seed)


def rank_by_duplication(pool: Pool, budget: int, largest: Array, partner: Array) -> Ranking:
    """Rank pairs by what `duplication` found of them, the least duplicated first; ties go to the smaller uid."""
    return ranking_from_scores(pool.uid_rank, -largest, budget, reasons={"partner": partner})


def implied_epsilon(gain: float) -> float:
    """Return the epsilon of SemDeDup that keeps a ranking's prefix, from the gain of the prefix's last pick.

    SemDeDup removes a pair if its largest similarity exceeds 1 - epsilon; ties of the last pick stay with it.
    """
    return 1.0 + float(gain)


def epsilon_curve(gains: Array, *, epsilons: Sequence[float] = EPSILONS) -> NDArray[np.int64]:
    """Return (len(epsilons),) how many pairs of a complete ranking SemDeDup keeps at each epsilon.

    Args:
        gains: (n,) gains of a semdedup ranking of the whole pool.
        epsilons: A pair stays while its largest similarity is at most 1 - epsilon. By default 0.001, doubled up to
            0.512: a ladder that spans the values that SemDeDup was published with.
    """
    rising = np.sort(1.0 + np.asarray(gains, np.float64))
    return len(rising) - np.searchsorted(rising, epsilons, side="left").astype(np.int64)


def duplication(images: Array, uid_rank: Array, cluster: Array, centrality: Array) -> tuple[Array, Array]:
    """Return the largest similarity of each image to an earlier one of its cluster, at least 0, and that image.

    Clusters do not interact, so this may be called with all rows of some of them: the similarities are the same.

    Args:
        images: (n, d) unit rows, float16 or float32.
        uid_rank: (n,) place of each row's uid.
        cluster: (n,) cluster of each row.
        centrality: (n,) similarity to the centroid; the smallest comes first, ties go to the smaller uid.

    Returns:
        (n,) float64 and (n,) int64 rows, -1 where the largest similarity is 0.
    """
    from clipcov_assets.core.duplicates import largest_earlier

    return largest_earlier(images, np.lexsort((uid_rank, centrality, cluster)), uid_rank, cluster)


def spherical_kmeans(images: Array, order: Array, n_clusters: int, *, seed: int) -> tuple[Array, Array]:
    """Return the (n,) cluster of each image and its (n,) float64 similarity to the centroid; every image trains.

    faiss finds the nearest centroids and splits clusters for empty ones. The loop is its k-means, written out
    because that one assigns some rows otherwise on another number of cores. The last assignment is exact, so that
    equal images share a cluster.

    Args:
        images: (n, d) unit rows, float16 or float32.
        order: (n,) all rows, in the order in which they are read.
        n_clusters: At most n.
        seed: Of the first centroids, which are images, and of the splits.
    """
    from faiss.contrib.clustering import reassign_centroids

    from clipcov_assets.core.duplicates import float32_rows, nearest

    random = np.random.default_rng(seed % 2**64)
    centroids = unit(float32_rows(images, order[random.permutation(len(order))[:n_clusters]]))
    for _ in range(ITERATIONS):
        cluster = faiss_nearest(images, order, centroids)
        sums = cluster_sums(images, order, cluster, n_clusters)
        reassign_centroids(np.bincount(cluster, minlength=n_clusters), sums, random)
        centroids = unit(sums)
    return nearest(images, order, centroids)


def faiss_nearest(images: Array, order: Array, centroids: Array) -> Array:
    """Return the (n,) place of the centroid that is most similar to each image, but for the rounding of float32."""
    import faiss

    from clipcov_assets.core.duplicates import float32_rows, on_single_cores

    index = faiss.IndexFlatIP(centroids.shape[1])
    index.add(centroids)
    cluster = np.empty(len(images), np.int64)

    def search(first: int) -> None:
        block = order[first : first + ROWS_AT_ONCE]
        cluster[block] = index.search(float32_rows(images, block), 1)[1][:, 0]

    on_single_cores(search, range(0, len(order), ROWS_AT_ONCE))
    return cluster


def cluster_sums(images: Array, order: Array, cluster: Array, n_clusters: int) -> Array:
    """Return (n_clusters, d) float64 sums of the images of each cluster, added in this order."""
    from clipcov_assets.core import kernels
    from clipcov_assets.core.duplicates import on_single_cores

    sums = np.zeros((n_clusters, images.shape[1]))
    rows, of_order = kernels.readable(images), cluster[order]

    def add(clusters: Array) -> None:
        mine = order[(of_order >= clusters[0]) & (of_order <= clusters[-1])]
        kernels.add_rows(sums, rows, cluster, mine)

    cores = min(core_count(), n_clusters)
    on_single_cores(add, np.array_split(np.arange(n_clusters), cores))
    return sums


def unit(rows: Array) -> Array:
    """Return rows of unit length in float32; a row of zeros stays one."""
    lengths = np.linalg.norm(rows.astype(np.float64, copy=False), axis=1, keepdims=True)
    unit_rows: Array = (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return unit_rows
