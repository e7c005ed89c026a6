"""The pool becomes rankings, one for each method: every subset is the head of one."""

import dataclasses
from typing import Any
from urllib.parse import urlencode

import dagster as dg
import numpy as np
import pyarrow as pa

from clipcov_assets.assets.checkpoints import PARTIAL, trainings_table
from clipcov_assets.assets.groups import GPU_POOL, RANKINGS
from clipcov_assets.assets.previews import SHOWN_PAIRS, preview_of_pool
from clipcov_assets.assets.road_asset import road_asset
from clipcov_assets.automation import reselect
from clipcov_assets.core import Pool, Ranking
from clipcov_assets.core.greedy import ClassRankings, accelerator, merge_class_rankings, rank_classes
from clipcov_assets.core.selection.semdedup import EPSILONS, epsilon_curve
from clipcov_assets.methods import COMPARED
from clipcov_assets.partitions import (
    class_shards,
    crawl_by_shard,
    crawls,
    dimension,
    of_crawl,
    the_crawl,
)
from clipcov_assets.pool_tables import CLASS_EMBEDDINGS, PooledClasses, load_pool, places_of
from clipcov_assets.provenance import Input, content_version, latest_input, legible, materialized
from clipcov_assets.scales import SCALE, code_version
from clipcov_assets.subset_pairs import pairs_of_pool
from clipcov_assets.tables import CLASS_RANKING, column_schema, ranking_schema
from resources.clip_encoder import ClipEncoder
from resources.compute import Compute
from resources.lance_store import LanceStore
from resources.report_shelf import ReportShelf

SHOWN_CLASSES = 20
# Columns of the core's Pool that are not made from the pool's own tables, and the assets that each is made from.
OPTIONAL_COLUMNS = {"captions": ("raw_pairs",), "partial_clip_score": ("raw_pairs", "partial_checkpoint")}


@road_asset(
    partitions_def=crawl_by_shard,
    deps=[dg.AssetDep("pool", partition_mapping=the_crawl)],
    group_name=RANKINGS,
    kinds={"lancedb", "numba"},
    stage="rank",
    method="clipcov",
    code_version=code_version(2, SCALE.method_parameters.get("clipcov"), SCALE.class_shards),
    automation_condition=reselect,
    pool=GPU_POOL,
    metadata={"dagster/column_schema": column_schema(CLASS_RANKING)},
)
def clipcov_class_ranking(
    context: dg.AssetExecutionContext, store: LanceStore, compute: Compute
) -> dg.MaterializeResult:
    """The greedy order inside each latent class of one shard, with the gain of every pick.

    With the class means fixed, ClipCov's objective is a sum over the classes, so each class is ranked alone and
    shards can run anywhere. A shard is a run of neighbouring classes, which lie together in the tables.
    """
    crawl, shard = dimension(context, "crawl"), dimension(context, "shard")
    pooled = PooledClasses(store, crawl)
    classes = np.array_split(np.arange(len(pooled.class_embeddings)), SCALE.class_shards)[
        class_shards.get_partition_keys().index(shard)
    ].tolist()
    runs = pooled.runs(classes)
    picks = CLASS_RANKING.empty_table()
    if runs:
        ranked = rank_classes(
            runs,
            pooled.load,
            pooled.statistics,
            pooled.class_embeddings,
            device=_ranking_device(compute),
            **_own_parameters("clipcov"),
        )
        picks = _class_picks(ranked, store.read("pool", crawl, ["uid"])["uid"])
    written = store.write("clipcov_class_ranking", context.partition_key, picks)
    return materialized(
        written,
        content_version(picks),
        inputs=(latest_input(context, "pool", crawl),),
        metadata={
            "classes": len(classes),
            "classes_with_pairs": sum(map(len, runs)),
            "pairs": len(picks),
            "largest_classes": _largest_classes(store, crawl, picks),
        },
    )


