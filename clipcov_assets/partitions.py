"""The partition dimensions (crawl, class shard, fraction), the mappings between them, and crawl names."""

import re
import warnings

import dagster as dg

from clipcov_assets.scales import SCALE

# Multi-partition mappings and partitioned checks are marked beta and preview in Dagster 1.13. We rely on them
# knowingly, with tests; a warning at every start would only worry the reader.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)

CRAWL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

crawls = dg.DynamicPartitionsDefinition(name="crawl")
class_shards = dg.StaticPartitionsDefinition([f"s{shard:02d}" for shard in range(SCALE.class_shards)])


def check_crawl_name(name: str) -> str:
    """Return a crawl name that is safe as a partition key, a folder and a table name.

    Raises:
        ValueError: The name has other characters, begins with a sign, holds `..` or is too long.
    """
    if CRAWL_NAME.fullmatch(name) is None or ".." in name:
        raise ValueError(
            f"crawl name {name!r} is not allowed: use 1 to 64 of a-z, 0-9, '.', '_' and '-', "
            "beginning with a letter or digit and without '..'; rename the folder"
        )
    return name


def crawl_order(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sort key of crawls, oldest first: numbers inside names count as numbers, so crawl-2 precedes crawl-10."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts), name


def fraction_key(fraction: float) -> str:
    """Partition key of a fraction, zero-padded so that plots sort: 0.05 -> `f05`, 0.025 -> `f02p5`."""
    whole, _, part = f"{fraction * 100:g}".partition(".")
    return f"f{whole:0>2}p{part}" if part else f"f{whole:0>2}"


FRACTIONS = {fraction_key(fraction): fraction for fraction in SCALE.fractions}
FULL_FRACTION = {"f100": 1.0}

fractions = dg.StaticPartitionsDefinition(list(FRACTIONS))
crawl_by_shard = dg.MultiPartitionsDefinition({"crawl": crawls, "shard": class_shards})
crawl_by_fraction = dg.MultiPartitionsDefinition({"crawl": crawls, "fraction": fractions})
crawl_at_full = dg.MultiPartitionsDefinition(
    {"crawl": crawls, "fraction": dg.StaticPartitionsDefinition(list(FULL_FRACTION))}
)


def fractions_of(method: str) -> dict[str, float]:
    """Partition keys and fractions of one method or combination: all of the scale's, or 100 % for `full`."""
    return FULL_FRACTION if method == "full" else FRACTIONS


def partitions_of(method: str) -> dg.MultiPartitionsDefinition:
    """Partitions of a method's or combination's subsets, checkpoints and scorecards."""
    return crawl_at_full if method == "full" else crawl_by_fraction


def dimension(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext, name: str) -> str:
    """One dimension of the partition that runs: its `crawl`, `fraction` or `shard`."""
    key: str = context.partition_key
    if isinstance(key, dg.MultiPartitionKey):
        return key.keys_by_dimension[name]
    if name != "crawl":
        raise ValueError(f"partition {key!r} has no dimension {name!r}")
    return key


def dimensions(context: dg.AssetExecutionContext) -> dict[str, str]:
    """Every dimension of the partition that runs, by name; none where the asset has no partitions."""
    if not context.has_partition_key:
        return {}
    key: str = context.partition_key
    return dict(key.keys_by_dimension) if isinstance(key, dg.MultiPartitionKey) else {"crawl": key}


def of_crawl(crawl: str, other: str) -> str:
    """Partition key of a crawl and one of its fractions or class shards, as Dagster writes it."""
    return f"{crawl}|{other}"


# All of a crawl's fractions or shards belong to the crawl, whichever side of an edge has two dimensions. Between
# two definitions of two dimensions Dagster's default maps to nothing, silently: there, write the mapping out.
the_crawl = dg.MultiToSingleDimensionPartitionMapping("crawl")
