"""Checkpoints become scorecards: zero-shot accuracy with intervals, per evaluation set and per image."""

from collections.abc import Sequence

import dagster as dg
import polars as pl
import pyarrow as pa

from clipcov_assets.assets.groups import GPU_POOL, SCORECARDS
from clipcov_assets.assets.road_asset import road_asset
from clipcov_assets.automation import when_trained
from clipcov_assets.export.report import report_name
from clipcov_assets.lineage import lineage_metadata
from clipcov_assets.partitions import dimension, fractions_of, partitions_of
from clipcov_assets.provenance import latest_input, legible, materialized
from clipcov_assets.scales import SCALE, code_version
from clipcov_assets.tables import PREDICTIONS, column_schema, groups_table, scores_table, trainings_table
from resources.clip_encoder import ClipEncoder
from resources.compute import Compute
from resources.evaluation_suite import EvaluationSuite
from resources.head_cache import HeadCache
from resources.lance_store import LanceStore, WrittenTable
from resources.mlflow_tracker import MlflowTracker
from resources.report_shelf import ReportShelf

SCORE_COLUMNS = ("evaluation_set", "metric", "value", "low", "high", "seed_deviation", "chance", "above_chance")
GROUP_COLUMNS = ("group", "value", "low", "high", "seed_deviation", "reason")
# Of the trainings behind a scorecard: without them two accuracies cannot be compared.
CONDITIONS = ("samples_seen", "warmup_share", "max_learning_rate", "epochs", "seconds")


def scorecard_asset(method: str) -> dg.AssetsDefinition:
    """The scorecards of one method as an asset, one partition for each crawl and fraction."""

    @road_asset(
        name=f"{method}_scorecard",
        partitions_def=partitions_of(method),
        deps=[f"{method}_checkpoint"],
        group_name=SCORECARDS,
        kinds={"lancedb", "pytorch"},
        stage="score",
        method=method,
        code_version=code_version(2, SCALE.seed),
        automation_condition=when_trained,
        pool=GPU_POOL,
        metadata={"dagster/column_schema": column_schema(PREDICTIONS)},
        description=(
            f"Zero-shot accuracy of the {method} checkpoint on every evaluation set.\n\n"
            "acc1, acc5 and mean per-class recall (recall at 1, 5 and 10 for retrieval) with 95 % intervals over "
            "images, the spread of the seeds apart from them, the level of chance, and the averages that papers "
            "report. The prediction of every image is kept, so that two scorecards can be compared image by image. A "
            "set that cannot be read fails the scorecard; an average of which a set is missing stays empty and says "
            "why."
        ),
    )
    def scorecard(
        context: dg.AssetExecutionContext,
        store: LanceStore,
        encoder: ClipEncoder,
        tracker: MlflowTracker,
        suite: EvaluationSuite,
        compute: Compute,
        heads: HeadCache,
        shelf: ReportShelf,
    ) -> dg.MaterializeResult:
        from clipcov_assets.jobs.score_checkpoint import ScoreCheckpoint
        from clipcov_assets.jobs.submit import carry_out

        partition, crawl = str(context.partition_key), dimension(context, "crawl")
        trained = latest_input(context, f"{method}_checkpoint", partition)
        job = ScoreCheckpoint(
            compute=compute,
            crawl=crawl,
            method=method,
            fraction=fractions_of(method)[dimension(context, "fraction")],
            partition=partition,
            seed=SCALE.seed,
            store=store,
            encoder=encoder,
            suite=suite,
            heads=heads,
        )
        made = carry_out(context, job)
        scores, groups = (store.read(name(method), partition) for name in (scores_table, groups_table))
        trainings = store.read(trainings_table(method), partition).to_pylist()
        for one, values in zip(trainings, made["values"], strict=True):
            with tracker.reopen(one["mlflow_run_id"], report=context.log.warning) as run:
                run.log_metrics(values, step=one["samples_seen"])
                run.log_text(pl.DataFrame(scores).write_csv(), "scorecard/scores.csv")
                run.log_text(pl.DataFrame(groups).write_csv(), "scorecard/groups.csv")
        return materialized(
            WrittenTable(**made["table"]),
            made["data_version"],
            inputs=(trained,),
            metadata={
                "scorecard": _shown(scores, SCORE_COLUMNS),
                "groups": _shown(groups, GROUP_COLUMNS),
                **{
                    f"{row['evaluation_set']}/{row['metric']}": legible(row["value"])
                    for row in scores.to_pylist()
                    if row["is_main"]
                },
                "images": made["images"],
                "seeds": len(trainings),
                **{name: trained.metadata[name] for name in CONDITIONS},
                **{f"sha256/{name}": digest for name, digest in made["sha256"].items()},
                **{f"prompts/{name}": words for name, words in made["prompts"].items()},
                "mlflow": trained.metadata["mlflow"],
                **lineage_metadata(context.instance, store, f"{method}_scorecard", partition, [trained]),
                "comparison": dg.MetadataValue.url(shelf.address(report_name(dimension(context, "crawl")))),
            },
        )

    return scorecard


def _shown(rows: pa.Table, columns: Sequence[str]) -> dg.TableMetadataValue:
    kinds = {name: "float" if pa.types.is_floating(rows.schema.field(name).type) else "string" for name in columns}
    shown = [
        {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
        for row in rows.select(list(columns)).to_pylist()
    ]
    return dg.MetadataValue.table(
        [dg.TableRecord(row) for row in shown], schema=dg.TableSchema.from_name_type_dict(kinds)
    )
