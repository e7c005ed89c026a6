"""Pairs become unit rows under the proxy."""

from collections.abc import Iterator

import dagster as dg
import numpy as np
import pyarrow as pa

from clipcov_assets.assets.groups import CRAWLS, OWNERS
from clipcov_assets.automation import when_inputs_change
from clipcov_assets.core.similarity import clip_scores
from clipcov_assets.partitions import crawls
from clipcov_assets.pool_tables import list_column
from clipcov_assets.provenance import content_version, latest_input, materialized
from clipcov_assets.scales import SCALE, code_version
from clipcov_assets.tables import column_schema, embeddings_schema
from resources.clip_encoder import ClipEncoder
from resources.compute import Compute
from resources.lance_store import LanceStore

PROXY = "proxy_sha256"


@dg.asset(
    partitions_def=crawls,
    deps=["raw_pairs", "proxy_checkpoint"],
    group_name=CRAWLS,
    owners=OWNERS,
    kinds={"lancedb", "pytorch"},
    tags={"clipcov/stage": "embed"},
    code_version=code_version(2, SCALE.proxy),
    automation_condition=when_inputs_change,
)
def embeddings(
    context: dg.AssetExecutionContext, store: LanceStore, encoder: ClipEncoder, compute: Compute
) -> dg.MaterializeResult:
    """Image and text embeddings of one crawl under the proxy, as unit rows in float16.

    Also the CLIP score of each pair: the cosine of its image with its caption. The table records the proxy's
    sha256, and a pool refuses crawls that were embedded with different proxies.
    """
    from clipcov_assets.core.clip_model import weights_sha256
    from clipcov_assets.jobs.embed import embed_crawl

    crawl = context.partition_key
    clip = encoder.load(SCALE.proxy.architecture, encoder.path("proxy_checkpoint"))
    sha256 = weights_sha256(clip.model)
    width = _width(clip.architecture)
    tally = _Tally()
    batches = tally.batches(embed_crawl(clip, store, crawl, compute), width)
    rows = pa.RecordBatchReader.from_batches(embeddings_schema(width), batches)
    written = store.write("embeddings", crawl, rows, metadata={PROXY: sha256})
    scores = np.concatenate(tally.scores)
    context.log.info(f"{crawl}: {written.row_count} pairs embedded, mean CLIP score {scores.mean():.3f}")
    return materialized(
        written,
        content_version(sha256, *tally.digests),
        inputs=(latest_input(context, "raw_pairs", crawl), latest_input(context, "proxy_checkpoint", None)),
        metadata={
            PROXY: sha256,
            "width": width,
            "dagster/column_schema": column_schema(embeddings_schema(width)),
            "mean_clip_score": float(scores.mean()),
            "lowest_clip_score": float(scores.min()),
            "highest_clip_score": float(scores.max()),
        },
    )


class _Tally:
    """Keeps scores and digests while the rows stream into the store."""

    def __init__(self) -> None:
        self.scores: list[np.ndarray] = []
        self.digests: list[str] = []

    def batches(
        self, embedded: Iterator[tuple[list[str], np.ndarray, np.ndarray]], width: int
    ) -> Iterator[pa.RecordBatch]:
        for uid, image, text in embedded:
            image, text = image.astype(np.float16), text.astype(np.float16)
            # The score of the rows as stored, so that whoever reads them finds the same number.
            score = clip_scores(image, text)
            self.scores.append(score)
            self.digests.append(content_version("\n".join(uid), image, text))
            yield pa.RecordBatch.from_arrays(
                [pa.array(uid), list_column(image), list_column(text), pa.array(score)],
                schema=embeddings_schema(width),
            )


def _width(architecture: str) -> int:
    import open_clip

    return int(open_clip.get_model_config(architecture)["embed_dim"])
