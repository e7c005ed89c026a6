"""The pool becomes rankings, one for each method: every subset is the head of one."""

import dataclasses
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa

from clipcov_assets.assets.groups import OWNERS, RANKINGS
from clipcov_assets.automation import when_inputs_change
from clipcov_assets.core import METHODS, Pool, Ranking
from clipcov_assets.core.greedy import ClassRankings, merge_class_rankings, rank_within_classes
from clipcov_assets.partitions import (
    class_shards,
    crawl_by_shard,
    crawls,
    dimension,
    of_crawl,
    the_crawl,
)
from clipcov_assets.pool_tables import load_pairs, load_pool, load_statistics
from clipcov_assets.provenance import Input, content_version, latest_input, materialized
from clipcov_assets.scales import SCALE, code_version
from clipcov_assets.tables import CLASS_RANKING, RANKING, column_schema
from resources.clip_encoder import ClipEncoder
from resources.compute import Compute
from resources.lance_store import LanceStore

# Columns of the core's Pool that only some methods read, and the assets that each is made from.
OPTIONAL_COLUMNS = {"captions": ("raw_pairs",), "partial_clip_score": ("raw_pairs", "partial_checkpoint")}


@dg.asset(
    partitions_def=crawl_by_shard,
    deps=[dg.AssetDep("pool", partition_mapping=the_crawl)],
    group_name=RANKINGS,
    owners=OWNERS,
    kinds={"lancedb", "numba"},
    tags={"clipcov/stage": "rank", "clipcov/method": "clipcov"},
    code_version=code_version(1, SCALE.method_parameters.get("clipcov"), SCALE.class_shards),
    automation_condition=when_inputs_change,
    metadata={"dagster/column_schema": column_schema(CLASS_RANKING)},
)
def clipcov_class_ranking(context: dg.AssetExecutionContext, store: LanceStore) -> dg.MaterializeResult:
    """The greedy order inside each latent class of one shard, with the gain of every pick.

    With the class means fixed, ClipCov's objective is a sum over the classes, so each class is ranked alone and
    shards can run anywhere. Class k belongs to shard k modulo the number of shards.
    """
    crawl, shard = dimension(context, "crawl"), dimension(context, "shard")
    statistics = load_statistics(store, crawl)
    classes = range(class_shards.get_partition_keys().index(shard), len(statistics.counts), SCALE.class_shards)
    inhabited = [one for one in classes if statistics.counts[one]]
    picks = CLASS_RANKING.empty_table()
    if inhabited:
        part = load_pool(store, crawl, latent_classes=inhabited)
        picks = _class_picks(rank_within_classes(part, statistics, **_own_parameters("clipcov")))
    written = store.write("clipcov_class_ranking", context.partition_key, picks)
    return materialized(
        written,
        content_version(picks),
        inputs=(latest_input(context, "pool", crawl),),
        metadata={"classes": len(classes), "classes_with_pairs": len(inhabited), "pairs": len(picks)},
    )


def ranking_asset(method: str) -> dg.AssetsDefinition:
    """The ranking of one method as an asset."""
    extra = [asset for column in METHODS[method].reads for asset in OPTIONAL_COLUMNS[column]]
    source = dg.AssetDep("clipcov_class_ranking", partition_mapping=the_crawl) if method == "clipcov" else "pool"

    @dg.asset(
        name=f"{method}_ranking",
        partitions_def=crawls,
        deps=[source, *extra],
        group_name=RANKINGS,
        owners=OWNERS,
        kinds={"lancedb"},
        tags={"clipcov/stage": "rank", "clipcov/method": method},
        code_version=code_version(1, SCALE.method_parameters.get(method), SCALE.seed),
        automation_condition=when_inputs_change,
        metadata={"dagster/column_schema": column_schema(RANKING)},
        description=(
            f"Every pair of the pool in the order in which {method} picks it, with the gain of each pick.\n\n"
            f"{METHODS[method].summary} Every subset size is a head of this order; equal gains go to the smaller uid."
        ),
    )
    def ranking(
        context: dg.AssetExecutionContext, store: LanceStore, encoder: ClipEncoder, compute: Compute
    ) -> dg.MaterializeResult:
        crawl = context.partition_key
        pool = load_pool(store, crawl)
        if method == "clipcov":
            ranked, inputs = _merged(context, store, pool)
        else:
            pool = _with_columns(pool, METHODS[method].reads, store, crawl, encoder, compute)
            ranked = METHODS[method](pool, len(pool), seed=SCALE.seed, **_own_parameters(method))
            inputs = [latest_input(context, asset, crawl) for asset in ("pool", *extra)]
        rows = _ranking_table(pool, ranked)
        written = store.write(f"{method}_ranking", crawl, rows)
        return materialized(
            written,
            content_version(rows),
            inputs,
            metadata={"pairs": len(rows), **_gain_quantiles(ranked)},
        )

    return ranking


