"""Pairs become unit rows under the proxy."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pyarrow as pa

from clipcov_assets.assets.groups import CRAWLS, GPU_POOL
from clipcov_assets.assets.previews import SHOWN_PAIRS, preview
from clipcov_assets.assets.road_asset import road_asset
from clipcov_assets.automation import when_inputs_change
from clipcov_assets.core.similarity import clip_scores
from clipcov_assets.partitions import crawls
from clipcov_assets.pool_tables import list_column
from clipcov_assets.provenance import content_version, latest_input, legible, materialized
from clipcov_assets.scales import SCALE, PretrainedProxy, code_version
from clipcov_assets.tables import PROXY_SHA256, column_schema, embeddings_schema
from resources.clip_encoder import ClipEncoder
from resources.compute import Compute
from resources.lance_store import LanceStore, StoredRows
from resources.pieces import Pieces
from resources.staging import Staging

if TYPE_CHECKING:
    from clipcov_assets.jobs.embed import PairEncoder, StoredPairs

LEAST_COSINE = 0.99  # between delivered embeddings and those of the proxy, on the median pair

SHOWN = SHOWN_PAIRS // 2  # pairs of each end of the scores

Rows = tuple[np.ndarray, np.ndarray]


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
    from clipcov_assets.core.encoding import preparation
    from clipcov_assets.jobs.embed import PairEncoder, StoredPairs
    from clipcov_assets.jobs.ready_embeddings import MADE_WITH, delivered_embeddings

    crawl = context.partition_key
    clip = encoder.load(SCALE.proxy.architecture, encoder.path("proxy_checkpoint"))
    model = PairEncoder.on(compute, clip)
    pairs = StoredPairs(store.uri, crawl, store.version("raw_pairs", crawl), preparation(clip))
    delivered = delivered_embeddings(store, crawl, pairs.version)
    width = _width(clip.architecture)
    with staging.pieces("embeddings", crawl) as pieces:
        if delivered is None:
            workers = compute.resolved_workers()
            rows, origin = embed_or_reuse(store, model, pairs, pieces, workers=workers, report=context.log.info)
        else:
            rows, origin = _taken_over(model, pairs, delivered, width)
        scored = ScoredRows(rows, pairs, width)
        made_with = model.made_with if delivered is None else "delivered"
        written = store.write("embeddings", crawl, scored.reader(), {PROXY_SHA256: model.sha256, MADE_WITH: made_with})
    mean = scored.sum / written.row_count
    context.log.info(f"{crawl}: {written.row_count} pairs, {origin}, mean CLIP score {mean:.3f}")
    return materialized(
        written,
        content_version(model.sha256, *scored.digests),
        inputs=(latest_input(context, "raw_pairs", crawl), latest_input(context, "proxy_checkpoint", None)),
        metadata={
            PROXY_SHA256: model.sha256,
            "width": width,
            "precision": model.precision,
            **origin,
            "dagster/column_schema": column_schema(embeddings_schema(width)),
            "mean_clip_score": legible(mean),
            "lowest_clip_score": legible(scored.lowest),
            "highest_clip_score": legible(scored.highest),
            "lowest_scored_pairs": _shown(pairs, *scored.lowest_pairs),
            "highest_scored_pairs": _shown(pairs, *scored.highest_pairs),
        },
    )


def embed_or_reuse(
    store: LanceStore,
    model: "PairEncoder",
    pairs: "StoredPairs",
    pieces: Pieces,
    *,
    workers: int,
    report: Callable[[str], None],
) -> tuple[Iterator[Rows], dict[str, Any]]:
    """Embed the pairs that no crawl has brought before.

    Returns:
        The rows of all pairs, in order, as blocks of image and text embeddings (b, d) float16; and how many were
        embedded, and reused from which crawl.
    """
    from clipcov_assets.jobs.embed import embed_places, piece_rows
    from clipcov_assets.jobs.ready_embeddings import find_known, in_order

    content = pairs.rows.slice(0, len(pairs), ["content"])["content"]
    known = find_known(store, content, model.made_with)
    new = known.new
    keys = embed_places(
        model,
        pairs,
        new,
        content.take(pa.array(new)),
        pieces,
        workers=workers,
        report=report,
    )
    counts = known.counts()
    origin = {"pairs_embedded": len(new), "pairs_reused": sum(counts.values()), "pairs_taken_over": 0}
    reused = {f"reused/{crawl}": count for crawl, count in counts.items()}
    return in_order(known, piece_rows(pieces, keys), _width(model.clip.architecture)), origin | reused


def _taken_over(
    model: "PairEncoder", pairs: "StoredPairs", delivered: StoredRows, width: int
) -> tuple[Iterator[Rows], dict[str, Any]]:
    """Take the delivered embeddings over, if the proxy makes the same ones.

    Raises:
        dagster.Failure: They are of another width, or another model made them.
    """
    from clipcov_assets.jobs.ready_embeddings import delivered_rows, delivered_width, spot_check

    remedies = (
        "set the scale's proxy to the model that made them (clipcov_assets/scales.py), or write "
        '`embeddings = "none"` into delivery.toml in the folder of the delivery to embed its pairs anew'
    )
    found = delivered_width(delivered)
    if found != width:
        raise dg.Failure(
            f"{pairs.crawl} came with embeddings that are {found} wide, but those of the proxy ({_proxy()}) are "
            f"{width}: {remedies}",
            allow_retries=False,
        )
    cosines = spot_check(model, pairs, delivered)
    worst = min(cosines, key=lambda kind: cosines[kind])
    if not cosines[worst] >= LEAST_COSINE:
        raise dg.Failure(
            f"{pairs.crawl} came with embeddings that the proxy ({_proxy()}) did not make: in a spot check the median "
            f"cosine of {worst} embeddings is {cosines[worst]:.3f}, and at least {LEAST_COSINE} is expected: "
            f"{remedies}",
            allow_retries=False,
        )
    checked = {f"spot_check_{kind}_cosine": cosine for kind, cosine in cosines.items()}
    origin = {"pairs_embedded": 0, "pairs_reused": 0, "pairs_taken_over": len(pairs)}
    return delivered_rows(delivered, pairs), origin | checked


class ScoredRows:
    """Streams embeddings into rows of the table, and adds up their CLIP scores and digests on the way.

    Args:
        rows: Blocks of image and text embeddings (b, d) float16, in the order of the pairs.
        pairs: The crawl.
        width: Of an embedding.
    """

    def __init__(self, rows: Iterator[Rows], pairs: "StoredPairs", width: int) -> None:
        """Nothing is read yet."""
        self.sum = 0.0
        self.digests: list[str] = []
        self._rows, self._pairs, self._schema = rows, pairs, embeddings_schema(width)
        self._places, self._scores = np.empty(0, np.int64), np.empty(0)  # of both ends, lowest scores first

    def reader(self) -> pa.RecordBatchReader:
        """The rows, block by block."""
        return pa.RecordBatchReader.from_batches(self._schema, self._batches())

    @property
    def lowest(self) -> float:
        """Lowest score so far."""
        return float(self._scores[0])

    @property
    def highest(self) -> float:
        """Highest score so far."""
        return float(self._scores[-1])

    @property
    def lowest_pairs(self) -> Rows:
        """Places and scores of a few pairs, the lowest score first."""
        return self._places[:SHOWN], self._scores[:SHOWN]

    @property
    def highest_pairs(self) -> Rows:
        """Places and scores of a few pairs, the highest score first."""
        return self._places[-SHOWN:][::-1], self._scores[-SHOWN:][::-1]

    def _keep_ends(self, start: int, score: np.ndarray) -> None:
        places = np.concatenate([self._places, np.arange(start, start + len(score))])
        scores = np.concatenate([self._scores, score])
        order = np.argsort(scores, kind="stable")
        if len(order) > 2 * SHOWN:
            order = np.concatenate([order[:SHOWN], order[-SHOWN:]])
        self._places, self._scores = places[order], scores[order]

    def _batches(self) -> Iterator[pa.RecordBatch]:
        start = 0
        for image, text in self._rows:
            found = self._pairs.rows.slice(start, len(image), ["uid", "content"]).combine_chunks()
            # The score of the rows as stored, so that whoever reads them finds the same number.
            score = clip_scores(image, text)
            self.sum += float(score.sum())
            self._keep_ends(start, score)
            start += len(image)
            self.digests.append(content_version("\n".join(found["uid"].to_pylist()), image, text))
            columns = {
                "uid": found["uid"],
                "content": found["content"],
                "image_embedding": list_column(image),
                "text_embedding": list_column(text),
                "clip_score": score,
            }
            yield from pa.table(columns, schema=self._schema).to_batches()


def _shown(pairs: "StoredPairs", places: np.ndarray, scores: np.ndarray) -> dg.MarkdownMetadataValue:
    rows = pairs.rows.take(places, ["image", "caption"]).to_pylist()
    return preview(((row["image"], row["caption"]) for row in rows), (f"{score:.3f}" for score in scores))


def _proxy() -> str:
    if isinstance(SCALE.proxy, PretrainedProxy):
        return f"{SCALE.proxy.architecture} with the weights {SCALE.proxy.weights}"
    return f"{SCALE.proxy.architecture}, trained on the oldest crawl"


def _width(architecture: str) -> int:
    import open_clip

    return int(open_clip.get_model_config(architecture)["embed_dim"])
