"""Judges whether a delivery in an object store is complete, by the names that a listing has: nothing is read.

A store shows a file only when it is whole, so a long upload shows nothing for minutes; and `delivery.toml` is not read
here. What cannot be told from names, `find_delivery` decides on the copy.
"""

from collections.abc import Collection

from clipcov_assets.ingest.delivery import printable
from clipcov_assets.ingest.img2dataset_promise import STATISTICS
from clipcov_assets.ingest.looking import IMAGE_SUFFIXES, TABLE_SUFFIXES, is_copied_now, suffix_of
from clipcov_assets.ingest.options import FILE

SETTLED_SECONDS = 600.0
_READABLE = IMAGE_SUFFIXES | TABLE_SUFFIXES | {".npy"}


def why_listing_incomplete(
    place: str, names: Collection[str], *, rested: float, settled_seconds: float = SETTLED_SECONDS
) -> str | None:
    """Return why a delivery is not to be copied yet, None where it is complete.

    Args:
        place: Where it lies, for the message.
        names: Its files, with `/` between folders.
        rested: Seconds since the newest of them appeared.
        settled_seconds: How long a delivery without marks of completion must have rested.
    """
    if obstacle := listing_obstacle(place, names):
        return obstacle
    if not _named(names, STATISTICS) and rested < settled_seconds:
        return f"{place} changed {max(0, rested):.0f} s ago; it is taken after {settled_seconds:.0f} s of rest"
    return None


def listing_obstacle(place: str, names: Collection[str]) -> str | None:
    """Return why a delivery cannot be complete, however long it rests; None where nothing speaks against it."""
    for name in names:
        if any(map(is_copied_now, name.split("/"))):
            return (
                f"{place}/{printable(name)} looks like a copy in progress; "
                "wait until it ends, or delete it if it was broken off"
            )
        if name.startswith("_tmp/"):  # img2dataset removes it when it ends
            return f"{place} is being written by img2dataset, or was broken off: it holds _tmp"
    tars, finished = _named(names, ".tar"), _named(names, STATISTICS)
    if not tars | finished:
        return None if any(suffix_of(name) in _READABLE for name in names) else f"no delivery recognised in {place}"
    if not finished and FILE in names:  # plain tars, which `delivery.toml` says are complete
        return None
    for name in sorted(tars - finished):
        return (
            f"{place}/{printable(name)}.tar is unfinished: no {printable(name)}{STATISTICS} beside it; wait for it, or "
            f'if no tar has one, write format = "webdataset" into {place}/{FILE}'
        )
    for name in sorted(finished - tars):
        return f"{place}/{printable(name)}.tar is missing; wait for it, or delete {printable(name)}{STATISTICS}"
    return None


def _named(names: Collection[str], end: str) -> set[str]:
    """Files of the delivery's own folder whose names end so, without that end and without hidden ones."""
    return {name.removesuffix(end) for name in names if name.endswith(end) and "/" not in name and name[0] != "."}
