"""Pairs become unit rows under the proxy."""

from collections.abc import Sequence

import dagster as dg
import numpy as np

from clipcov_assets.assets.groups import CRAWLS, GPU_POOL
from clipcov_assets.assets.previews import preview
from clipcov_assets.assets.road_asset import road_asset
from clipcov_assets.automation import when_inputs_change
from clipcov_assets.partitions import crawls
from clipcov_assets.provenance import latest_input, legible, materialized
from clipcov_assets.scales import SCALE, PretrainedProxy, code_version
from clipcov_assets.tables import PROXY_SHA256, column_schema, embeddings_schema
from resources.clip_encoder import ClipEncoder
from resources.compute import Compute
from resources.lance_store import LanceStore, StoredRows, WrittenTable
from resources.staging import Staging


@road_asset(
    partitions_def=crawls,
    deps=["raw_pairs", "proxy_checkpoint"],
    group_name=CRAWLS,
    kinds={"lancedb", "pytorch"},
    stage="embed",
    code_version=code_version(3, SCALE.proxy),
    automation_condition=when_inputs_change,
    pool=GPU_POOL,
)
def embeddings(
    context: dg.AssetExecutionContext, store: LanceStore, staging: Staging, encoder: ClipEncoder, compute: Compute
) -> dg.MaterializeResult:
    """Image and text embeddings of one crawl under the proxy, as unit rows in float16.

    Also the CLIP score of each pair: the cosine of its image with its caption. Only pairs that no crawl has brought
    before are embedded, and a run that was broken off goes on where it was. Embeddings that came with the delivery are
    taken over after a spot check. The table records the proxy's sha256, and a pool refuses crawls that were embedded
    with different proxies.
    """
    from clipcov_assets.jobs.embed_crawl import EmbedCrawl
    from clipcov_assets.jobs.submit import carry_out

    crawl = context.partition_key
    pairs = store.rows("raw_pairs", crawl)
    job = EmbedCrawl(
        compute=compute,
        crawl=crawl,
        version=pairs.version,
        architecture=SCALE.proxy.architecture,
        weights=encoder.path("proxy_checkpoint"),
        proxy=_proxy(),
        store=store,
        staging=staging,
        encoder=encoder,
    )
    made = carry_out(context, job)
    written = WrittenTable(**made["table"])
    context.log.info(f"{crawl}: {written.row_count} pairs, {made['origin']}, mean CLIP score {made['mean']:.3f}")
    return materialized(
        written,
        made["data_version"],
        inputs=(latest_input(context, "raw_pairs", crawl), latest_input(context, "proxy_checkpoint", None)),
        metadata={
            PROXY_SHA256: made[PROXY_SHA256],
            "width": made["width"],
            "precision": made["precision"],
            **made["origin"],
            "dagster/column_schema": column_schema(embeddings_schema(made["width"])),
            "mean_clip_score": legible(made["mean"]),
            "lowest_clip_score": legible(made["lowest"]),
            "highest_clip_score": legible(made["highest"]),
            "lowest_scored_pairs": _shown(pairs, *made["lowest_pairs"]),
            "highest_scored_pairs": _shown(pairs, *made["highest_pairs"]),
        },
    )


def _shown(pairs: StoredRows, places: Sequence[int], scores: Sequence[float]) -> dg.MarkdownMetadataValue:
    rows = pairs.take(np.array(places, np.int64), ["image", "caption"]).to_pylist()
    return preview(((row["image"], row["caption"]) for row in rows), (f"{score:.3f}" for score in scores))


def _proxy() -> str:
    if isinstance(SCALE.proxy, PretrainedProxy):
        return f"{SCALE.proxy.architecture} with the weights {SCALE.proxy.weights}"
    return f"{SCALE.proxy.architecture}, trained on the oldest crawl"
