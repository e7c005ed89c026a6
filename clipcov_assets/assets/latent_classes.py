"""Embeddings become latent classes, by zero-shot classification."""

import dagster as dg
import numpy as np
import pyarrow as pa

from clipcov_assets.assets.embeddings import PROXY
from clipcov_assets.assets.groups import CRAWLS, OWNERS
from clipcov_assets.automation import when_inputs_change
from clipcov_assets.core.prompts import Prompts, imagenet_prompts
from clipcov_assets.ingest.evaluation_set import read_prompts
from clipcov_assets.partitions import crawls
from clipcov_assets.pool_tables import CLASS_EMBEDDINGS, list_column, row_matrix
from clipcov_assets.provenance import content_version, latest_input, materialized
from clipcov_assets.scales import HOME, SCALE, code_version
from clipcov_assets.tables import LATENT_CLASSES, class_embeddings_schema, column_schema
from resources.clip_encoder import ClipEncoder
from resources.compute import Compute
from resources.lance_store import LanceStore


@dg.asset(
    partitions_def=crawls,
    deps=["embeddings", "proxy_checkpoint"],
    group_name=CRAWLS,
    owners=OWNERS,
    kinds={"lancedb", "pytorch"},
    tags={"clipcov/stage": "classify"},
    code_version=code_version(1, SCALE.prompts, SCALE.proxy),
    automation_condition=when_inputs_change,
    metadata={"dagster/column_schema": column_schema(LATENT_CLASSES)},
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
    """
    from clipcov_assets.core.clip_model import weights_sha256
    from clipcov_assets.core.zero_shot import class_embeddings, classify

    crawl = context.partition_key
    clip = encoder.load(SCALE.proxy.architecture, encoder.path("proxy_checkpoint"))
    _same_proxy(crawl, store.metadata("embeddings", crawl)[PROXY], weights_sha256(clip.model))
    embedded = store.read("embeddings", crawl, ["uid", "image_embedding"])
    names = _prompts()
    classes = class_embeddings(clip, names, device=compute.resolved_device())
    label, margin = classify(row_matrix(embedded["image_embedding"]), classes)
    rows = pa.table(
        {"uid": embedded["uid"], "latent_class": pa.array(label, pa.int32()), "margin": margin},
        schema=LATENT_CLASSES,
    )
    written = store.write("latent_classes", crawl, rows)
    store.write(CLASS_EMBEDDINGS, crawl, _class_table(names.class_names, classes))
    sizes = np.bincount(label, minlength=len(names.class_names))
    return materialized(
        written,
        content_version(rows),
        inputs=(latest_input(context, "embeddings", crawl), latest_input(context, "proxy_checkpoint", None)),
        metadata={
            "latent_classes": len(names.class_names),
            "classes_with_pairs": int((sizes > 0).sum()),
            "largest_class_share": float(sizes.max() / sizes.sum()),
            "median_margin": float(np.median(margin)),
            "prompts_sha256": names.sha256,
            "class_sizes": class_size_table(names.class_names, sizes),
        },
    )


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
