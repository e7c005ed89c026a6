"""What a comparison is drawn and written from: the tables of all crawls, as they are stored."""

from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class ComparisonTables:
    """Tables with the columns of `clipcov_assets.tables`, over any number of crawls; all but the scores may be empty.

    Attributes:
        scores: One row a (crawl, method, fraction, evaluation_set, metric).
        groups: One row a (crawl, method, fraction, group).
        differences: One row a (crawl, fraction, method, other, evaluation_set).
        trainings: One row a (crawl, method, fraction, seed).
        class_recalls: One row a (crawl, method, fraction, evaluation_set, label).
        curves: One row a step of a training, with its crawl, method and fraction.
    """

    scores: pl.DataFrame
    groups: pl.DataFrame
    differences: pl.DataFrame
    trainings: pl.DataFrame
    class_recalls: pl.DataFrame
    curves: pl.DataFrame


def of_crawl(table: pl.DataFrame, crawl: str) -> pl.DataFrame:
    """Return the rows of one crawl; a table without rows may lack its columns too."""
    return table if table.is_empty() else table.filter(pl.col("crawl") == crawl)
