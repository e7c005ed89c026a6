"""SemDeDup: image embeddings enter, pairs from the most novel to the most duplicated leave."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from clipcov_assets.core.pool import Array, Pool
from clipcov_assets.core.ranking import Ranking, check_budget, ranking_from_scores
from clipcov_assets.core.similarity import clip_scores

ITERATIONS = 20


def rank_by_semdedup(pool: Pool, budget: int, *, seed: int = 0, n_clusters: int | None = None) -> Ranking:
    """Rank pairs by the largest similarity of their image to an earlier one of its cluster, smallest first.

    A cluster is walked from the image farthest from the centroid to the nearest ("hard" examples stay).
    Every earlier image counts, whether or not it would be kept itself: in a chain a ~ b ~ c both b and c
    are duplicates.

    Args:
        pool: Reads `image_embeddings`.
        budget: Pairs to rank, 1 <= budget <= n.
        seed: Of the k-means start.
        n_clusters: Clusters of the spherical k-means; sqrt(n) by default.

    Returns:
        `budget` pool rows; gains are minus the largest similarity, which is at least 0: a cluster's first
        has 0.

    Raises:
        ValueError: `budget` or `n_clusters` out of range, or a missing column.

    Source: Abbas et al. 2023, arXiv:2303.09540.
    """
    check_budget(budget, len(pool))
    (images,) = pool.require("image_embeddings", method="semdedup")
    n_clusters = max(1, round(len(pool) ** 0.5)) if n_clusters is None else n_clusters
    if not 1 <= n_clusters <= len(pool):
        raise ValueError(f"n_clusters is {n_clusters}: it must be from 1 to the pool's {len(pool)} pairs")
    rows = images[pool.by_uid].astype(np.float32)
    cluster, centroids = spherical_kmeans(rows, n_clusters, seed=seed)
    scores = np.empty(len(pool))
    scores[pool.by_uid] = -duplication(rows, cluster, clip_scores(rows, centroids[cluster]))
    return ranking_from_scores(pool.uid_rank, scores, budget)


def implied_epsilon(gain: float) -> float:
    """Return the epsilon of SemDeDup that keeps a ranking's prefix, from the gain of the prefix's last pick.

    SemDeDup removes a pair if its largest similarity exceeds 1 - epsilon; ties of the last pick stay with it.
    """
    return 1.0 + float(gain)


def duplication(rows: Array, cluster: Array, centrality: Array) -> Array:
    """Return (n,) the largest similarity of each row to an earlier row of its cluster, at least 0.

    Args:
        rows: (n, d) float32 unit rows.
        cluster: (n,) cluster of each row.
        centrality: (n,) similarity to the centroid; the smallest comes first, ties go to the earlier row.
    """
    from clipcov_assets.core import kernels

    walk = np.lexsort((centrality, cluster))
    walks = np.split(walk, np.flatnonzero(np.diff(cluster[walk])) + 1)
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        found = list(executor.map(lambda members: kernels.largest_earlier(rows[members]), walks))
    largest = np.empty(len(rows))
    largest[walk] = np.concatenate(found)
    return largest


def spherical_kmeans(rows: Array, n_clusters: int, *, seed: int) -> tuple[Array, Array]:
    """Return the (n,) cluster of each row and the (n_clusters, d) unit centroids; every row trains."""
    import faiss

    kmeans = faiss.Kmeans(
        rows.shape[1],
        n_clusters,
        niter=ITERATIONS,
        spherical=True,
        seed=seed % 2**31,
        min_points_per_centroid=1,
        max_points_per_centroid=len(rows),
    )
    kmeans.train(rows)
    _, nearest = kmeans.index.search(rows, 1)
    return nearest[:, 0], np.asarray(kmeans.centroids)
