"""One crawl's averages over groups of evaluation sets. A table with a row a (crawl, method, fraction, group) enters."""

from collections.abc import Iterator, Mapping

import polars as pl

from clipcov_assets.core.metrics import Estimate
from clipcov_assets.core.suite import GROUPS
from clipcov_assets.export.comparison_tables import of_crawl
from clipcov_assets.export.standings import printable


def group_estimates(groups: pl.DataFrame, crawl: str) -> Mapping[tuple[str, float, str], Estimate]:
    """Return (method, fraction, group) -> average, small fractions first; groups without a value are left out."""
    rows = of_crawl(groups, crawl)
    if rows.is_empty():
        return {}
    found = rows.filter(pl.col("value").is_not_null()).sort("fraction", "method", "group")
    return {
        (row["method"], row["fraction"], row["group"]): Estimate(
            row["value"], row["low"], row["high"], row["seed_deviation"]
        )
        for row in found.iter_rows(named=True)
    }


def group_titles(groups: pl.DataFrame, crawl: str) -> Mapping[str, str]:
    """Return group -> title of all groups, empty ones too, in the order in which people name them."""
    rows = of_crawl(groups, crawl)
    if rows.is_empty():
        return {}
    present = set(rows["group"])
    known = {group.name: group.title for group in GROUPS if group.name in present}
    return known | {name: printable(name) for name in sorted(present - set(known))}


def empty_groups(groups: pl.DataFrame, crawl: str) -> Iterator[str]:
    """Say of each group without a value why it has none, and of how many scorecards that holds where not of all."""
    rows = of_crawl(groups, crawl)
    for group, title in group_titles(groups, crawl).items():
        of_group = rows.filter(pl.col("group") == group)
        counts = of_group.filter(pl.col("value").is_null()).group_by("reason").len().sort("reason")
        for reason, count in counts.iter_rows():
            share = "" if count == len(of_group) else f" in {count} of {len(of_group)} scorecards"
            yield f"No value for {title}{share}: {reason}"
