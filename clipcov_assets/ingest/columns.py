"""Which column of a table holds what: by the names that people use, or as `delivery.toml` says."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipcov_assets.ingest.delimited_rows import Header, read_headers
from clipcov_assets.ingest.delivery import DeliveryError, DeliveryOptions, printable
from clipcov_assets.ingest.looking import suffix_of
from clipcov_assets.ingest.parquet_rows import is_text_or_number, open_parquet

# The first of these that a table has is taken, in upper or lower case.
IMAGE_PATHS = (
    "filepath", "image_path", "img_path", "image_file", "file_path", "file_name", "filename", "image", "img", "path",
    "file",
)  # fmt: skip
IMAGE_BYTES = ("image", "img", "image_bytes", "jpg", "jpeg", "png", "webp", "bytes")
CAPTIONS = ("caption", "title", "text", "txt", "captions", "alt_text", "description")
URLS = ("url", "image_url", "img_url", "image_link", "urls")
UID = "uid"


@dataclass(frozen=True)
class Columns:
    """Names of the columns that are read; `uid` is None where a pair is named by its content."""

    image: str
    caption: str
    uid: str | None

    @property
    def names(self) -> list[str]:
        """Those that there are, in the order image, caption, uid."""
        return [self.image, self.caption, *([] if self.uid is None else [self.uid])]


def find_columns(names: Sequence[str], options: DeliveryOptions, images: Sequence[str]) -> Columns | None:
    """Return the columns of image, caption and uid; None if image or caption is not among `names`."""
    image = find_column(names, options.image, images)
    caption = find_column(names, options.caption, CAPTIONS)
    if image is None or caption is None or image == caption:
        return None
    if options.uid is not None and options.uid not in names:
        return None
    return Columns(image, caption, find_column(names, options.uid, (UID,)))


def find_column(names: Sequence[str], wanted: str | None, usual: Sequence[str]) -> str | None:
    """Return `wanted` if it is there; if nothing is wanted the first of the `usual` ones, in whatever case."""
    if wanted is not None:
        return wanted if wanted in names else None
    for name in usual:
        for found in names:
            if found.lower() == name:
                return found
    return None


def read_names(path: Path) -> list[tuple[tuple[str, ...], Header | None]]:
    """Return the names of the columns of text, with the header that holds them: as every delimiter splits it.

    Raises:
        DeliveryError: It cannot be read.
    """
    if suffix_of(path.name) == ".parquet":
        with open_parquet(path) as file:
            return [(tuple(field.name for field in file.schema_arrow if is_text_or_number(field.type)), None)]
    try:
        return [(header.names, header) for header in read_headers(path)]
    except OSError as error:
        raise DeliveryError(f"{path} cannot be read ({error.strerror})") from error


def is_url(cell: bytes) -> bool:
    """Whether a cell is an address on the web."""
    return cell[:8].lower().startswith((b"http://", b"https://"))


def no_columns(path: Path, names: Sequence[str], images: str) -> DeliveryError:
    """Return the error of a table without the columns that are needed."""
    shown = ", ".join(printable(name)[:60] for name in names[:20]) or "it has no header"
    return DeliveryError(
        f"{path} has no columns of {images} and captions ({shown}); "
        'name them in delivery.toml in the delivery\'s folder, such as image = "photo" and caption = "words"'
    )
