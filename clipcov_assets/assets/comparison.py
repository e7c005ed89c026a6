"""All scorecards of a crawl become one comparison: table, curves, report."""

import base64
from collections.abc import Iterator
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa

from clipcov_assets.assets.groups import OWNERS, SCORECARDS
from clipcov_assets.assets.scorecards import scores_table
from clipcov_assets.automation import when_inputs_change
from clipcov_assets.core import METHODS
from clipcov_assets.core.metrics import adjusted_p_values, paired_difference
from clipcov_assets.export.charts import accuracy_curves
from clipcov_assets.export.differences import differences_markdown
from clipcov_assets.export.report import html_report
from clipcov_assets.export.scoreboard import comparison_markdown
from clipcov_assets.partitions import crawl_order, crawls, fraction_key, fractions_of, of_crawl, the_crawl
from clipcov_assets.provenance import content_version, latest_input, materialized
from clipcov_assets.scales import SCALE
from clipcov_assets.tables import DIFFERENCES, SCORES, column_schema
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
    code_version="2",
    automation_condition=when_inputs_change,
    metadata={"dagster/column_schema": column_schema(SCORES)},
)
def comparison(
    context: dg.AssetExecutionContext, store: LanceStore, shelf: ReportShelf, tracker: MlflowTracker
) -> dg.MaterializeResult:
    """Which method keeps most of the full pool's accuracy, and with how few pairs.

    One table over methods and fractions with 95 % intervals, accuracy against subset size as curves, the smallest
    fraction that reaches 90 % of the full pool's accuracy, and which differences to ClipCov are real and which are
    noise, image by image. It compares every scorecard that the crawl has so far and says which are missing. The HTML
    report holds all crawls.
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
    differences = _differences(store, crawl)
    store.write("differences", crawl, differences)
    scores = _of_all_crawls(context, store, "comparison")
    picture = accuracy_curves(scores, crawl)
    links = {"Dagster": f"{shelf.dagster_ui}/assets/comparison", "MLflow": tracker.ui}
    page = html_report(scores, _of_all_crawls(context, store, "differences"), links=links)
    report = shelf.write("comparison.html", page.encode())
    inputs = [latest_input(context, f"{method}_scorecard", of_crawl(crawl, fraction)) for method, fraction in present]
    return materialized(
        written,
        content_version(rows, differences),
        inputs,
        metadata={
            "comparison": dg.MetadataValue.md(f"{_inline(picture)}\n\n{comparison_markdown(scores, crawl)}"),
            "differences": dg.MetadataValue.md(differences_markdown(pl.DataFrame(differences), crawl)),
            "curves": dg.MetadataValue.path(shelf.write(f"curves-{crawl}.png", picture)),
            "report": dg.MetadataValue.path(report),
            "scorecards": len(present),
            "scorecards_missing": len(wanted) - len(present),
            **_numbers(rows),
        },
    )


def _of_all_crawls(context: dg.AssetExecutionContext, store: LanceStore, table: str) -> pl.DataFrame:
    """A table of every crawl that has been compared so far, oldest first."""
    known = sorted(crawls.get_partition_keys(dynamic_partitions_store=context.instance), key=crawl_order)
    return pl.DataFrame(pa.concat_tables([store.read(table, crawl) for crawl in known if store.exists(table, crawl)]))


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
        for other in METHODS:
            for name, theirs in hits.get(other, {}).items():
                ours = hits.get("clipcov", {}).get(name)
                # Two scorecards of different images, one made before the set was changed, cannot be paired.
                if other == "clipcov" or ours is None or not ours.select("key").equals(theirs.select("key")):
                    continue
                hit, other_hit = (one["hit"].to_numpy() for one in (ours, theirs))
                found = paired_difference(hit, other_hit, seed=SCALE.seed)
                yield {
                    "crawl": crawl,
                    "fraction": share,
                    "method": "clipcov",
                    "other": other,
                    "evaluation_set": name,
                    "images": len(hit),
                    "difference": found.value,
                    "low": found.low,
                    "high": found.high,
                    "p_value": found.p_value,
                }


def _hits(store: LanceStore, crawl: str, fraction: str) -> dict[str, dict[str, pl.DataFrame]]:
    """Method -> evaluation set -> key and hit of every image, by key; methods without a scorecard are left out."""
    hits = {}
    for method in METHODS:
        partition = of_crawl(crawl, fraction)
        if fraction in fractions_of(method) and store.exists(f"{method}_scorecard", partition):
            stored = store.read(f"{method}_scorecard", partition, ["evaluation_set", "key", "rank_of_label"])
            rows = pl.DataFrame(stored).with_columns(hit=pl.col("rank_of_label") == 0).sort("key")
            sets = rows.partition_by("evaluation_set", as_dict=True)
            hits[method] = {str(name): found for (name,), found in sets.items()}
    return hits


def _inline(picture: bytes) -> str:
    """A picture that Dagster shows: it has no type for pictures, but Markdown may hold one."""
    return f"![accuracy against subset size](data:image/png;base64,{base64.b64encode(picture).decode()})"


def _numbers(rows: pa.Table) -> dict[str, float]:
    """acc1 of each method, fraction and set as a number of its own, so that Dagster plots it over crawls."""
    wanted = [row for row in rows.to_pylist() if row["metric"] == "acc1"]
    return {
        f"acc1/{row['evaluation_set']}/{row['method']}/{fraction_key(row['fraction'])}": row["value"] for row in wanted
    }
