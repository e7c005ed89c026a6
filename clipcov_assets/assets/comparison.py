"""All scorecards of a crawl become one comparison: table, curves, report."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pyarrow as pa

from clipcov_assets.assets.checkpoints import trainings_table
from clipcov_assets.assets.groups import OWNERS, SCORECARDS
from clipcov_assets.assets.scorecards import class_recalls_table, groups_table, scores_table
from clipcov_assets.automation import when_inputs_change
from clipcov_assets.core.metrics import adjusted_p_values, paired_difference
from clipcov_assets.core.suite import CLASSIFICATION
from clipcov_assets.export.charts import pictures
from clipcov_assets.export.comparison_tables import ComparisonTables
from clipcov_assets.export.differences import differences_markdown
from clipcov_assets.export.markdown import comparison_markdown, pictures_markdown
from clipcov_assets.export.report import html_report
from clipcov_assets.methods import COMPARED
from clipcov_assets.partitions import crawl_order, crawls, fraction_key, fractions_of, of_crawl, the_crawl
from clipcov_assets.provenance import content_version, latest_input, legible, materialized
from clipcov_assets.scales import SCALE
from clipcov_assets.tables import (
    CHECKPOINT,
    CLASS_RECALLS,
    CURVE,
    DIFFERENCES,
    GROUPS,
    SCORES,
    TRAININGS,
    column_schema,
    schema_of,
)
from resources.lance_store import LanceStore
from resources.mlflow_tracker import MlflowTracker
from resources.report_shelf import ReportShelf

# Tables of a comparison, one a crawl: what it is made from, gathered over methods and fractions.
COMPARISON = "comparison"
GATHERED = {
    COMPARISON: (scores_table, SCORES),
    "groups": (groups_table, GROUPS),
    "trainings": (trainings_table, TRAININGS),
    "class_recalls": (class_recalls_table, CLASS_RECALLS),
}
CURVES = schema_of(CHECKPOINT, CURVE)


@dg.asset(
    partitions_def=crawls,
    deps=[dg.AssetDep(f"{method}_scorecard", partition_mapping=the_crawl) for method in COMPARED],
    group_name=SCORECARDS,
    owners=OWNERS,
    kinds={"lancedb", "polars"},
    tags={"clipcov/stage": "compare"},
    code_version="3",
    automation_condition=when_inputs_change,
    metadata={"dagster/column_schema": column_schema(SCORES)},
)
def comparison(
    context: dg.AssetExecutionContext, store: LanceStore, shelf: ReportShelf, tracker: MlflowTracker
) -> dg.MaterializeResult:
    """Which method keeps most of the full pool's accuracy, and with how few pairs.

    Scores of methods and fractions with 95 % intervals, accuracy against subset size and against cost, the share of
    the full pool's accuracy that each subset keeps, which differences to ClipCov are real and which are noise, image
    by image, and how each model was trained. It compares every scorecard that the crawl has so far and says how many
    are missing. The HTML report holds all crawls.
    """
    crawl = context.partition_key
    wanted = [(method, fraction) for method in COMPARED for fraction in fractions_of(method)]
    present = [one for one in wanted if store.exists(scores_table(one[0]), of_crawl(crawl, one[1]))]
    if not present:
        raise dg.Failure(f"{crawl} has no scorecard yet: materialize scorecards of it first", allow_retries=False)
    gathered = {
        name: pa.concat_tables(store.read(table(method), of_crawl(crawl, fraction)) for method, fraction in present)
        for name, (table, _) in GATHERED.items()
    }
    gathered |= {"curves": _curves(store, crawl, present), "differences": _differences(store, crawl)}
    written = {name: store.write(name, crawl, rows) for name, rows in gathered.items()}
    tables = _tables(context, store)
    drawn = pictures(tables, crawl)
    words = comparison_markdown(tables, crawl)
    links = {"Dagster": f"{shelf.dagster_ui}/assets/comparison", "MLflow": tracker.address}
    report = shelf.write("comparison.html", html_report(tables, links=links).encode())
    with tracker.shared_run(
        f"{crawl} comparison",
        {"dagster.asset": COMPARISON, "dagster.partition": crawl, "dagster.run": context.run.run_id},
        report=context.log.warning,
    ) as run:
        for name, picture in drawn.items():
            run.log_picture(picture, f"pictures/{name}.png")
        run.log_text(words, "comparison.md")
    inputs = [latest_input(context, f"{method}_scorecard", of_crawl(crawl, fraction)) for method, fraction in present]
    return materialized(
        written[COMPARISON],
        content_version(gathered[COMPARISON], gathered["differences"]),
        inputs,
        metadata={
            "comparison": dg.MetadataValue.md(f"{pictures_markdown(drawn)}\n\n{words}"),
            "differences": dg.MetadataValue.md(differences_markdown(tables.differences, crawl)),
            **{
                name: dg.MetadataValue.path(shelf.write(f"{name}-{crawl}.png", picture))
                for name, picture in drawn.items()
            },
            "report": dg.MetadataValue.path(report),
            "mlflow": dg.MetadataValue.url(run.address) if run.address else "MLflow could not be reached",
            "scorecards": len(present),
            "scorecards_missing": len(wanted) - len(present),
            **_numbers(gathered[COMPARISON]),
        },
    )


def _curves(store: LanceStore, crawl: str, present: list[tuple[str, str]]) -> pa.Table:
    """The learning curves behind a crawl's scorecards, with what each was trained on."""
    curves = []
    for method, fraction in present:
        curve = store.read(f"{method}_checkpoint", of_crawl(crawl, fraction))
        for name, value in (("fraction", fractions_of(method)[fraction]), ("method", method), ("crawl", crawl)):
            curve = curve.add_column(0, name, pa.repeat(value, len(curve)))
        curves.append(curve)
    return pa.concat_tables(curves).cast(CURVES)


