"""Subsets become trained CLIP checkpoints, one for each seed, with an MLflow run each."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg
import pyarrow as pa
from pydantic import Field

from clipcov_assets.assets.groups import CHECKPOINTS, GPU_POOL, RANKINGS
from clipcov_assets.assets.road_asset import road_asset
from clipcov_assets.automation import nightly_training, policy_in_words
from clipcov_assets.core.recipe import Recipe
from clipcov_assets.partitions import crawls, dimension, fractions_of, partitions_of
from clipcov_assets.provenance import Input, latest_input, legible, materialized
from clipcov_assets.scales import SCALE, code_version
from clipcov_assets.tables import CURVE, column_schema, trainings_table
from resources.clip_encoder import ClipEncoder
from resources.compute import Compute
from resources.lance_store import LanceStore, WrittenTable
from resources.mlflow_tracker import MlflowTracker
from resources.staging import Staging

PARTIAL = "partial"
PARTIAL_RECIPE = SCALE.recipe.within(f"epochs:{SCALE.partial_epochs}")
PARTIAL_SEED = SCALE.training_seeds[0]
SHOWN = (
    "seed",
    "pairs",
    "samples_seen",
    "epochs",
    "steps",
    "warmup_share",
    "max_learning_rate",
    "last_learning_rate",
    "loss",
    "samples_per_second",
    "seconds",
)


class TrainingConfig(dg.Config):
    """What can be set when a training is launched by hand."""

    seeds: list[int] = Field(
        default=list(SCALE.training_seeds),
        min_length=1,
        description="A model is trained with each of them; it decides the initial weights and the order of the pairs.",
    )


@dataclass(frozen=True)
class TrainingResources:
    """The resources of a training, bound together so that every checkpoint asset trains the same way."""

    store: LanceStore
    encoder: ClipEncoder
    tracker: MlflowTracker
    compute: Compute
    staging: Staging


def train_partition(
    context: dg.AssetExecutionContext,
    method: str,
    *,
    fraction: float,
    subset: str | None,
    recipe: Recipe,
    seeds: Sequence[int],
    inputs: list[Input],
    resources: TrainingResources,
) -> dg.MaterializeResult:
    """Train one partition with each seed, on a subset or on the whole pool."""
    from clipcov_assets.jobs.submit import carry_out
    from clipcov_assets.jobs.train_checkpoint import TrainCheckpoint

    asset, partition, crawl = f"{method}_checkpoint", str(context.partition_key), dimension(context, "crawl")
    source = inputs[0]
    job = TrainCheckpoint(
        compute=resources.compute,
        asset=asset,
        partition=partition,
        crawl=crawl,
        method=method,
        fraction=fraction,
        subset=subset,
        dataset=(f"{source.asset}/{source.partition}", source.data_version),
        architecture=SCALE.architecture,
        recipe=recipe,
        seeds=list(seeds),
        tags={
            "dagster.asset": asset,
            "dagster.partition": partition,
            "dagster.run": context.run.run_id,
            "clipcov.crawl": crawl,
            "clipcov.method": method,
            "clipcov.fraction": f"{fraction:g}",
            **{f"data_version.{one.asset}": one.data_version for one in inputs},
        },
        store=resources.store,
        encoder=resources.encoder,
        tracker=resources.tracker,
        staging=resources.staging,
    )
    made = carry_out(context, job)
    trainings = resources.store.read(trainings_table(method), partition)
    return materialized(
        WrittenTable(**made["table"]),
        made["data_version"],
        inputs,
        metadata={
            **_means(trainings),
            "trainings": _shown(trainings),
            "architecture": SCALE.architecture,
            "recipe": dg.MetadataValue.json(json.loads(trainings["recipe"][0].as_py())),
            "recipe_hash": made["recipe_hash"],
            "device": f"{trainings['devices'][0]} x {trainings['device'][0]}, {trainings['precision'][0]}",
            "sha256": made["sha256"],
            "weights": dg.MetadataValue.path(made["weights"].rsplit("/", 2)[0]),
            "mlflow": dg.MetadataValue.url(made["mlflow"]) if made["mlflow"] else "MLflow could not be reached",
        },
    )


def _means(trainings: pa.Table) -> dict[str, float]:
    """Numbers that Dagster plots, means over the seeds."""
    names = [name for name in SHOWN if name != "seed"]
    return {"seeds": len(trainings), **{name: legible(trainings[name].to_numpy().mean()) for name in names}}


def _shown(trainings: pa.Table) -> dg.TableMetadataValue:
    rows = [{name: legible(value) for name, value in row.items()} for row in trainings.select(SHOWN).to_pylist()]
    schema = dg.TableSchema.from_name_type_dict(dict.fromkeys(SHOWN, "float"))
    return dg.MetadataValue.table([dg.TableRecord(row) for row in rows], schema=schema)


@road_asset(
    partitions_def=crawls,
    deps=["pool", "raw_pairs"],
    group_name=RANKINGS,
    kinds={"pytorch", "mlflow"},
    stage="train",
    method="c_rho",
    code_version=code_version(2, SCALE.architecture, PARTIAL_RECIPE, PARTIAL_SEED),
    automation_condition=nightly_training("c_rho", by_fraction=False),
    pool=GPU_POOL,
    metadata={"dagster/column_schema": column_schema(CURVE)},
)
def partial_checkpoint(
    context: dg.AssetExecutionContext,
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
    return train_partition(
        context,
        PARTIAL,
        fraction=1.0,
        subset=None,
        recipe=PARTIAL_RECIPE,
        seeds=[PARTIAL_SEED],
        inputs=[latest_input(context, asset, crawl) for asset in ("pool", "raw_pairs")],
        resources=TrainingResources(store, encoder, tracker, compute, staging),
    )


def checkpoint_asset(method: str) -> dg.AssetsDefinition:
    """The checkpoints of one method as an asset, one partition for each crawl and fraction."""

    @road_asset(
        name=f"{method}_checkpoint",
        partitions_def=partitions_of(method),
        deps=[f"{method}_subset"],
        group_name=CHECKPOINTS,
        kinds={"pytorch", "mlflow"},
        stage="train",
        method=method,
        code_version=code_version(2, SCALE.architecture, SCALE.recipe, SCALE.training_seeds),
        automation_condition=nightly_training(method),
        pool=GPU_POOL,
        metadata={"dagster/column_schema": column_schema(CURVE)},
        description=(
            f"A CLIP trained from scratch on {'the whole pool' if method == 'full' else f'the {method} subset'}.\n\n"
            "Every method is trained with the same architecture, recipe and seeds, so that scorecards differ by the "
            "pairs alone. The table beside the weights is the training curve; MLflow has one run for each seed of a "
            "partition. Look at the share of the warm-up: a training that never leaves it is not worth comparing.\n\n"
            + policy_in_words(method)
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
        partition = str(context.partition_key)
        return train_partition(
            context,
            method,
            fraction=fractions_of(method)[dimension(context, "fraction")],
            subset=f"{method}_subset",
            recipe=SCALE.recipe,
            seeds=config.seeds,
            inputs=[latest_input(context, f"{method}_subset", partition)],
            resources=TrainingResources(store, encoder, tracker, compute, staging),
        )

    return checkpoint