def _own_parameters(method: str) -> dict[str, Any]:
    return dict(SCALE.method_parameters.get(method, {}))


def _with_columns(
    pool: Pool,
    columns: tuple[str, ...],
    store: LanceStore,
    crawl: str,
    encoder: ClipEncoder,
    compute: Compute,
) -> Pool:
    """The pool with the optional columns that a method reads."""
    from clipcov_assets.jobs.embed import embed_pairs

    found: dict[str, Any] = {}
    if "captions" in columns:
        found["captions"] = load_pairs(store, crawl, ["caption"])["caption"].to_pylist()
    if "partial_clip_score" in columns:
        clip = encoder.load(SCALE.architecture, encoder.path(f"partial_checkpoint/{crawl}"))
        image, text = embed_pairs(clip, load_pairs(store, crawl, ["caption", "image"]), compute)
        found["partial_clip_score"] = np.einsum("nd,nd->n", image, text)
    return dataclasses.replace(pool, **found)


def _merged(context: dg.AssetExecutionContext, store: LanceStore, pool: Pool) -> tuple[Ranking, list[Input]]:
    """The global greedy order out of the class shards: the best head of the class sequences, again and again."""
    crawl = context.partition_key
    shards = [of_crawl(crawl, shard) for shard in class_shards.get_partition_keys()]
    parts = [_class_rankings(store.read("clipcov_class_ranking", shard)) for shard in shards]
    inputs = [latest_input(context, "clipcov_class_ranking", shard) for shard in shards]
    return merge_class_rankings([part for part in parts if len(part.uid)], len(pool), uid=pool.uid), inputs


def _class_picks(ranked: ClassRankings) -> pa.Table:
    """The order inside each class as rows."""
    first = np.flatnonzero(np.diff(ranked.latent_class, prepend=-1))
    position = np.arange(len(ranked.uid)) - np.repeat(first, np.diff(first, append=len(ranked.uid)))
    return pa.table(
        {
            "uid": ranked.uid,
            "latent_class": pa.array(ranked.latent_class, pa.int32()),
            "position": position,
            "gain": ranked.gains,
        },
        schema=CLASS_RANKING,
    )


def _class_rankings(picks: pa.Table) -> ClassRankings:
    """The same, read back."""
    picks = picks.sort_by([("latent_class", "ascending"), ("position", "ascending")])
    return ClassRankings(
        uid=np.array(picks["uid"].to_pylist()),
        latent_class=picks["latent_class"].to_numpy().astype(np.int64),
        gains=picks["gain"].to_numpy(),
    )


def _ranking_table(pool: Pool, ranked: Ranking) -> pa.Table:
    return pa.table(
        {"uid": pool.uid[ranked.order], "rank": np.arange(len(ranked.order)), "gain": ranked.gains},
        schema=RANKING,
    )


def _gain_quantiles(ranked: Ranking) -> dict[str, float]:
    """Gains at the head, the middle and the end, which plot over crawls."""
    places = {"gain_first": 0, "gain_middle": len(ranked.gains) // 2, "gain_last": -1}
    return {name: float(ranked.gains[place]) for name, place in places.items()}
