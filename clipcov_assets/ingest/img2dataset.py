"""Deliveries of tars: img2dataset's NNNNN.tar, .parquet and _stats.json, and plain webdataset tars.

img2dataset writes the statistics of a shard last, so they mark it as complete: no statistics, no ingest. Plain
tars have no such mark, so they are read only where `delivery.toml` says that they are webdataset.
"""

from pathlib import Path

from clipcov_assets.ingest.delivery import DeliveryError, DeliveryOptions, Format, Shard, printable
from clipcov_assets.ingest.img2dataset_promise import STATISTICS
from clipcov_assets.ingest.img2dataset_shard import TarOfPairs
from clipcov_assets.ingest.looking import linked_out

_DOWNLOAD_AGAIN = "run img2dataset again with the same arguments, it finishes what is missing"
_SAY_WEBDATASET = 'or, if these are complete tars from elsewhere, write format = "webdataset" into delivery.toml'


def _is_img2dataset(directory: Path) -> bool:
    return bool(_named(directory, ".tar") or _named(directory, STATISTICS))


def _img2dataset_obstacle(directory: Path) -> str | None:
    tars = {path.name.removesuffix(".tar") for path in _named(directory, ".tar")}
    finished = {path.name.removesuffix(STATISTICS) for path in _named(directory, STATISTICS)}
    if not directory.is_dir() or not tars | finished:
        return _nothing_here(directory, "run img2dataset with --output_format webdataset and this output folder")
    if (directory / "_tmp").exists():  # img2dataset removes it when it ends
        return f"{directory} is being written, or was broken off: it holds _tmp; wait, or {_DOWNLOAD_AGAIN}"
    for name in sorted(tars - finished):
        place = directory / printable(name)
        return f"{place}.tar is unfinished: no {place.name}{STATISTICS} beside it; {_DOWNLOAD_AGAIN}, {_SAY_WEBDATASET}"
    for name in sorted(finished - tars):
        place = directory / printable(name)
        return f"{place}.tar is missing; delete {place.name}{STATISTICS} and {_DOWNLOAD_AGAIN}"
    return _statistics_outside(directory)


def _webdataset_obstacle(directory: Path) -> str | None:
    if not _named(directory, ".tar"):
        return _nothing_here(directory, "put the tars there")
    return _statistics_outside(directory)


def _named(directory: Path, end: str) -> list[Path]:
    """Files whose names end so, by name, without hidden ones such as what macOS leaves beside a tar."""
    return sorted(path for path in directory.glob(f"*{end}") if not path.name.startswith("."))


def _nothing_here(directory: Path, remedy: str) -> str:
    if not directory.is_dir():
        return f"no delivery at {directory}: it is not a directory; correct the path or put the crawl there"
    return f"no delivery in {directory}: it holds no .tar; {remedy}"


def _statistics_outside(directory: Path) -> str | None:
    # `find` looks at links to tars and tables; a .json may also be the metadata of one image, so it leaves them out.
    link = linked_out(directory, frozenset({".json"}))
    return f"{directory / printable(link.name)} leads out of the folder; put the file itself there" if link else None


def _shards(directory: Path, options: DeliveryOptions) -> tuple[Shard, ...]:
    caption = options.caption or "txt"
    if caption not in ("txt", "json"):
        raise DeliveryError(
            f'{directory / "delivery.toml"}: caption = "{printable(caption)}", but tars have it in "txt" or "json"'
        )
    return tuple(TarOfPairs(path, caption) for path in _named(directory, ".tar"))


IMG2DATASET = Format("img2dataset", is_here=_is_img2dataset, obstacle=_img2dataset_obstacle, shards=_shards)
WEBDATASET = Format("webdataset", is_here=lambda _: False, obstacle=_webdataset_obstacle, shards=_shards)
