"""Embeddings become latent classes, by zero-shot classification."""

from collections.abc import Iterator

import dagster as dg
import numpy as np
import pyarrow as pa

from clipcov_assets.assets.groups import CRAWLS, GPU_POOL
from clipcov_assets.assets.previews import SHOWN_PAIRS, preview_of_crawl
from clipcov_assets.assets.road_asset import road_asset
from clipcov_assets.automation import when_inputs_change
from clipcov_assets.core.prompts import Prompts, imagenet_prompts
from clipcov_assets.core.statistics import no_statistics
from clipcov_assets.ingest.evaluation_set import read_prompts
from clipcov_assets.partitions import crawls
from clipcov_assets.pool_tables import (
    CLASS_EMBEDDINGS,
    CRAWL_PRODUCTS,
    CRAWL_STATISTICS,
    ROWS_TAKEN,
    cross_product_rows,
    list_column,
    row_matrix,
    statistics_rows,
    sums_of,
)
from clipcov_assets.provenance import content_version, latest_input, legible, materialized
from clipcov_assets.scales import HOME, SCALE, code_version
from clipcov_assets.tables import (
    EMBEDDINGS,
    PROXY_SHA256,
    class_embeddings_schema,
    column_schema,
    latent_classes_schema,
)
from resources.clip_encoder import ClipEncoder
from resources.compute import Compute
from resources.lance_store import LanceStore


@road_asset(
    partitions_def=crawls,
    deps=["embeddings", "proxy_checkpoint"],
    group_name=CRAWLS,
    kinds={"lancedb", "pytorch"},
    stage="classify",
    code_version=code_version(2, SCALE.prompts, SCALE.proxy),
    automation_condition=when_inputs_change,
    pool=GPU_POOL,
)
def latent_classes(
    context: dg.AssetExecutionContext,
    store: LanceStore,
    encoder: ClipEncoder,
    compute: Compute,
) -> dg.MaterializeResult:
    """The latent class of every pair: the class name whose prompts are nearest to the image (paper, section 4.3).

    The margin says how sure that is: cosine to the best class minus cosine to the second best. Class names and
    prompt templates come from files; ImageNet-1k's 1,000 names with OpenAI's templates where none are given.

    The rows are in the order of the classes, with the embeddings beside, so that a class is read as one run; and the
    counts and sums of the classes are stored, which add up over crawls.
    """
    from clipcov_assets.core.clip_model import weights_sha256
    from clipcov_assets.core.zero_shot import class_embeddings

    crawl = context.partition_key
    clip = encoder.load(SCALE.proxy.architecture, encoder.path("proxy_checkpoint"))
    proxy = store.metadata("embeddings", crawl)[PROXY_SHA256]
    _same_proxy(crawl, proxy, weights_sha256(clip.model))
    names = _prompts()
    classes = class_embeddings(clip, names, device=compute.here().resolved_device())
    labels = _labels(store, crawl, classes)
    rows = ClassOrder(store, crawl, labels, classes.shape)
    written = store.write("latent_classes", crawl, rows.reader(), {PROXY_SHA256: proxy})
    store.write(CLASS_EMBEDDINGS, crawl, _class_table(names.class_names, classes))
    store.write(CRAWL_STATISTICS, crawl, statistics_rows(rows.statistics))
    store.write(CRAWL_PRODUCTS, crawl, cross_product_rows(rows.products))
    sizes, embedded = rows.statistics.counts, latest_input(context, "embeddings", crawl)
    return materialized(
        written,
        # The embeddings beside the classes are those of this version.
        content_version(embedded.data_version, labels),
        inputs=(embedded, latest_input(context, "proxy_checkpoint", None)),
        metadata={
            "latent_classes": len(names.class_names),
            "classes_with_pairs": int((sizes > 0).sum()),
            "largest_class_share": legible(sizes.max() / sizes.sum()),
            "median_margin": legible(np.median(labels["margin"])),
            "least_sure_pairs": _least_sure(store, crawl, labels, names.class_names),
            "prompts_sha256": names.sha256,
            "class_sizes": class_size_table(names.class_names, sizes),
            "dagster/column_schema": column_schema(rows.schema),
        },
    )


