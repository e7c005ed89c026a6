"""Format `parquet_images`: parquet files with the bytes of an image and its caption in every row.

As Hugging Face writes them, with images as bytes and path; a column of bytes alone is as good.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clipcov_assets.ingest.columns import CAPTIONS, IMAGE_BYTES, UID, Columns, find_column, no_columns
from clipcov_assets.ingest.delivery import (
    DeliveryError,
    DeliveryOptions,
    Fault,
    Format,
    Pair,
    Place,
    Reason,
    Shard,
    ShardContents,
)
from clipcov_assets.ingest.judging import judge, place_name, rows_digest, run_name
from clipcov_assets.ingest.looking import first_files, walk_files
from clipcov_assets.ingest.parquet_rows import (
    Cells,
    LostRow,
    RowRun,
    cut_rows,
    is_bytes,
    is_text,
    is_text_list,
    is_text_or_number,
    open_parquet,
    read_rows,
)
from clipcov_assets.ingest.unreadable_table import table_shards

BATCH = 64  # rows of images
PARQUET = frozenset({".parquet"})


@dataclass(frozen=True)
class ImageRows:
    """A run of rows with the bytes of images."""

    directory: Path
    path: Path
    columns: Columns
    run: RowRun

    @property
    def name(self) -> str:
        """The file and the numbers of the rows."""
        return run_name(self.directory, self.path, self.run.first, self.run.count)

    @property
    def size(self) -> int:
        """Bytes of the rows."""
        return self.run.size

    def fingerprint(self) -> str:
        """Digest of the rows."""
        return rows_digest(self._rows(), self.run.first, *self.columns.names)

    def read(self) -> ShardContents:
        """Judge every row."""
        contents = ShardContents(promised=self.run.count, outcomes=iter(()))
        contents.outcomes = self._outcomes(contents.remarks)
        return contents

    def _outcomes(self, remarks: list[str]) -> Iterator[Pair | Fault]:
        file = place_name(self.directory, self.path)
        several = 0
        for number, row in enumerate(self._rows(), self.run.first):
            place = Place(file, row=number)
            if isinstance(row, LostRow):
                yield Fault(place, None, Reason.ROW_UNREADABLE, row.detail)
                continue
            image, captions, *uid = row
            caption = captions
            if isinstance(captions, list):
                caption = captions[0] if captions else None
                several += len(captions) > 1
            yield judge(place, uid=uid[0] if uid else None, caption=caption, image=image)
        if several:
            remarks.append(f"{self.name}: {several} rows with several captions, of which the first is taken")

    def _rows(self) -> Iterator[Cells | LostRow]:
        return read_rows(self.path, self.run, self.columns.names, batch_size=BATCH)


def _is_here(directory: Path) -> bool:
    for path in first_files(directory, PARQUET):
        with suppress(DeliveryError):
            image_columns(path, DeliveryOptions())
            return True
    return False


def _shards(directory: Path, options: DeliveryOptions) -> tuple[Shard, ...]:
    def cut(path: Path) -> list[Shard]:
        columns = image_columns(path, options)
        with open_parquet(path) as file:
            return [ImageRows(directory, path, columns, run) for run in cut_rows(file)]

    return table_shards(directory, sorted(walk_files(directory, PARQUET)), cut)


def image_columns(path: Path, options: DeliveryOptions) -> Columns:
    """Find the columns of a parquet file with encoded images.

    Raises:
        DeliveryError: It is not readable, or its columns are not those of encoded images and captions.
    """
    with open_parquet(path) as file:
        fields = list(file.schema_arrow)
    images = [field.name for field in fields if is_bytes(field.type)]
    captions = [field.name for field in fields if is_text(field.type) or is_text_list(field.type)]
    uids = [field.name for field in fields if is_text_or_number(field.type)]
    image = find_column(images, options.image, IMAGE_BYTES)
    if image is None and options.image is None and len(images) == 1:
        image = images[0]
    caption = find_column(captions, options.caption, CAPTIONS)
    uid = find_column(uids, options.uid, (UID,))
    if image is None or caption is None or (options.uid is not None and uid is None):
        raise no_columns(path, [field.name for field in fields], "encoded images")
    return Columns(image, caption, uid)


FORMAT = Format(name="parquet_images", is_here=_is_here, obstacle=lambda directory: None, shards=_shards)
