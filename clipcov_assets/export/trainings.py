"""One crawl's trainings, a row a checkpoint: what each saw and what it cost. A table with a row a seed enters."""

import polars as pl

from clipcov_assets.export.comparison_tables import of_crawl

SECONDS_AN_HOUR = 3600


def checkpoint_costs(trainings: pl.DataFrame, crawl: str) -> pl.DataFrame:
    """Put the seeds of each checkpoint together.

    Returns:
        method, fraction, pairs, seeds, samples_seen, epochs, warmup_share, max_learning_rate, last_learning_rate,
        seconds, device_hours, device, recipe_hash: small fractions first, then by method. Costs are those of one
        training, the mean over seeds; device-hours are seconds times devices. Where seeds had different devices or
        recipes, `device` and `recipe_hash` name all of them. Empty where nothing is known of the crawl.
    """
    rows = of_crawl(trainings, crawl)
    if rows.is_empty():
        return pl.DataFrame()
    means = [
        "samples_seen",
        "epochs",
        "warmup_share",
        "max_learning_rate",
        "last_learning_rate",
        "seconds",
        "device_hours",
    ]
    hours = (pl.col("seconds") * pl.col("devices") / SECONDS_AN_HOUR).alias("device_hours")
    # Sums in one order, so that equal rows give equal bytes.
    ordered = rows.with_columns(hours).sort("fraction", "method", "seed")
    return ordered.group_by("fraction", "method", maintain_order=True).agg(
        pl.col("pairs").first(),
        pl.col("seed").n_unique().alias("seeds"),
        pl.col(means).mean(),
        pl.col("device", "recipe_hash").unique().sort().str.join(", "),
    )
