"""All scorecards of a crawl become one comparison: table, curves, report."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import numpy as np
import polars as pl
import pyarrow as pa

from clipcov_assets.assets.groups import SCORECARDS
from clipcov_assets.assets.road_asset import road_asset
from clipcov_assets.automation import when_scored
from clipcov_assets.core.metrics import adjusted_p_values, paired_difference
from clipcov_assets.core.suite import CLASSIFICATION
from clipcov_assets.export.charts import pictures
from clipcov_assets.export.comparison_tables import ComparisonTables
from clipcov_assets.export.differences import differences_markdown
from clipcov_assets.export.escape import escape_markdown
from clipcov_assets.export.headline import headline
from clipcov_assets.export.markdown import comparison_markdown, pictures_markdown
from clipcov_assets.export.report import html_report, report_name
from clipcov_assets.export.standings import ABSENT, percent
from clipcov_assets.galleries import gallery_name
from clipcov_assets.methods import SELECTIONS
from clipcov_assets.partitions import crawls, fraction_key, fractions_of, of_crawl, the_crawl
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
    class_recalls_table,
    groups_table,
    schema_of,
    scores_table,
    trainings_table,
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
CURVE_POINTS = 500
# Every scorecard that a crawl may have: method, and partition key of the fraction.
WANTED = [(method, fraction) for method in SELECTIONS for fraction in fractions_of(method)]


@road_asset(
    partitions_def=crawls,
    deps=[dg.AssetDep(f"{method}_scorecard", partition_mapping=the_crawl) for method in SELECTIONS],
    group_name=SCORECARDS,
    kinds={"lancedb", "polars"},
    stage="compare",
    code_version="3",
    automation_condition=when_scored,  # without a table of columns, which would stand above what the scores say
)
def comparison(
    context: dg.AssetExecutionContext, store: LanceStore, shelf: ReportShelf, tracker: MlflowTracker
) -> dg.MaterializeResult:
    """Which method keeps most of the full pool's accuracy, and with how few pairs: begin with `in_words`.

    Scores of methods and fractions with 95 % intervals, accuracy against subset size and against cost, the share of
    the full pool's accuracy that each subset keeps, which differences to ClipCov are real and which are noise, image
    by image, and how each model was trained. It compares every scorecard that the crawl has so far and says how many
    are missing.
    """
    crawl = context.partition_key
    present = [one for one in WANTED if store.exists(scores_table(one[0]), of_crawl(crawl, one[1]))]
    if not present:
        raise dg.Failure(f"{crawl} has no scorecard yet: materialize scorecards of it first", allow_retries=False)
    gathered = {
        name: pa.concat_tables(store.read(table(method), of_crawl(crawl, fraction)) for method, fraction in present)
        for name, (table, _) in GATHERED.items()
    }
    gathered |= {"curves": _curves(store, crawl, present), "differences": _differences(store, crawl)}
    written = {name: store.write(name, crawl, rows) for name, rows in gathered.items()}
    tables = comparison_tables(store, crawl, context.log.warning)
    drawn, said = pictures(tables, crawl), in_words(tables, crawl)
    pages = _links(shelf, tracker, crawl, present, gathered["trainings"])
    opening, rest = escape_markdown(said), f"{comparison_markdown(tables, crawl)}\n{pages}"
    links = {
        "All crawls": shelf.pages,
        "Dagster": f"{shelf.dagster_ui}/assets/comparison",
        "MLflow": tracker.address,
    }
    report = html_report(tables, crawl, links=links, drawn=drawn, wanted=_shares(WANTED))
    report_path = shelf.write(report_name(crawl), report.encode())
    with tracker.shared_run(
        f"{crawl} comparison",
        {"dagster.asset": COMPARISON, "dagster.partition": crawl, "dagster.run": context.run.run_id},
        report=context.log.warning,
    ) as run:
        for name, picture in drawn.items():
            run.log_picture(picture, f"pictures/{name}.png")
        run.log_text(f"{opening}\n\n{rest}", "comparison.md")
    inputs = [latest_input(context, f"{method}_scorecard", of_crawl(crawl, fraction)) for method, fraction in present]
    return materialized(
        written[COMPARISON],
        content_version(gathered[COMPARISON], gathered["differences"]),
        inputs,
        metadata={
            "in_words": said,
            "comparison": dg.MetadataValue.md(f"{opening}\n\n{pictures_markdown(drawn)}\n\n{rest}"),
            "report": dg.MetadataValue.url(shelf.address(report_name(crawl))),
            "report_path": dg.MetadataValue.path(report_path),
            "differences": dg.MetadataValue.md(differences_markdown(tables.differences, crawl)),
            **{name: _shelved(shelf, f"comparisons/{crawl}/{name}.png", picture) for name, picture in drawn.items()},
            "mlflow": dg.MetadataValue.url(_run_page(tracker, run.run_id))
            if run.run_id
            else "MLflow could not be reached",
            "scorecards": len(present),
            "scorecards_missing": len(WANTED) - len(present),
            **_numbers(gathered[COMPARISON]),
        },
    )


def in_words(tables: ComparisonTables, crawl: str) -> str:
    """What a crawl's scores say, and how many of the scorecards of this scale are missing."""
    return headline(tables, crawl, wanted=_shares(WANTED))