def ranking_asset(method: str) -> dg.AssetsDefinition:
    """The ranking of one method as an asset."""
    extra = [asset for column in COMPARED[method].reads for asset in OPTIONAL_COLUMNS.get(column, ())]
    source = dg.AssetDep("clipcov_class_ranking", partition_mapping=the_crawl) if method == "clipcov" else "pool"

    @road_asset(
        name=f"{method}_ranking",
        partitions_def=crawls,
        deps=[source, *extra],
        group_name=RANKINGS,
        kinds={"lancedb"},
        stage="rank",
        method=method,
        code_version=code_version(1, SCALE.method_parameters.get(method), SCALE.seed),
        automation_condition=reselect,
        pool=GPU_POOL if "partial_clip_score" in COMPARED[method].reads else None,
        metadata={"dagster/column_schema": column_schema(ranking_schema(COMPARED[method].reasons))},
        description=(
            f"Every pair of the pool in the order in which {method} picks it, with the gain of each pick.\n\n"
            f"{COMPARED[method].summary} Every subset size is a head of this order; equal gains go to the smaller uid."
        ),
    )
    def ranking(
        context: dg.AssetExecutionContext,
        store: LanceStore,
        encoder: ClipEncoder,
        compute: Compute,
        shelf: ReportShelf,
    ) -> dg.MaterializeResult:
        crawl = context.partition_key
        if method == "clipcov":
            rows, ranked, inputs = _merged(context, store, crawl)
        else:
            pool = _pool(COMPARED[method].reads, store, crawl, encoder, compute)
            ranked = COMPARED[method](pool, len(pool), seed=SCALE.seed, **_own_parameters(method))
            rows = _ranking_table(pa.array(pool.uid), ranked, COMPARED[method].reasons)
            inputs = [latest_input(context, asset, crawl) for asset in ("pool", *extra)]
        written = store.write(f"{method}_ranking", crawl, rows)
        return materialized(
            written,
            content_version(rows),
            inputs,
            metadata={
                "pairs": len(rows),
                **_gain_quantiles(ranked),
                **_curve(method, ranked),
                **_first_picks(store, shelf, method, crawl, rows),
            },
        )

    return ranking


def _ranking_device(compute: Compute) -> str | None:
    """The GPU that ranks, or None for the cores."""
    if compute.device == "auto":
        return accelerator()
    return None if compute.device == "cpu" else compute.resolved_device()


def _own_parameters(method: str) -> dict[str, Any]:
    return dict(SCALE.method_parameters.get(method, {}))


def _pool(columns: tuple[str, ...], store: LanceStore, crawl: str, encoder: ClipEncoder, compute: Compute) -> Pool:
    """The pool with the columns that a method reads."""
    from clipcov_assets.core.encoding import preparation
    from clipcov_assets.jobs.embed import PairEncoder
    from clipcov_assets.jobs.training_pairs import TrainingPairs, clip_scores_of

    pool = load_pool(store, crawl, [column for column in columns if column != "partial_clip_score"])
    if "partial_clip_score" not in columns:
        return pool
    weights = store.read(trainings_table(PARTIAL), crawl, ["weights"])["weights"][0].as_py()
    model = PairEncoder.on(compute, encoder.load(SCALE.architecture, weights))
    pairs = TrainingPairs(
        pairs_of_pool(store, crawl),
        preparation(model.clip),
        workers=compute.resolved_workers(),
        cache_bytes=0,
        device=model.device,
    )
    scores = np.empty(len(pool))
    scores[pool.by_uid] = clip_scores_of(model, pairs)
    return dataclasses.replace(pool, partial_clip_score=scores)


def _merged(context: dg.AssetExecutionContext, store: LanceStore, crawl: str) -> tuple[pa.Table, Ranking, list[Input]]:
    """The global greedy order out of the class shards: the best head of the class sequences, again and again."""
    shards = [of_crawl(crawl, shard) for shard in class_shards.get_partition_keys()]
    inputs = [latest_input(context, "clipcov_class_ranking", shard) for shard in shards]
    uid = store.read("pool", crawl, ["uid"])["uid"].sort().combine_chunks()
    parts = [_class_rankings(store.read("clipcov_class_ranking", shard), uid) for shard in shards]
    ranked = merge_class_rankings([part for part in parts if len(part.uid)], len(uid), uid=np.arange(len(uid)))
    return _ranking_table(uid, ranked, ()), ranked, inputs


