"""The proxy: the CLIP whose embeddings every selection is made with."""

from typing import Any

import dagster as dg

from clipcov_assets.assets.groups import CRAWLS, GPU_POOL
from clipcov_assets.assets.road_asset import road_asset
from clipcov_assets.automation import on_arrival, once_pairs_are_there
from clipcov_assets.partitions import crawl_order, crawls
from clipcov_assets.provenance import (
    CONFIGURATION,
    PROVENANCE,
    Input,
    configuration,
    latest_input,
    legible,
    provenance_table,
)
from clipcov_assets.scales import SCALE, PretrainedProxy, TrainedProxy, code_version
from clipcov_assets.subset_pairs import pairs_of_crawl
from resources.clip_encoder import ClipEncoder
from resources.compute import Compute
from resources.lance_store import LanceStore
from resources.mlflow_tracker import MlflowTracker
from resources.staging import Staging

NAME = "proxy_checkpoint"
IS_TRAINED = isinstance(SCALE.proxy, TrainedProxy)


@road_asset(
    deps=[dg.AssetDep("raw_pairs", partition_mapping=dg.AllPartitionMapping())] if IS_TRAINED else [],
    group_name=CRAWLS,
    kinds={"pytorch"},
    stage="proxy",
    code_version=code_version(2, SCALE.proxy),
    automation_condition=once_pairs_are_there if IS_TRAINED else on_arrival,
    pool=GPU_POOL,
)
def proxy_checkpoint(
    context: dg.AssetExecutionContext,
    store: LanceStore,
    encoder: ClipEncoder,
    tracker: MlflowTracker,
    compute: Compute,
    staging: Staging,
) -> dg.MaterializeResult:
    """The frozen CLIP that embeds every crawl.

    Either a pretrained one (an open_clip tag or a local checkpoint) or one trained with the CLIP loss on the
    oldest crawl, as in the paper's Table 2. It is known by its sha256; a new crawl does not change it, because
    embeddings of two proxies cannot be compared. Materialize it by hand to replace it, then the embeddings of
    every crawl.
    """
    if isinstance(SCALE.proxy, PretrainedProxy):
        return pretrained_proxy(SCALE.proxy, encoder)
    return _trained(context, SCALE.proxy, store, encoder, tracker, compute, staging)


def pretrained_proxy(proxy: PretrainedProxy, encoder: ClipEncoder) -> dg.MaterializeResult:
    """Copy a pretrained model, by tag or by path, to where the proxy is kept."""
    saved = encoder.save(encoder.load(proxy.architecture, proxy.weights), NAME)
    return _result(proxy.architecture, saved.sha256, (), {"source": f"pretrained: {proxy.weights}"})


def _trained(
    context: dg.AssetExecutionContext,
    proxy: TrainedProxy,
    store: LanceStore,
    encoder: ClipEncoder,
    tracker: MlflowTracker,
    compute: Compute,
    staging: Staging,
) -> dg.MaterializeResult:
    from clipcov_assets.jobs.train import Trainer, Training

    crawl = _oldest_crawl(context)
    source = latest_input(context, "raw_pairs", crawl)
    training = Training(
        name=NAME,
        pairs=pairs_of_crawl(store, crawl),
        dataset=(f"raw_pairs/{crawl}", source.data_version, store.uri),
        architecture=proxy.architecture,
        recipe=proxy.recipe,
        tags={"dagster.asset": NAME, "dagster.run": context.run.run_id, "data_version.raw_pairs": source.data_version},
    )
    (checkpoint,) = Trainer(
        encoder, tracker, compute.here(), staging, report=context.log.info, warn=context.log.warning
    ).train(training, [proxy.seed])
    saved = encoder.save(encoder.load(proxy.architecture, checkpoint.weights.path), NAME)
    return _result(
        proxy.architecture,
        saved.sha256,
        (source,),
        {
            "source": f"trained on {crawl}",
            "samples_seen": checkpoint.summary.samples_seen,
            "final_loss": legible(checkpoint.summary.loss),
            "mlflow": dg.MetadataValue.url(checkpoint.mlflow_address)
            if checkpoint.mlflow_address
            else "MLflow could not be reached",
        },
    )


def _result(
    architecture: str, sha256: str, inputs: tuple[Input, ...], metadata: dict[str, Any]
) -> dg.MaterializeResult:
    return dg.MaterializeResult(
        data_version=dg.DataVersion(sha256[:16]),
        metadata={
            "architecture": architecture,
            "sha256": sha256,
            **metadata,
            CONFIGURATION: dg.MetadataValue.json(configuration()),
            PROVENANCE: provenance_table(inputs),
        },
    )


def _oldest_crawl(context: dg.AssetExecutionContext) -> str:
    ready = context.instance.get_materialized_partitions(dg.AssetKey("raw_pairs"))
    registered = [
        crawl for crawl in crawls.get_partition_keys(dynamic_partitions_store=context.instance) if crawl in ready
    ]
    if not registered:
        raise dg.Failure(
            "the proxy is trained on the oldest crawl, and no crawl is there: materialize raw_pairs first, "
            "or choose a scale with a pretrained proxy",
            allow_retries=False,
        )
    return min(registered, key=crawl_order)