def _labels(store: LanceStore, crawl: str, classes: np.ndarray) -> pa.Table:
    """Columns place (in the table of embeddings), latent_class and margin, in the order of latent class and uid."""
    from clipcov_assets.core.zero_shot import classify

    parts = []
    for batch in store.stream("embeddings", crawl, ["uid", "image_embedding"], batch_size=ROWS_TAKEN):
        label, margin = classify(row_matrix(batch["image_embedding"]), classes)
        columns = {"uid": batch["uid"], "latent_class": pa.array(label, pa.int32()), "margin": margin}
        parts.append(pa.table(columns))
    labels = pa.concat_tables(parts)
    labels = labels.append_column("place", pa.array(np.arange(len(labels))))
    return labels.sort_by([("latent_class", "ascending"), ("uid", "ascending")]).drop_columns("uid")


def _least_sure(
    store: LanceStore, crawl: str, labels: pa.Table, class_names: tuple[str, ...]
) -> dg.MarkdownMetadataValue:
    """The pairs with the least margin, each with its class: where these look wrong, so may many."""
    least = labels.take(pa.array(np.argsort(labels["margin"].to_numpy(), kind="stable")[:SHOWN_PAIRS]))
    uid = store.rows("embeddings", crawl).take(least["place"].to_numpy(), ["uid"])["uid"].to_pylist()
    notes = {
        one: f"{class_names[row['latent_class']]}, by {row['margin']:.4f}"
        for one, row in zip(uid, least.to_pylist(), strict=True)
    }
    return preview_of_crawl(store, crawl, notes)


class ClassOrder:
    """Streams the pairs of a crawl into the order of their classes, and adds up their statistics on the way.

    Args:
        store: Holds the crawl's `embeddings`.
        crawl: Which crawl.
        labels: Columns place, latent_class and margin, in the order of latent class and uid.
        shape: Number of classes and width of an embedding.
    """

    def __init__(self, store: LanceStore, crawl: str, labels: pa.Table, shape: tuple[int, int]) -> None:
        """Open the table of embeddings; nothing is read yet."""
        self.schema = latent_classes_schema(shape[1])
        self.statistics = no_statistics(shape)
        self.products = np.zeros((shape[1], shape[1]))
        self._embedded = store.rows("embeddings", crawl)
        self._labels = labels

    def reader(self) -> pa.RecordBatchReader:
        """The rows, batch by batch."""
        return pa.RecordBatchReader.from_batches(self.schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for start in range(0, len(self._labels), ROWS_TAKEN):
            labels = self._labels.slice(start, ROWS_TAKEN).combine_chunks()
            found = self._embedded.take(labels["place"].to_numpy(), ["uid", "clip_score", *EMBEDDINGS])
            for column in ("latent_class", "margin"):
                found = found.append_column(column, labels[column])
            statistics, products = sums_of(found, len(self.statistics.counts))
            self.statistics += statistics
            self.products += products
            yield from found.select(self.schema.names).cast(self.schema).combine_chunks().to_batches()


def _same_proxy(crawl: str, embedded_by: str, present: str) -> None:
    if embedded_by != present:
        raise dg.Failure(
            f"{crawl} was embedded by proxy {embedded_by[:12]}, but proxy_checkpoint is now {present[:12]}: "
            f"materialize embeddings of {crawl} first",
            allow_retries=False,
        )


def _prompts() -> Prompts:
    if SCALE.prompts is None:
        return imagenet_prompts()
    return read_prompts(HOME / SCALE.prompts.class_names, HOME / SCALE.prompts.templates)


def class_size_table(names: tuple[str, ...], sizes: np.ndarray, limit: int = 100) -> dg.TableMetadataValue:
    """The largest classes and their sizes, as a table for the UI."""
    largest = np.argsort(-sizes, kind="stable")[:limit]
    return dg.MetadataValue.table(
        [dg.TableRecord({"latent_class": names[row], "pairs": int(sizes[row])}) for row in largest],
        schema=dg.TableSchema.from_name_type_dict({"latent_class": "string", "pairs": "int"}),
    )


def _class_table(names: tuple[str, ...], classes: np.ndarray) -> pa.Table:
    return pa.table(
        {
            "latent_class": pa.array(range(len(names)), pa.int32()),
            "name": list(names),
            "embedding": list_column(classes),
        },
        schema=class_embeddings_schema(classes.shape[1]),
    )
