"""Checkpoints become scorecards: zero-shot accuracy with intervals, per evaluation set and per image."""

from typing import TYPE_CHECKING

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from clipcov_assets.assets.groups import OWNERS, SCORECARDS
from clipcov_assets.automation import when_inputs_change
from clipcov_assets.core.metrics import chance, score
from clipcov_assets.ingest.evaluation_set import EvaluationSet, find_evaluation_sets
from clipcov_assets.partitions import dimension, fractions_of, partitions_of
from clipcov_assets.provenance import content_version, latest_input, materialized
from clipcov_assets.scales import SCALE, code_version
from clipcov_assets.tables import PREDICTIONS, SCORES, column_schema
from resources.clip_encoder import ClipEncoder
from resources.compute import Compute
from resources.evaluation_suite import EvaluationSuite
from resources.lance_store import LanceStore
from resources.mlflow_tracker import MlflowTracker

if TYPE_CHECKING:
    from clipcov_assets.core.clip_model import ClipModel


def scores_table(method: str) -> str:
    """Name of the table that holds a method's scores, beside the per-image table of its scorecard."""
    return f"{method}_scores"


def scorecard_asset(method: str) -> dg.AssetsDefinition:
    """The scorecards of one method as an asset, one partition for each crawl and fraction."""

    @dg.asset(
        name=f"{method}_scorecard",
        partitions_def=partitions_of(method),
        deps=[f"{method}_checkpoint"],
        group_name=SCORECARDS,
        owners=OWNERS,
        kinds={"lancedb", "pytorch"},
        tags={"clipcov/stage": "score", "clipcov/method": method},
        code_version=code_version(1, SCALE.seed),
        automation_condition=when_inputs_change,
        metadata={"dagster/column_schema": column_schema(PREDICTIONS)},
        description=(
            f"Zero-shot accuracy of the {method} checkpoint on every evaluation set.\n\n"
            "acc1, acc5 and mean per-class recall with 95 % intervals (bootstrap over images) and the level of "
            "chance. The prediction of every image is kept, so that two scorecards can be compared image by image. "
            "A set that cannot be read fails the scorecard; it never counts as zero."
        ),
    )
    def scorecard(
        context: dg.AssetExecutionContext,
        store: LanceStore,
        encoder: ClipEncoder,
        tracker: MlflowTracker,
        suite: EvaluationSuite,
        compute: Compute,
    ) -> dg.MaterializeResult:
        partition = str(context.partition_key)
        trained = latest_input(context, f"{method}_checkpoint", partition)
        sets = find_evaluation_sets(suite.path)
        clip = encoder.load(SCALE.architecture, encoder.path(f"{method}_checkpoint/{partition.replace('|', '/')}"))
        predictions = pa.concat_tables([predict(clip, one, compute) for one in sets])
        scores = _score_rows(
            predictions,
            sets,
            crawl=dimension(context, "crawl"),
            method=method,
            fraction=fractions_of(method)[dimension(context, "fraction")],
            pairs=store.row_count(f"{method}_subset", partition),
        )
        written = store.write(f"{method}_scorecard", partition, predictions)
        store.write(scores_table(method), partition, scores)
        values = {f"{row['evaluation_set']}/{row['metric']}": row["value"] for row in scores.to_pylist()}
        tracker.reopen(str(trained.metadata["mlflow_run_id"].value)).log_metrics(values)
        return materialized(
            written,
            content_version(predictions, scores),
            inputs=(trained,),
            metadata={
                **values,
                "images": len(predictions),
                "samples_seen": trained.metadata["samples_seen"],
                "scorecard": _preview(scores),
                **{f"sha256/{one.name}": one.sha256 for one in sets},
                "mlflow": trained.metadata["mlflow"],
            },
        )

    return scorecard


def predict(clip: "ClipModel", evaluation_set: EvaluationSet, compute: Compute) -> pa.Table:
    """Every image's prediction, as rows of the scorecard's table."""
    from clipcov_assets.core.encoding import image_size
    from clipcov_assets.core.evaluation import evaluate

    found = evaluate(
        clip,
        evaluation_set.images(),
        evaluation_set.prompts,
        device=compute.resolved_device(),
        batch_size=compute.resolved_batch_size(image_size(clip)),
    )
    columns = {name: pa.array(getattr(found, name), pa.int32()) for name in ("label", "predicted", "rank_of_label")}
    names = [evaluation_set.name] * len(found.key)
    return pa.table({"evaluation_set": names, "key": list(found.key), **columns}, schema=PREDICTIONS)


def _score_rows(
    predictions: pa.Table,
    sets: tuple[EvaluationSet, ...],
    *,
    crawl: str,
    method: str,
    fraction: float,
    pairs: int,
) -> pa.Table:
    """Metrics and intervals of every set, one row a set and metric."""
    rows = []
    for one in sets:
        found = predictions.filter(pc.equal(predictions["evaluation_set"], one.name))
        n_classes = len(one.prompts.class_names)
        estimates = score(
            found["label"].to_numpy(), found["rank_of_label"].to_numpy(), n_classes=n_classes, seed=SCALE.seed
        )
        guessing = chance(n_classes)
        rows += [
            {
                "crawl": crawl,
                "method": method,
                "fraction": fraction,
                "pairs": pairs,
                "evaluation_set": one.name,
                "metric": metric,
                "value": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "chance": guessing[metric],
                "images": len(found),
            }
            for metric, estimate in estimates.items()
        ]
    return pa.Table.from_pylist(rows, schema=SCORES)


def _preview(scores: pa.Table) -> dg.TableMetadataValue:
    shown = ("evaluation_set", "metric", "value", "low", "high", "chance")
    return dg.MetadataValue.table(
        [
            dg.TableRecord({name: round(row[name], 4) if name not in shown[:2] else row[name] for name in shown})
            for row in scores.to_pylist()
        ],
        schema=dg.TableSchema.from_name_type_dict({name: "string" if name in shown[:2] else "float" for name in shown}),
    )