def _tables(context: dg.AssetExecutionContext, store: LanceStore) -> ComparisonTables:
    """The tables of every crawl that has been compared so far, oldest first."""
    schemas = {name: schema for name, (_, schema) in GATHERED.items()} | {"curves": CURVES, "differences": DIFFERENCES}
    known = sorted(crawls.get_partition_keys(dynamic_partitions_store=context.instance), key=crawl_order)
    found = {}
    for name, schema in schemas.items():
        stored = [store.read(name, crawl) for crawl in known if store.exists(name, crawl)]
        current = [rows for rows in stored if rows.schema.names == schema.names]
        if len(current) < len(stored):
            context.log.warning(f"{name} of {len(stored) - len(current)} crawls is of an earlier version, left out")
        found[name] = pl.DataFrame(pa.concat_tables(current))
    return ComparisonTables(scores=found.pop(COMPARISON), **found)


def _differences(store: LanceStore, crawl: str) -> pa.Table:
    """ClipCov against every other method, fraction by fraction and set by set; p-values for all of them together."""
    rows = list(_paired(store, crawl))
    adjusted = adjusted_p_values([row["p_value"] for row in rows])
    for row, p_value in zip(rows, adjusted, strict=True):
        row["adjusted_p_value"] = float(p_value)
    return pa.Table.from_pylist(rows, schema=DIFFERENCES)


def _paired(store: LanceStore, crawl: str) -> Iterator[dict[str, Any]]:
    for fraction, share in fractions_of("clipcov").items():
        hits = _hits(store, crawl, fraction)
        for other in COMPARED:
            for name, theirs in hits.get(other, {}).items():
                ours = hits.get("clipcov", {}).get(name)
                # Two scorecards of different images, one made before the set was changed, cannot be paired.
                if other == "clipcov" or ours is None or not ours.select("key").equals(theirs.select("key")):
                    continue
                hits_of_seeds, other_hits = (np.stack(one["hit"].to_list()).T for one in (ours, theirs))
                found = paired_difference(hits_of_seeds, other_hits, seed=SCALE.seed)
                yield {
                    "crawl": crawl,
                    "fraction": share,
                    "method": "clipcov",
                    "other": other,
                    "evaluation_set": name,
                    "images": len(ours),
                    "seeds": min(len(hits_of_seeds), len(other_hits)),
                    "difference": found.value,
                    "low": found.low,
                    "high": found.high,
                    "p_value": found.p_value,
                }


def _hits(store: LanceStore, crawl: str, fraction: str) -> dict[str, dict[str, pl.DataFrame]]:
    """Method -> evaluation set -> key and hits of every image, one a seed, by key; of the methods with a scorecard."""
    columns = ["evaluation_set", "seed", "task", "key", "rank_of_label"]
    hits = {}
    for method in COMPARED:
        partition = of_crawl(crawl, fraction)
        if fraction in fractions_of(method) and store.exists(f"{method}_scorecard", partition):
            rows = pl.DataFrame(store.read(f"{method}_scorecard", partition, columns))
            by_image = (
                rows.filter(pl.col("task") == CLASSIFICATION)
                .sort("seed")
                .group_by("evaluation_set", "key", maintain_order=True)
                .agg(hit=pl.col("rank_of_label") == 0)
                .sort("key")
            )
            sets = by_image.partition_by("evaluation_set", as_dict=True)
            hits[method] = {str(name): found for (name,), found in sets.items()}
    return hits


def _numbers(rows: pa.Table) -> dict[str, float]:
    """The main metric of each method, fraction and set as a number of its own, so that Dagster plots it over crawls."""
    return {
        f"{row['metric']}/{row['evaluation_set']}/{row['method']}/{fraction_key(row['fraction'])}": legible(
            row["value"]
        )
        for row in rows.to_pylist()
        if row["is_main"]
    }
