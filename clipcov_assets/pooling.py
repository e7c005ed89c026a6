"""Which crawls a pool takes in: those before its own that are classified and sound."""

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from clipcov_assets.input_versions import data_versions
from clipcov_assets.partitions import crawl_order

# What must hold of a crawl before any pool takes it in: its blocking checks.
CRAWL_CHECKS = {
    "raw_pairs": ("unique_uids", "pairs_accounted_for", "few_quarantined"),
    "embeddings": ("unit_and_finite", "one_embedding_a_pair"),
    "latent_classes": ("one_class_a_pair",),
}


def earlier_crawls(instance: dg.DagsterInstance, crawl: str) -> list[str]:
    """The crawls before one, oldest first, whatever has become of them; those that are withdrawn are none any more."""
    known = instance.get_dynamic_partitions("crawl")
    return sorted((name for name in known if crawl_order(name) < crawl_order(crawl)), key=crawl_order)


def sound_crawls(instance: dg.DagsterInstance, crawl: str) -> dict[str, str]:
    """Those of the earlier crawls that the pool as of a crawl takes in, each with the version of its latent classes."""
    versions = data_versions(instance, dg.AssetKey("latent_classes"))
    classified = [name for name in earlier_crawls(instance, crawl) if name in versions]
    unsound = _unsound(instance, classified)
    return {name: versions[name] for name in classified if name not in unsound}


def _unsound(instance: dg.DagsterInstance, crawls: list[str]) -> set[str]:
    """Those of the crawls of which a blocking check failed when it was last looked at."""
    keys = [dg.AssetCheckKey(dg.AssetKey(asset), name) for asset, names in CRAWL_CHECKS.items() for name in names]
    found = instance.event_log_storage.get_asset_check_partition_info(keys, partition_keys=crawls) if crawls else ()
    failed = AssetCheckExecutionRecordStatus.FAILED
    return {one.partition_key for one in found if one.latest_execution_status == failed and one.partition_key}
