"""A crawl's delivery, wherever it lies: in a directory it is read where it is, from an address it is copied first."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clipcov_assets.ingest.delivery import Delivery, DeliveryError, look
from clipcov_assets.ingest.find import find_delivery
from clipcov_assets.ingest.listing import listing_obstacle
from clipcov_assets.progress import Progress
from resources.crawl_catalog import CrawlCatalog
from resources.mirror import mirror


@dataclass(frozen=True)
class Fetched:
    """A delivery that can be read.

    Attributes:
        delivery: Its format and shards.
        look: Digest of the names, sizes and times of its files before they were read.
        place: Where it was delivered, without secrets.
    """

    delivery: Delivery
    look: str
    place: str


@contextmanager
def fetched(catalog: CrawlCatalog, crawl: str, copies: Path, report: Callable[[str], None]) -> Iterator[Fetched]:
    """Lend the delivery of a crawl.

    The copy of a delivery from an address is removed afterwards. After an error or a kill it stays, and the next call
    goes on with the files that are there. Only one process may fetch a crawl at a time.

    Args:
        catalog: Where it lies.
        crawl: Its name, which is safe as a name of a folder.
        copies: Directory for the copy; it needs as much room as the delivery.
        report: Takes a sentence on how far the copy is, such as a logger's `info`.

    Raises:
        FileNotFoundError: No such crawl, or it was withdrawn.
        DeliveryError: It is not complete, or in no format or several.
        UnreadableAddressError: The address cannot be read.
        FullDiskError: There is no room for the copy.
    """
    if not catalog.is_remote:
        folder = catalog.folder(crawl)
        seen = look(folder)
        yield Fetched(find_delivery(folder), seen, str(folder))
        return
    catalog.check_there(crawl)
    listing = catalog.listing(crawl)
    if obstacle := listing_obstacle(listing.address, listing.names):
        raise DeliveryError(obstacle)
    copy = copies.resolve() / f"delivery.{crawl}"
    wanted = listing.only(_is_read)
    report(f"{crawl}: copying {wanted.size / 10**9:,.2f} GB from {listing.address} to {copy}")
    progress = Progress(wanted.size, "files", report)
    mirror(wanted, copy, on_copied=lambda size: progress.add(1, of_total=size))
    try:
        delivery = find_delivery(copy)
    except DeliveryError as error:
        raise DeliveryError(str(error).replace(str(copy), listing.address)) from error
    yield Fetched(delivery, listing.fingerprint(), listing.address)
    shutil.rmtree(copy)


def look_again(catalog: CrawlCatalog, crawl: str) -> str:
    """Return the digest of names, sizes and times that `fetched` would give now; no file is read.

    Raises:
        FileNotFoundError: No such crawl, or it was withdrawn.
        UnreadableAddressError: The address cannot be read.
    """
    return catalog.listing(crawl).fingerprint() if catalog.is_remote else look(catalog.folder(crawl))


def _is_read(place: PurePosixPath) -> bool:
    """Readers pass hidden files over."""
    return not any(part.startswith(".") for part in place.parts)
