"""Finds out in which format a folder is delivered, and whether it is complete."""

import time
from pathlib import Path

from clipcov_assets.ingest import clip_retrieval, datacomp, image_folder, image_table, parquet_images, url_list
from clipcov_assets.ingest.delivery import Delivery, DeliveryError, DeliveryOptions, Format, printable
from clipcov_assets.ingest.img2dataset import IMG2DATASET, WEBDATASET
from clipcov_assets.ingest.looking import TABLE_SUFFIXES, copy_in_progress, last_change, linked_out
from clipcov_assets.ingest.options import FILE, read_options

FORMATS = (
    IMG2DATASET,
    WEBDATASET,
    datacomp.FORMAT,
    clip_retrieval.FORMAT,
    parquet_images.FORMAT,
    image_table.FORMAT,
    image_folder.FORMAT,
    url_list.FORMAT,
)

# clip-retrieval's metadata are a table of images, and it may be written beside the images that it embedded.
_BROUGHT_ALONG = {clip_retrieval.FORMAT.name: {image_table.FORMAT.name, image_folder.FORMAT.name}}
_WITH_COMPLETION_MARK = (IMG2DATASET,)
_READ_BY_NAME = TABLE_SUFFIXES | {".tar", ".npz", ".npy"}


def find_delivery(directory: Path) -> Delivery:
    """Look at a folder and cut it into shards; no image is read.

    Raises:
        DeliveryError: It is no folder, in no format or in several, or not complete; the message names the remedy.
    """
    try:
        chosen, options = _look(directory)
        if obstacle := _obstacle(directory, chosen):
            raise DeliveryError(obstacle)
        return Delivery(directory, chosen.name, chosen.shards(directory, options))
    except OSError as error:
        raise DeliveryError(f"{directory} cannot be read ({error}); correct its permissions") from error


def why_incomplete(directory: Path, *, settled_seconds: float = 60) -> str | None:
    """Return why a folder is not to be read yet, None where it is complete.

    A format without a mark of completion counts as complete when nothing has changed for `settled_seconds`.
    """
    try:
        chosen, _ = _look(directory)
        if obstacle := _obstacle(directory, chosen):
            return obstacle
        quiet = time.time() - last_change(directory)
    except DeliveryError as error:
        return str(error)
    except OSError as error:
        return f"{directory} cannot be read ({error}); correct its permissions"
    if chosen not in _WITH_COMPLETION_MARK and quiet < settled_seconds:
        return f"{directory} changed {max(0, quiet):.0f} s ago; it is taken after {settled_seconds:.0f} s of rest"
    return None


def _look(directory: Path) -> tuple[Format, DeliveryOptions]:
    """Return the format of a folder.

    Raises:
        DeliveryError: It is no folder, or in no format or in several.
    """
    if not directory.is_dir():
        raise DeliveryError(
            f"no delivery at {directory}: it is not a directory; correct the path or put the crawl there"
        )
    by_name = {known.name: known for known in FORMATS}
    options = read_options(directory, by_name)
    if options.format is not None:
        return by_name[options.format], options
    found = [known for known in FORMATS if known.is_here(directory)]
    explained = set().union(*(_BROUGHT_ALONG.get(known.name, set()) for known in found))
    found = [known for known in found if known.name not in explained]
    if len(found) > 1:  # the list that a delivery was fetched from may lie beside it
        found = [known for known in found if known is not url_list.FORMAT]
    if not found:
        raise DeliveryError(_nothing_found(directory))
    if len(found) > 1:
        names = " and ".join(known.name for known in found)
        raise DeliveryError(
            f'{directory} looks like {names}: say which in {directory / FILE}, such as format = "{found[0].name}", '
            "or give each a folder of its own"
        )
    return found[0], options


def _obstacle(directory: Path, chosen: Format) -> str | None:
    if copied := copy_in_progress(directory):
        return (
            f"{_shown(directory, copied)} looks like a copy in progress; "
            "wait until it ends, or delete it if it was broken off"
        )
    if link := linked_out(directory, _READ_BY_NAME):
        return (
            f"{_shown(directory, link)} is a link that leads to nothing in the delivery's folder, and nothing outside "
            "is read; put in its place what it points to"
        )
    return chosen.obstacle(directory)


def _nothing_found(directory: Path) -> str:
    return (
        f"no delivery recognised in {directory}. Looked for: .tar with _stats.json (img2dataset); parquet with uid and "
        "text beside .npz (datacomp); img_emb, text_emb and metadata (clip_retrieval); parquet with columns of image "
        "bytes and captions (parquet_images); CSV, TSV or parquet with columns of image paths and captions (table); "
        "images with .txt beside them (folder); tables of addresses (url_list). If it is one of these, say so in "
        f'{directory / FILE}: format = "table", and where columns have other names image = "..." and caption = "..."'
    )


def _shown(directory: Path, path: Path) -> str:
    return f"{directory / printable(path.relative_to(directory).as_posix())}"
