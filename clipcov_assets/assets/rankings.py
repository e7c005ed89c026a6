"""The pool becomes rankings, one for each method: every subset is the head of one."""

import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import dagster as dg
import numpy as np

from clipcov_assets.assets.checkpoints import PARTIAL
from clipcov_assets.assets.groups import GPU_POOL, RANKINGS
from clipcov_assets.assets.previews import SHOWN_PAIRS, preview_of_pool
from clipcov_assets.assets.road_asset import road_asset
from clipcov_assets.automation import reselect
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
from clipcov_assets.pool_tables import CLASS_EMBEDDINGS, class_names
from clipcov_assets.provenance import latest_input, legible, materialized
from clipcov_assets.scales import SCALE, code_version
from clipcov_assets.tables import CLASS_RANKING, column_schema, ranking_schema, trainings_table
from resources.clip_encoder import ClipEncoder
from resources.compute import Compute
from resources.lance_store import LanceStore, WrittenTable
from resources.report_shelf import ReportShelf

# Columns of the core's Pool that are not made from the pool's own tables, and the assets that each is made from.
OPTIONAL_COLUMNS = {"captions": ("raw_pairs",), "partial_clip_score": ("raw_pairs", "partial_checkpoint")}


def pool_of_shards(settings: Mapping[str, str]) -> str | None:
    """The pool of Dagster that class shards share: the GPU's where this machine ranks; none where a cluster does.

    A shard is one part of a job, so one at a time would use one worker; which parts fit beside each other Ray knows.

    Args:
        settings: CLIPCOV_COMPUTE and CLIPCOV_RAY_ADDRESS, without which Ray is this machine's own.
    """
    elsewhere = settings.get("CLIPCOV_COMPUTE") == "ray" and settings.get("CLIPCOV_RAY_ADDRESS")
    return None if elsewhere else GPU_POOL


@road_asset(
    partitions_def=crawl_by_shard,
    deps=[dg.AssetDep("pool", partition_mapping=the_crawl)],
    group_name=RANKINGS,
    kinds={"lancedb", "numba"},
    stage="rank",
    method="clipcov",
    code_version=code_version(2, SCALE.method_parameters.get("clipcov"), SCALE.class_shards),
    automation_condition=reselect,
    pool=pool_of_shards(os.environ),
    metadata={"dagster/column_schema": column_schema(CLASS_RANKING)},
)
def clipcov_class_ranking(
    context: dg.AssetExecutionContext, store: LanceStore, compute: Compute
) -> dg.MaterializeResult:
    """The greedy order inside each latent class of one shard, with the gain of every pick.

    With the class means fixed, ClipCov's objective is a sum over the classes, so each class is ranked alone and
    shards can run anywhere. A shard is a run of neighbouring classes, which lie together in the tables.
    """
    from clipcov_assets.jobs.rank import RankShard
    from clipcov_assets.jobs.submit import carry_out

    crawl, shard = dimension(context, "crawl"), dimension(context, "shard")
    classes = np.array_split(np.arange(store.row_count(CLASS_EMBEDDINGS, crawl)), SCALE.class_shards)[
        class_shards.get_partition_keys().index(shard)
    ].tolist()
    job = RankShard(
        compute=compute,
        crawl=crawl,
        partition=str(context.partition_key),
        classes=classes,
        parameters=_own_parameters("clipcov"),
        store=store,
    )
    made = carry_out(context, job)
    written = WrittenTable(**made["table"])
    return materialized(
        written,
        made["data_version"],
        inputs=(latest_input(context, "pool", crawl),),
        metadata={
            "classes": len(classes),
            "classes_with_pairs": made["classes_with_pairs"],
            "pairs": written.row_count,
            "largest_classes": _largest_classes(store, crawl, made["largest"]),
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
        from clipcov_assets.jobs.rank import RankPool
        from clipcov_assets.jobs.submit import carry_out

        crawl, shards, partial = context.partition_key, [], None
        inputs = [latest_input(context, asset, crawl) for asset in ("pool", *extra)]
        if method == "clipcov":
            shards = [of_crawl(crawl, shard) for shard in class_shards.get_partition_keys()]
            inputs = [latest_input(context, "clipcov_class_ranking", shard) for shard in shards]
        if "partial_clip_score" in COMPARED[method].reads:
            (weights,) = store.read(trainings_table(PARTIAL), crawl, ["weights"])["weights"].to_pylist()
            partial = (SCALE.architecture, weights)
        job = RankPool(
            compute=compute,
            crawl=crawl,
            method=method,
            parameters=_own_parameters(method),
            seed=SCALE.seed,
            shards=shards,
            store=store,
            encoder=encoder,
            partial=partial,
        )
        made = carry_out(context, job)
        written = WrittenTable(**made["table"])
        return materialized(
            written,
            made["data_version"],
            inputs,
            metadata={
                "pairs": written.row_count,
                **{f"gain_{place}": legible(gain) for place, gain in made["gains"].items()},
                **_curve(method, store, crawl),
                **_first_picks(store, shelf, method, crawl),
            },
        )

    return ranking


def _own_parameters(method: str) -> dict[str, Any]:
    return dict(SCALE.method_parameters.get(method, {}))


def _curve(method: str, store: LanceStore, crawl: str) -> dict[str, dg.TableMetadataValue]:
    """How many pairs SemDeDup would keep at each epsilon: all its subsets at a glance."""
    if method != "semdedup":
        return {}
    kept = epsilon_curve(store.read("semdedup_ranking", crawl, ["gain"])["gain"].to_numpy()).tolist()
    records = [dg.TableRecord({"epsilon": one, "kept": count}) for one, count in zip(EPSILONS, kept, strict=True)]
    schema = dg.TableSchema.from_name_type_dict({"epsilon": "float", "kept": "int"})
    return {"epsilon_curve": dg.MetadataValue.table(records, schema=schema)}


def _first_picks(store: LanceStore, shelf: ReportShelf, method: str, crawl: str) -> dict[str, dg.MetadataValue]:
    """The first picks with their gains, and the page that says why the first is the first."""
    ranking = store.rows(f"{method}_ranking", crawl)
    first = ranking.slice(0, min(SHOWN_PAIRS, len(ranking)), ["uid", "gain"]).to_pylist()
    notes = {row["uid"]: f"gain {row['gain']:.4g}" for row in first}
    question = urlencode({"uid": first[0]["uid"], "method": method, "crawl": crawl})
    return {
        "first_picks": preview_of_pool(store, crawl, notes),
        "why_the_first": dg.MetadataValue.url(f"{shelf.address('pair')}?{question}"),
    }


def _largest_classes(store: LanceStore, crawl: str, largest: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """The largest classes of a shard with their first and last gain: how much of each a small subset needs."""
    columns = {"latent_class": "string", "pairs": "int", "first_gain": "float", "last_gain": "float"}
    names = class_names(store, crawl)
    records = [
        dg.TableRecord(
            {
                "latent_class": names[one["latent_class"]],
                "pairs": one["pairs"],
                "first_gain": legible(one["first_gain"]),
                "last_gain": legible(one["last_gain"]),
            }
        )
        for one in largest
    ]
    return dg.MetadataValue.table(records, schema=dg.TableSchema.from_name_type_dict(columns))
