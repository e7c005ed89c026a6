"""The subsets of two methods become one: what both pick, what either picks, or what one picks and the other not."""

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipcov_assets.assets.groups import SUBSETS
from clipcov_assets.assets.road_asset import road_asset
from clipcov_assets.assets.subsets import describe_subset, shelve_gallery
from clipcov_assets.automation import reselect
from clipcov_assets.core.set_algebra import Combination
from clipcov_assets.partitions import dimension, partitions_of
from clipcov_assets.provenance import content_version, latest_input, materialized
from clipcov_assets.tables import RANKING, column_schema
from resources.lance_store import LanceStore
from resources.report_shelf import ReportShelf


def combined_subset_asset(combination: Combination) -> dg.AssetsDefinition:
    """The subsets of one combination as an asset, one partition for each crawl and fraction."""
    name = combination.name
    sources = [f"{method}_subset" for method in combination.methods]

    @road_asset(
        name=f"{name}_subset",
        partitions_def=partitions_of(name),
        deps=sources,
        group_name=SUBSETS,
        kinds={"lancedb"},
        stage="select",
        method=name,
        code_version="1",
        automation_condition=reselect,
        metadata={"dagster/column_schema": column_schema(RANKING)},
        description=(
            f"{combination.summary} To train on, made of both methods' subsets at the same fraction.\n\n"
            "How many pairs it has follows from theirs: beside a subset of the same fraction, look at the pairs. A "
            f"gain is that of {combination.first} where it picks the pair, else that of {combination.second}; gains "
            "of two methods cannot be compared."
        ),
    )
    def subset(context: dg.AssetExecutionContext, store: LanceStore, shelf: ReportShelf) -> dg.MaterializeResult:
        crawl, fraction, partition = dimension(context, "crawl"), dimension(context, "fraction"), context.partition_key
        first, second = (store.read(source, partition, RANKING.names).sort_by("rank") for source in sources)
        rows = combined(combination, first, second)
        if not len(rows):
            raise ValueError(
                f"{name}_subset of {partition} would hold no pair, so there is nothing to train on. It is for: "
                f"{combination.summary} Look at a larger fraction, or write another combination in CLIPCOV_COMBINATIONS"
            )
        written = store.write(f"{name}_subset", partition, rows)
        return materialized(
            written,
            content_version(rows),
            inputs=[latest_input(context, source, partition) for source in sources],
            metadata={
                **describe_subset(store, name, crawl, fraction, rows),
                **shelve_gallery(context.log, store, shelf, f"{name}_subset", partition),
            },
        )

    return subset


def combined(combination: Combination, first: pa.Table, second: pa.Table) -> pa.Table:
    """Combine two subsets.

    Args:
        combination: How.
        first: (n) rows in the columns of RANKING and the order of the ranks.
        second: (m) likewise.

    Returns:
        Rows in the columns of RANKING and the order of their ranks, which begin at 0 again; the gain is that of the
        first subset where it holds the pair.
    """
    both = pa.concat_tables([first, second])
    # A pair is named by its first row of both: numbers combine faster than uids, and lead to the gain.
    row = pc.index_in(both["uid"], value_set=both["uid"].combine_chunks()).to_numpy()
    chosen = both.take(pa.array(combination(row[: len(first)], row[len(first) :])))
    return pa.table({"uid": chosen["uid"], "rank": np.arange(len(chosen)), "gain": chosen["gain"]}, schema=RANKING)
