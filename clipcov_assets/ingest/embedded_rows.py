"""Pairs with ready-made embeddings: rows of a parquet file and of two arrays, joined by their position."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clipcov_assets.ingest.delivery import Fault, Pair, Place, Reason, ShardContents, files_fingerprint
from clipcov_assets.ingest.delivery_files import DeliveryFiles
from clipcov_assets.ingest.embedding_arrays import EmbeddingArray, EmbeddingsError, are_unit_rows
from clipcov_assets.ingest.judging import Embeddings, judge, place_name, rows_digest, run_name
from clipcov_assets.ingest.pair_parts import RejectedPartError
from clipcov_assets.ingest.parquet_rows import LostRow, RowRun, read_rows

BATCH = 1024  # rows

Ready = Embeddings | RejectedPartError  # of one row: embeddings, or why it has none


@dataclass(frozen=True)
class Array:
    """Where an array lies: an .npy, or an .npz and a key."""

    path: Path
    key: str | None = None


@dataclass(frozen=True)
class EmbeddedShard:
    """A run of rows with their embeddings.

    Attributes:
        directory: The delivery's.
        path: The parquet file.
        n_rows: Of all of it, as the arrays must have.
        run: The rows of this shard.
        image: Column of the path of an image file; None if there is none.
        caption: Column of the caption; None if there is none.
        uid: Column of the uid; None if there is none.
        arrays: Image and text embeddings; empty where they are not taken over, so that pairs need an image.
        remark: What a person should know of the delivery.
    """

    directory: Path
    path: Path
    n_rows: int
    run: RowRun
    image: str | None
    caption: str | None
    uid: str | None
    arrays: tuple[Array, ...]
    remark: str | None = None

    @property
    def name(self) -> str:
        """The parquet file and the numbers of the rows."""
        return run_name(self.directory, self.path, self.run.first, self.run.count)

    @property
    def size(self) -> int:
        """Bytes of the rows, which stand for their embeddings."""
        return self.run.size

    def fingerprint(self) -> str:
        """Digest of the rows, of their embeddings, and of the image files that they name."""
        rows = rows_digest(self._rows(), self.run.first, self.image, self.caption, self.uid)
        embeddings = rows_digest(_digested(ready) for ready in self._ready())
        return files_fingerprint(self._images(), rows, embeddings)

    def read(self) -> ShardContents:
        """Judge every row."""
        remarks = [] if self.remark is None else [self.remark]
        return ShardContents(promised=self.run.count, outcomes=self._outcomes(), remarks=remarks)

    def _outcomes(self) -> Iterator[Pair | Fault]:
        files = DeliveryFiles(self.directory)
        file = place_name(self.directory, self.path)
        ready_made = self._ready()
        for number, row in enumerate(self._rows(), self.run.first):
            place = Place(file, row=number)
            ready = next(ready_made)
            if isinstance(row, LostRow):
                yield Fault(place, None, Reason.ROW_UNREADABLE, row.detail)
                continue
            image_path, caption, uid = row
            image = partial(self._load, files, image_path)
            yield judge(place, uid=uid, caption=caption, image=image, embeddings=ready)

    def _load(self, files: DeliveryFiles, image_path: bytes | None) -> bytes | None:
        """Return the image; None where it is not at hand and embeddings stand for it."""
        try:
            return files.read(os.fsdecode(image_path or b""), beside=self.path.parent)
        except RejectedPartError:
            if not self.arrays:
                raise
            return None

    def _images(self) -> Iterator[Path]:
        files = DeliveryFiles(self.directory)
        for row in self._rows():
            if not isinstance(row, LostRow):
                with suppress(RejectedPartError):
                    yield files.find(os.fsdecode(row[0] or b""), beside=self.path.parent)

    def _rows(self) -> Iterator[tuple[bytes | None, bytes | None, bytes | None] | LostRow]:
        """Yield image path, caption and uid."""
        wanted = (self.image, self.caption, self.uid)
        names = [name for name in wanted if name is not None]
        at = [None if name is None else names.index(name) for name in wanted]
        for row in read_rows(self.path, self.run, names, batch_size=BATCH):
            if isinstance(row, LostRow):
                yield row
            else:
                image, caption, uid = (None if number is None else row[number] for number in at)
                yield image, caption, uid

    def _ready(self) -> Iterator[Ready | None]:
        """Yield what there is of embeddings for every row, a block of rows in memory at a time."""
        done = 0
        try:
            with ExitStack() as stack:
                arrays = [stack.enter_context(EmbeddingArray(array.path, array.key)) for array in self.arrays]
                self._check_shapes(arrays)
                for done in range(0, self.run.count, BATCH):
                    count = min(BATCH, self.run.count - done)
                    yield from _block(arrays, self.run.first + done, count)
        except EmbeddingsError as error:
            for _ in range(self.run.count - done):
                yield RejectedPartError(Reason.EMBEDDING_MISSING, str(error))

    def _check_shapes(self, arrays: Sequence[EmbeddingArray]) -> None:
        for array, opened in zip(self.arrays, arrays, strict=True):
            if opened.shape[0] != self.n_rows:
                raise EmbeddingsError(
                    f"{array.path.name} has {opened.shape[0]} rows, {self.path.name} has {self.n_rows}: "
                    "no row of either can be trusted"
                )
        if len({opened.shape[1] for opened in arrays}) > 1:
            raise EmbeddingsError(f"image and text embeddings of {self.path.name} differ in width")


def _block(arrays: Sequence[EmbeddingArray], first: int, count: int) -> Iterator[Ready | None]:
    if not arrays:
        yield from [None] * count
        return
    images, texts = (array.read(first, count) for array in arrays)
    invalid = RejectedPartError(Reason.EMBEDDING_INVALID, "not finite, or not of norm 1")
    for image, text, sound in zip(images, texts, are_unit_rows(images) & are_unit_rows(texts), strict=True):
        yield (image, text) if sound else invalid


def _digested(ready: Ready | None) -> tuple[object, ...]:
    if isinstance(ready, tuple):
        return ready[0].tobytes(), ready[1].tobytes()
    return (str(ready),)
