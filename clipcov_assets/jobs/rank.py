"""Rankings as jobs: the classes of one shard, and the pool by one method."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from clipcov_assets.core import Pool, Ranking
from clipcov_assets.core.greedy import ClassRankings, accelerator, merge_class_rankings, rank_classes
from clipcov_assets.core.selection import Method
from clipcov_assets.core.selection.semdedup import clusters_of, duplication, rank_by_duplication
from clipcov_assets.jobs.job import Backend, Job, Outcome, Voice
from clipcov_assets.methods import RANKED
from clipcov_assets.pool_tables import PooledClasses, PooledRows, load_pool, places_of
from clipcov_assets.provenance import content_version
from clipcov_assets.subset_pairs import pairs_of_pool
from clipcov_assets.tables import CLASS_RANKING, ranking_schema
from resources.clip_encoder import ClipEncoder
from resources.compute import Compute
from resources.lance_store import LanceStore

SHOWN_CLASSES = 20
PART_PAIRS = 65_536  # clusters are compared together up to so many pairs: a part is worth its way


class RankShard(Job):
    """Ranks inside each latent class of one shard, which is one part.

    Attributes:
        crawl: The pool's.
        partition: Of the shard's ranking.
        classes: Neighbouring latent classes.
        parameters: Of ClipCov.
        store: The tables.
    """

    crawl: str
    partition: str
    classes: list[int]
    parameters: dict[str, Any]
    store: LanceStore

    def run(self, backend: Backend) -> Outcome:
        """Write the order inside each class.

        Returns:
            table, data_version, classes_with_pairs, and the largest classes: number, pairs, first and last gain.

        Raises:
            ValueError: A pair is not in its crawl's table, or an embedding is not finite or not of unit length.
        """
        ((_, outcome),) = backend.each(self, [self.partition])
        return dict(outcome)

    def parts(self, items: Sequence[str], voice: Voice) -> Iterator[Outcome]:
        """Rank, and write the table."""
        for partition in items:
            pooled = PooledClasses(self.store, self.crawl)
            runs = pooled.runs(self.classes)
            picks = self._picks(pooled, runs) if runs else CLASS_RANKING.empty_table()
            written = self.store.write("clipcov_class_ranking", partition, picks)
            yield {
                "table": asdict(written),
                "data_version": content_version(picks),
                "classes_with_pairs": sum(map(len, runs)),
                "largest": _largest(picks),
            }

    def _picks(self, pooled: PooledClasses, runs: list[list[int]]) -> pa.Table:
        """The order inside each class as rows, which name pairs by their uid and no longer by their row of the pool."""
        ranked = rank_classes(
            runs,
            pooled.load,
            pooled.statistics,
            pooled.class_embeddings,
            device=_ranking_device(self.compute),
            **self.parameters,
        )
        start = int(ranked.uid.min())
        uid = self.store.rows("pool", self.crawl).slice(start, int(ranked.uid.max()) - start + 1, ["uid"])["uid"]
        first = np.flatnonzero(np.diff(ranked.latent_class, prepend=-1))
        position = np.arange(len(ranked.uid)) - np.repeat(first, np.diff(first, append=len(ranked.uid)))
        return pa.table(
            {
                "uid": uid.take(pa.array(ranked.uid - start)),
                "latent_class": pa.array(ranked.latent_class, pa.int32()),
                "position": position,
                "gain": ranked.gains,
            },
            schema=CLASS_RANKING,
        )


class RankPool(Job):
    """Ranks a pool by one method. SemDeDup's clusters are its parts; the other methods are one pass over the pool.

    Attributes:
        crawl: The pool's.
        method: Its name.
        parameters: Of the method.
        seed: Of the method.
        shards: Partitions of ClipCov's class rankings, which its ranking is merged from.
        store: The tables.
        encoder: Loads the model that C-RHO compares the proxy with.
        partial: Architecture and weights of that model.
    """

    crawl: str
    method: str
    parameters: dict[str, Any]
    seed: int
    shards: list[str]
    store: LanceStore
    encoder: ClipEncoder
    partial: tuple[str, str] | None = None

    @property
    def divides(self) -> bool:
        """Only SemDeDup does."""
        return self.method == "semdedup"

    @property
    def gpus(self) -> int:
        """None: clusters are compared on the cores."""
        return 0

    @cached_property
    def rows(self) -> PooledRows:
        """The pool's pairs in the tables of their crawls."""
        return PooledRows(self.store, self.crawl, "latent_classes")

    def run(self, backend: Backend) -> Outcome:
        """Write the ranking.

        Returns:
            table, data_version, and the gains of the first, the middle and the last pick.

        Raises:
            ValueError: A table that is damaged or of another pool; the message names it.
        """
        reasons = self._method.reasons
        if self.method == "clipcov":
            uid, ranked = self._merged()
        else:
            pool = self._pool()
            uid, ranked = pa.array(pool.uid, pa.large_string()), self._ranked(pool, backend)
        rows = _ranking_table(uid, ranked, reasons)
        gains = ranked.gains
        return {
            "table": asdict(self.store.write(f"{self.method}_ranking", self.crawl, rows)),
            "data_version": content_version(rows),
            "gains": {"first": float(gains[0]), "middle": float(gains[len(gains) // 2]), "last": float(gains[-1])},
        }

    def parts(self, items: Sequence[tuple[Any, ...]], voice: Voice) -> Iterator[tuple[Any, Any]]:
        """Compare the images of some clusters: largest similarity of each to an earlier one, and that one's row."""
        for table, row, *walked in items:
            yield duplication(self.rows.take(table, row, "image_embedding"), *walked)

    @property
    def _method(self) -> Method:
        return RANKED[self.method]

    def _ranked(self, pool: Pool, backend: Backend) -> Ranking:
        if self.method != "semdedup":
            return self._method(pool, len(pool), seed=self.seed, **self.parameters)
        cluster, centrality = clusters_of(pool, seed=self.seed, **self.parameters)
        largest, partner = np.zeros(len(pool)), np.full(len(pool), -1)
        shares = list(_shares(cluster))
        table, row = self.rows.places
        items = [
            (table[some], row[some], _dense(pool.uid_rank[some]), cluster[some], centrality[some]) for some in shares
        ]
        for place, (found, names) in backend.each(self, items):
            some = shares[place]
            largest[some] = found
            partner[some] = np.where(names < 0, -1, some[names])
        return rank_by_duplication(pool, len(pool), largest, partner)

    def _pool(self) -> Pool:
        """The pool with the columns that the method reads."""
        reads = self._method.reads
        pool = load_pool(self.store, self.crawl, [column for column in reads if column != "partial_clip_score"])
        if self.partial is None:
            return pool
        return dataclasses.replace(pool, partial_clip_score=self._partial_scores(pool, *self.partial))

    def _partial_scores(self, pool: Pool, architecture: str, weights: str) -> np.ndarray:
        from clipcov_assets.core.encoding import preparation
        from clipcov_assets.jobs.embed import PairEncoder
        from clipcov_assets.jobs.training_pairs import TrainingPairs, clip_scores_of

        compute = self.compute.here()
        model = PairEncoder.on(compute, self.encoder.load(architecture, weights))
        pairs = TrainingPairs(
            pairs_of_pool(self.store, self.crawl),
            preparation(model.clip),
            workers=compute.resolved_workers(),
            cache_bytes=0,
            device=model.device,
        )
        scores = np.empty(len(pool))
        scores[pool.by_uid] = clip_scores_of(model, pairs)
        return scores

    def _merged(self) -> tuple[pa.Array, Ranking]:
        """The global greedy order out of the class shards: the best head of the class sequences, again and again."""
        uid = self.store.read("pool", self.crawl, ["uid"])["uid"].sort().combine_chunks()
        parts = [_class_rankings(self.store.read("clipcov_class_ranking", shard), uid) for shard in self.shards]
        ranked = merge_class_rankings([part for part in parts if len(part.uid)], len(uid), uid=np.arange(len(uid)))
        return uid, ranked


def _ranking_device(compute: Compute) -> str | None:
    """The GPU that ranks, or None for the cores."""
    if compute.device == "auto":
        return accelerator()
    return None if compute.device == "cpu" else compute.settled().device


def _shares(cluster: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of the pool by whole clusters, neighbouring ones together."""
    order = np.argsort(cluster, kind="stable")
    ends = np.cumsum(np.bincount(cluster))
    start = 0
    while start < len(order):
        one, most = np.searchsorted(ends, (start, start + PART_PAIRS), "right")
        end = int(ends[max(one, most - 1)])  # at least one cluster, however large
        yield order[start:end]
        start = end


def _dense(rank: np.ndarray) -> np.ndarray:
    """Places of some rows of the pool among each other."""
    dense = np.empty(len(rank), np.int64)
    dense[np.argsort(rank)] = np.arange(len(rank))
    return dense


def _largest(picks: pa.Table) -> list[dict[str, Any]]:
    """The largest classes of a shard with their first and last gain."""
    latent_class, first, sizes = np.unique(picks["latent_class"].to_numpy(), return_index=True, return_counts=True)
    gains = picks["gain"].to_numpy()
    return [
        {
            "latent_class": int(latent_class[k]),
            "pairs": int(sizes[k]),
            "first_gain": float(gains[first[k]]),
            "last_gain": float(gains[first[k] + sizes[k] - 1]),
        }
        for k in np.argsort(-sizes, kind="stable")[:SHOWN_CLASSES]
    ]


def _class_rankings(picks: pa.Table, uid: pa.LargeStringArray) -> ClassRankings:
    """A shard's picks read back; pairs are named by their place among the pool's uids, which sorts faster."""
    picks = picks.sort_by([("latent_class", "ascending"), ("position", "ascending")])
    return ClassRankings(
        uid=places_of(picks["uid"], pa.chunked_array([uid]), "the pool").to_numpy(),
        latent_class=picks["latent_class"].to_numpy().astype(np.int64),
        gains=picks["gain"].to_numpy(),
    )


def _ranking_table(uid: pa.Array, ranked: Ranking, reasons: tuple[str, ...]) -> pa.Table:
    columns = {"uid": uid.take(pa.array(ranked.order)), "rank": np.arange(len(ranked.order)), "gain": ranked.gains}
    return pa.table(
        {**columns, **{name: _reason(uid, ranked.reasons[name]) for name in reasons}}, schema=ranking_schema(reasons)
    )


def _reason(uid: pa.Array, values: np.ndarray) -> pa.Array:
    """What a method knows of each pick as strings, null where there is nothing; rows of the pool become uids."""
    if values.dtype.kind == "i":
        return uid.take(pa.array(values, mask=values < 0))
    return pa.array(values, pa.large_string(), mask=values == "")