def _class_picks(ranked: ClassRankings, uid: pa.ChunkedArray) -> pa.Table:
    """The order inside each class as rows, which name pairs by their uid and no longer by their row of the pool."""
    first = np.flatnonzero(np.diff(ranked.latent_class, prepend=-1))
    position = np.arange(len(ranked.uid)) - np.repeat(first, np.diff(first, append=len(ranked.uid)))
    return pa.table(
        {
            "uid": uid.take(pa.array(ranked.uid)),
            "latent_class": pa.array(ranked.latent_class, pa.int32()),
            "position": position,
            "gain": ranked.gains,
        },
        schema=CLASS_RANKING,
    )


def _class_rankings(picks: pa.Table, uid: pa.StringArray) -> ClassRankings:
    """The same, read back; pairs are named by their place among the pool's uids, which sorts faster."""
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
    return pa.array(values, pa.string(), mask=values == "")


def _curve(method: str, ranked: Ranking) -> dict[str, dg.TableMetadataValue]:
    """How many pairs SemDeDup would keep at each epsilon: all its subsets at a glance."""
    if method != "semdedup":
        return {}
    kept = epsilon_curve(ranked.gains).tolist()
    records = [dg.TableRecord({"epsilon": one, "kept": count}) for one, count in zip(EPSILONS, kept, strict=True)]
    schema = dg.TableSchema.from_name_type_dict({"epsilon": "float", "kept": "int"})
    return {"epsilon_curve": dg.MetadataValue.table(records, schema=schema)}


def _first_picks(
    store: LanceStore, shelf: ReportShelf, method: str, crawl: str, rows: pa.Table
) -> dict[str, dg.MetadataValue]:
    """The first picks with their gains, and the page that says why the first is the first."""
    first = rows.slice(0, SHOWN_PAIRS).to_pylist()
    notes = {row["uid"]: f"gain {row['gain']:.4g}" for row in first}
    question = urlencode({"uid": first[0]["uid"], "method": method, "crawl": crawl})
    return {
        "first_picks": preview_of_pool(store, crawl, notes),
        "why_the_first": dg.MetadataValue.url(f"{shelf.address('pair')}?{question}"),
    }


def _largest_classes(store: LanceStore, crawl: str, picks: pa.Table) -> dg.TableMetadataValue:
    """The largest classes of a shard with their first and last gain: how much of each a small subset needs."""
    columns = {"latent_class": "string", "pairs": "int", "first_gain": "float", "last_gain": "float"}
    names = store.read(CLASS_EMBEDDINGS, crawl, ["latent_class", "name"])
    name_of = dict(zip(names["latent_class"].to_pylist(), names["name"].to_pylist(), strict=True))
    latent_class, first, sizes = np.unique(picks["latent_class"].to_numpy(), return_index=True, return_counts=True)
    gains = picks["gain"].to_numpy()
    records = [
        dg.TableRecord(
            {
                "latent_class": name_of[int(latent_class[k])],
                "pairs": int(sizes[k]),
                "first_gain": legible(gains[first[k]]),
                "last_gain": legible(gains[first[k] + sizes[k] - 1]),
            }
        )
        for k in np.argsort(-sizes, kind="stable")[:SHOWN_CLASSES]
    ]
    return dg.MetadataValue.table(records, schema=dg.TableSchema.from_name_type_dict(columns))


def _gain_quantiles(ranked: Ranking) -> dict[str, float]:
    """Gains at the head, the middle and the end, which plot over crawls."""
    places = {"gain_first": 0, "gain_middle": len(ranked.gains) // 2, "gain_last": -1}
    return {name: legible(ranked.gains[place]) for name, place in places.items()}
