"""Subsets become trained CLIP checkpoints, one MLflow run each."""

import dataclasses

import dagster as dg
import pyarrow as pa
from pydantic import Field

from clipcov_assets.assets.groups import CHECKPOINTS, OWNERS, RANKINGS, TRAINING_POOL
from clipcov_assets.automation import nightly_training
from clipcov_assets.core.recipe import Recipe
from clipcov_assets.partitions import crawls, dimension, partitions_of
from clipcov_assets.pool_tables import load_pairs
from clipcov_assets.provenance import Input, latest_input, materialized
from clipcov_assets.scales import SCALE, code_version
from clipcov_assets.tables import CURVE, column_schema
from resources.clip_encoder import ClipEncoder
from resources.compute import Compute
from resources.lance_store import LanceStore
from resources.mlflow_tracker import MlflowTracker
from resources.staging import Staging

PARTIAL_RECIPE = dataclasses.replace(SCALE.recipe, epochs=SCALE.partial_epochs, samples_seen=None)


class TrainingConfig(dg.Config):
    """What can be set when a training is launched by hand."""

    seed: int = Field(default=SCALE.seed, description="Decides the initial weights and the order of the pairs.")


@dataclasses.dataclass(frozen=True)
class Trainer:
    """The resources of a training, bound together so that every checkpoint asset trains the same way."""

    store: LanceStore
    encoder: ClipEncoder
    tracker: MlflowTracker
    compute: Compute
    staging: Staging

    def train(
        self,
        context: dg.AssetExecutionContext,
        asset: str,
        *,
        pairs: pa.Table,
        recipe: Recipe,
        seed: int,
        inputs: list[Input],
        tags: dict[str, str],
    ) -> dg.MaterializeResult:
        """Train on pairs (columns caption and image), and write the weights, curve and MLflow run of one partition."""
        from clipcov_assets.jobs.train import train_checkpoint

        partition = str(context.partition_key)
        name = f"{asset}/{partition.replace('|', '/')}"
        dagster_tags = {
            "dagster.asset": asset,
            "dagster.partition": partition,
            "dagster.run": context.run.run_id,
        }
        checkpoint = train_checkpoint(
            name,
            pairs,
            SCALE.architecture,
            recipe,
            seed=seed,
            tags={
                **dagster_tags,
                **{f"data_version.{one.asset}": one.data_version for one in inputs},
                **tags,
            },
            encoder=self.encoder,
            tracker=self.tracker,
            compute=self.compute,
            staging=self.staging,
        )
        written = self.store.write(asset, partition, checkpoint.curve)
        summary = checkpoint.summary
        return materialized(
            written,
            checkpoint.weights.sha256[:16],
            inputs,
            metadata={
                "pairs": summary.pairs,
                "samples_seen": summary.samples_seen,
                "epochs": summary.epochs,
                "steps": summary.steps,
                "final_loss": summary.loss,
                "samples_per_second": summary.samples_per_second,
                "seconds": summary.seconds,
                "architecture": SCALE.architecture,
                "recipe": dg.MetadataValue.json(dataclasses.asdict(recipe)),
                "seed": seed,
                "sha256": checkpoint.weights.sha256,
                "weights": dg.MetadataValue.path(checkpoint.weights.path),
                "mlflow": dg.MetadataValue.url(checkpoint.mlflow_address),
                "mlflow_run_id": checkpoint.mlflow_run_id,
            },
        )


@dg.asset(
    partitions_def=crawls,
    deps=["pool", "raw_pairs"],
    group_name=RANKINGS,
    owners=OWNERS,
    kinds={"pytorch", "mlflow"},
    tags={"clipcov/stage": "train", "clipcov/method": "c_rho"},
    code_version=code_version(1, SCALE.architecture, PARTIAL_RECIPE),
    automation_condition=nightly_training,
    pool=TRAINING_POOL,
    metadata={"dagster/column_schema": column_schema(CURVE)},
)
def partial_checkpoint(
    context: dg.AssetExecutionContext,
    config: TrainingConfig,
    store: LanceStore,
    encoder: ClipEncoder,
    tracker: MlflowTracker,
    compute: Compute,
    staging: Staging,
) -> dg.MaterializeResult:
    """A CLIP trained for a few epochs on the whole pool, which C-RHO compares the proxy with.

    C-RHO keeps the pairs whose similarity grows most from this model to the proxy (paper, section 5: 5 epochs).
    The table beside the weights is the training curve.
    """
    crawl = context.partition_key
    pairs = load_pairs(store, crawl, ["caption", "image"])
    inputs = [latest_input(context, asset, crawl) for asset in ("pool", "raw_pairs")]
    return Trainer(store, encoder, tracker, compute, staging).train(
        context,
        "partial_checkpoint",
        pairs=pairs,
        recipe=PARTIAL_RECIPE,
        seed=config.seed,
        inputs=inputs,
        tags={"clipcov.crawl": crawl},
    )


def checkpoint_asset(method: str) -> dg.AssetsDefinition:
    """The checkpoints of one method as an asset, one partition for each crawl and fraction."""

    @dg.asset(
        name=f"{method}_checkpoint",
        partitions_def=partitions_of(method),
        deps=[f"{method}_subset"],
        group_name=CHECKPOINTS,
        owners=OWNERS,
        kinds={"pytorch", "mlflow"},
        tags={"clipcov/stage": "train", "clipcov/method": method},
        code_version=code_version(1, SCALE.architecture, SCALE.recipe),
        automation_condition=nightly_training,
        pool=TRAINING_POOL,
        metadata={"dagster/column_schema": column_schema(CURVE)},
        description=(
            f"A CLIP trained from scratch on {'the whole pool' if method == 'full' else f'the {method} subset'}.\n\n"
            "Every method is trained with the same architecture, recipe and seed, so that scorecards differ by the "
            "pairs alone. The table beside the weights is the training curve; MLflow has one run for each partition."
        ),
    )
    def checkpoint(
        context: dg.AssetExecutionContext,
        config: TrainingConfig,
        store: LanceStore,
        encoder: ClipEncoder,
        tracker: MlflowTracker,
        compute: Compute,
        staging: Staging,
    ) -> dg.MaterializeResult:
        crawl, fraction = dimension(context, "crawl"), dimension(context, "fraction")
        uid = store.read(f"{method}_subset", context.partition_key, ["uid"])["uid"]
        pairs = load_pairs(store, crawl, ["caption", "image"], uid=uid)
        inputs = [latest_input(context, f"{method}_subset", context.partition_key)]
        tags = {"clipcov.crawl": crawl, "clipcov.method": method, "clipcov.fraction": fraction}
        return Trainer(store, encoder, tracker, compute, staging).train(
            context,
            f"{method}_checkpoint",
            pairs=pairs,
            recipe=SCALE.recipe,
            seed=config.seed,
            inputs=inputs,
            tags=tags,
        )

    return checkpoint