def _shares(scorecards: Iterable[tuple[str, str]]) -> list[tuple[str, float]]:
    return [(method, fractions_of(method)[fraction]) for method, fraction in scorecards]


def _shelved(shelf: ReportShelf, name: str, picture: bytes) -> dg.UrlMetadataValue:
    shelf.write(name, picture)
    return dg.MetadataValue.url(shelf.address(name))


def _run_page(tracker: MlflowTracker, run_id: str) -> str:
    """A short address of a run: a long one pushes the words beside it off Dagster's page."""
    return f"{tracker.address}/#/runs/{run_id}"


def _links(
    shelf: ReportShelf, tracker: MlflowTracker, crawl: str, present: list[tuple[str, str]], trainings: pa.Table
) -> str:
    """A table that leads from each method and fraction to its pages; a page that is not there is not linked."""
    runs: dict[tuple[str, float], list[str]] = {}
    for one in trainings.select(["method", "fraction", "seed", "mlflow_run_id"]).to_pylist():
        if one["mlflow_run_id"]:
            link = f"[seed {one['seed']}]({_run_page(tracker, one['mlflow_run_id'])})"
            runs.setdefault((one["method"], one["fraction"]), []).append(link)
    lines = ["### Where to look further", "", "| subset | gallery | scorecard | MLflow |", "| --- | --- | --- | --- |"]
    for method, fraction in present:
        share, partition = fractions_of(method)[fraction], of_crawl(crawl, fraction)
        subset, scorecard = (
            f"{shelf.dagster_ui}/assets/{method}_{noun}?view=partitions&partition={quote(partition)}"
            for noun in ("subset", "scorecard")
        )
        cells = (
            f"[{method} {percent(share)}]({subset})",
            _gallery(shelf, method, partition),
            f"[scorecard]({scorecard})",
            ", ".join(runs.get((method, share), [])) or ABSENT,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _gallery(shelf: ReportShelf, method: str, partition: str) -> str:
    """A link to a subset's gallery, where there is one."""
    name = gallery_name(f"{method}_subset", partition)
    return f"[gallery]({shelf.address(name)})" if Path(shelf.directory, name).is_file() else ABSENT


def _curves(store: LanceStore, crawl: str, present: list[tuple[str, str]]) -> pa.Table:
    """The learning curves behind a crawl's scorecards, thinned, with what each was trained on."""
    curves = []
    for method, fraction in present:
        curve = thinned(store.read(f"{method}_checkpoint", of_crawl(crawl, fraction)))
        for name, value in (("fraction", fractions_of(method)[fraction]), ("method", method), ("crawl", crawl)):
            curve = curve.add_column(0, name, pa.repeat(value, len(curve)))
        curves.append(curve)
    return pa.concat_tables(curves).cast(CURVES)


def thinned(curve: pa.Table, points: int = CURVE_POINTS) -> pa.Table:
    """At most so many steps of each seed, evenly spaced, first and last among them: a long training has millions.

    Args:
        curve: Rows in the columns of CURVE, those of a seed in the order of its steps.
        points: Most steps of a seed.
    """
    seeds = curve["seed"].to_numpy()
    kept = [np.empty(0, np.int64)]
    for seed in np.unique(seeds):
        steps = np.flatnonzero(seeds == seed)
        kept.append(steps[np.linspace(0, len(steps) - 1, min(points, len(steps))).astype(np.int64)])
    return curve.take(pa.array(np.concatenate(kept)))


def comparison_tables(store: LanceStore, crawl: str, report: Callable[[str], None]) -> ComparisonTables:
    """The tables of a crawl that was compared.

    Args:
        store: Holds them.
        crawl: Its name.
        report: Told of tables that another version of this project wrote; they are left out.
    """
    schemas = {name: schema for name, (_, schema) in GATHERED.items()} | {"curves": CURVES, "differences": DIFFERENCES}
    found = {}
    for name, schema in schemas.items():
        rows = store.read(name, crawl) if store.exists(name, crawl) else schema.empty_table()
        if rows.schema.names != schema.names:
            report(f"{name} of {crawl} is of an earlier version, left out: materialize comparison again")
            rows = schema.empty_table()
        found[name] = pl.DataFrame(rows)
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
        for other in SELECTIONS:
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
    for method in SELECTIONS:
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
        f"{row['evaluation_set']}/{row['method']}/{fraction_key(row['fraction'])}": legible(row["value"])
        for row in rows.to_pylist()
        if row["is_main"]
    }
