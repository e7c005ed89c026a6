"""Reads a delivery that img2dataset wrote as webdataset: a folder of NNNNN.tar, .parquet and _stats.json.

The statistics of a shard are written last, so they mark it as complete: no statistics, no ingest.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from clipcov_assets.ingest.delivery import DeliveryError, Fault, Pair, Reason, ShardContents
from clipcov_assets.ingest.img2dataset_shard import DOWNLOAD_AGAIN, STATISTICS, read_shard


def is_complete(directory: Path) -> bool:
    """Whether every shard of the delivery has been written to its end."""
    try:
        return _obstacle(directory) is None
    except OSError:
        return False


def read_delivery(directory: Path) -> Iterator[ShardContents]:
    """Yield the shards of a delivery in the order of their names, each read when it is asked for.

    Of pairs with the same uid the first is kept. Memory holds shards that the caller holds, and all uids.

    Raises:
        DeliveryError: At once, if there is no delivery or it is unfinished; on the way, if the statistics
            or the parquet table of a shard cannot be read.
    """
    if obstacle := _obstacle(directory):
        raise DeliveryError(obstacle)
    return _first_of_each_uid(read_shard(tar) for tar in sorted(directory.glob("*.tar")))


def _obstacle(directory: Path) -> str | None:
    """What keeps the delivery from being read, with the remedy."""
    if not directory.is_dir():
        return f"no delivery at {directory}: it is not a directory; correct the path or put the crawl there"
    tars = {path.name.removesuffix(".tar") for path in directory.glob("*.tar")}
    finished = {path.name.removesuffix(STATISTICS) for path in directory.glob(f"*{STATISTICS}")}
    if not tars | finished:
        return (
            f"no delivery in {directory}: it holds no .tar; "
            "run img2dataset with --output_format webdataset and this output folder"
        )
    if (directory / "_tmp").exists():  # img2dataset removes it when it ends
        return f"{directory} is being written, or was broken off: it holds _tmp; wait, or {DOWNLOAD_AGAIN}"
    for name in sorted(tars - finished):
        return f"{directory / name}.tar is unfinished: no {name}{STATISTICS} beside it; {DOWNLOAD_AGAIN}"
    for name in sorted(finished - tars):
        return f"{directory / name}.tar is missing; delete {name}{STATISTICS} and {DOWNLOAD_AGAIN}"
    return None


def _first_of_each_uid(shards: Iterator[ShardContents]) -> Iterator[ShardContents]:
    shard_of_uid: dict[str, str] = {}
    for shard in shards:
        kept: list[Pair] = []
        faults = list(shard.faults)
        for pair in shard.pairs:
            if pair.uid in shard_of_uid:
                detail = f"first in shard {shard_of_uid[pair.uid]}"
                faults.append(Fault(pair.source, pair.uid, Reason.DUPLICATE_UID, detail))
            else:
                shard_of_uid[pair.uid] = shard.name
                kept.append(pair)
        yield replace(shard, pairs=tuple(kept), faults=tuple(faults))
