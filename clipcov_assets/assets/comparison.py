"""All scorecards of a crawl become one comparison: table, curves, report."""

import base64

import dagster as dg
import polars as pl
import pyarrow as pa

from clipcov_assets.assets.groups import OWNERS, SCORECARDS
from clipcov_assets.assets.scorecards import scores_table
from clipcov_assets.automation import when_inputs_change
from clipcov_assets.core import METHODS
from clipcov_assets.export.charts import accuracy_curves
from clipcov_assets.export.report import html_report
from clipcov_assets.export.scoreboard import comparison_markdown
from clipcov_assets.partitions import crawl_order, crawls, fraction_key, fractions_of, of_crawl, the_crawl
from clipcov_assets.provenance import content_version, latest_input, materialized
from clipcov_assets.tables import SCORES, column_schema
from resources.lance_store import LanceStore
from resources.mlflow_tracker import MlflowTracker
from resources.report_shelf import ReportShelf


@dg.asset(
    partitions_def=crawls,
    deps=[dg.AssetDep(f"{method}_scorecard", partition_mapping=the_crawl) for method in METHODS],
    group_name=SCORECARDS,
    owners=OWNERS,
    kinds={"lancedb", "polars"},
    tags={"clipcov/stage": "compare"},
    code_version="1",
    automation_condition=when_inputs_change,
    metadata={"dagster/column_schema": column_schema(SCORES)},
)
def comparison(
    context: dg.AssetExecutionContext, store: LanceStore, shelf: ReportShelf, tracker: MlflowTracker
) -> dg.MaterializeResult:
    """Which method keeps most of the full pool's accuracy, and with how few pairs.

    One table over methods and fractions with 95 % intervals, accuracy against subset size as curves, and the smallest
    fraction that reaches 90 % of the full pool's accuracy. It compares every scorecard that the crawl has so far and
    says which are missing. The HTML report holds all crawls.
    """
    crawl = context.partition_key
    wanted = [(method, fraction) for method in METHODS for fraction in fractions_of(method)]
    present = [one for one in wanted if store.exists(scores_table(one[0]), of_crawl(crawl, one[1]))]
    if not present:
        raise dg.Failure(f"{crawl} has no scorecard yet: materialize scorecards of it first", allow_retries=False)
    rows = pa.concat_tables(
        [store.read(scores_table(method), of_crawl(crawl, fraction)) for method, fraction in present]
    )
    written = store.write("comparison", crawl, rows)
    scores = _all_comparisons(context, store)
    picture = accuracy_curves(scores, crawl)
    links = {"Dagster": f"{shelf.dagster_ui}/assets/comparison", "MLflow": tracker.ui}
    report = shelf.write("comparison.html", html_report(scores, links=links).encode())
    inputs = [latest_input(context, f"{method}_scorecard", of_crawl(crawl, fraction)) for method, fraction in present]
    return materialized(
        written,
        content_version(rows),
        inputs,
        metadata={
            "comparison": dg.MetadataValue.md(f"{_inline(picture)}\n\n{comparison_markdown(scores, crawl)}"),
            "curves": dg.MetadataValue.path(shelf.write(f"curves-{crawl}.png", picture)),
            "report": dg.MetadataValue.path(report),
            "scorecards": len(present),
            "scorecards_missing": len(wanted) - len(present),
            **_numbers(rows),
        },
    )


def _all_comparisons(context: dg.AssetExecutionContext, store: LanceStore) -> pl.DataFrame:
    """The scores of every crawl that has been compared so far, oldest first."""
    known = sorted(crawls.get_partition_keys(dynamic_partitions_store=context.instance), key=crawl_order)
    tables = [store.read("comparison", crawl) for crawl in known if store.exists("comparison", crawl)]
    return pl.DataFrame(pa.concat_tables(tables))


def _inline(picture: bytes) -> str:
    """A picture that Dagster shows: it has no type for pictures, but Markdown may hold one."""
    return f"![accuracy against subset size](data:image/png;base64,{base64.b64encode(picture).decode()})"


def _numbers(rows: pa.Table) -> dict[str, float]:
    """acc1 of each method, fraction and set as a number of its own, so that Dagster plots it over crawls."""
    wanted = [row for row in rows.to_pylist() if row["metric"] == "acc1"]
    return {
        f"acc1/{row['evaluation_set']}/{row['method']}/{fraction_key(row['fraction'])}": row["value"] for row in wanted
    }
