"""Stored pairs as a training reads them: batches in any order, read and decoded ahead, or kept where they fit."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import tee
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipcov_assets.core.encoding import Preparation, image_rows, text_rows
from clipcov_assets.core.pairs_in_memory import PairsInMemory
from clipcov_assets.core.similarity import clip_scores
from clipcov_assets.jobs.embed import (
    ITEM_BYTES,
    MOST_ITEM_PAIRS,
    PAIRS_WORTH_WORKERS,
    PairEncoder,
    in_threads,
    prepare_items,
)
from clipcov_assets.subset_pairs import CrawlTables, FoundPairs

if TYPE_CHECKING:
    from torch import Tensor

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PreparedRows:
    """Rows of tables of raw pairs as a model takes them; small, so that it can be sent to a worker."""

    tables: CrawlTables
    preparation: Preparation

    def __getitem__(self, places: tuple[np.ndarray, np.ndarray]) -> "tuple[Tensor, Tensor]":
        """Return pixels (b, 3, h, w) uint8 and tokens (b, context) of pairs by the number of their table and row.

        Raises:
            ValueError: An image cannot be decoded or a caption is blank; the message names uid and crawl.
        """
        pairs = self.tables.read(*places, ["uid", "caption", "image"])
        crawls = [self.tables.versions[number][0] for number in places[0]]
        names = [f"pair {uid} of {crawl}" for uid, crawl in zip(pairs["uid"].to_pylist(), crawls, strict=True)]
        return (
            self.preparation.pixels(zip(names, pairs["image"].to_pylist(), strict=True)),
            self.preparation.tokens(zip(names, pairs["caption"].to_pylist(), strict=True)),
        )


class TrainingPairs:
    """Pairs by row, the core's `Pairs`; their images are in memory only where all of them fit.

    Pairs whose decoded images take no more than `cache_bytes` are read once, when a batch is asked for the first time.
    Otherwise workers read, decode and tokenise the batches to come, a few megabytes at a time. Batches are the same
    either way. It can be sent to another process, which opens the tables itself.

    Random reads need no compaction: `LanceStore.write` makes a table in one go, so that its rows lie in one fragment,
    a new one a million rows, and none of them was removed or replaced since.
    """

    def __init__(
        self, pairs: FoundPairs, preparation: Preparation, *, workers: int, cache_bytes: int, device: str
    ) -> None:
        """Take pairs, of which no caption or image is read yet.

        Args:
            pairs: Found in their tables; a row is a place of theirs.
            preparation: Of the model that is trained.
            workers: Processes that read, where it is worth starting them; with 0 this process reads.
            cache_bytes: What decoded images may take on the device to be kept.
            device: Where batches are wanted.

        Raises:
            ValueError: Pairs without an image.
        """
        missing = np.count_nonzero(pairs.bytes == 0)
        if missing:
            raise ValueError(
                f"{missing:,} of {len(pairs):,} pairs have no image, since their delivery brought embeddings only: "
                "export the subset with `python -m clipcov_assets.export` and train where the images are"
            )
        self._pairs, self._prepared = pairs, PreparedRows(pairs.tables, preparation)
        self._workers, self._cache_bytes, self._device = workers, cache_bytes, device
        self._shape = np.asarray(preparation.fit(Image.new("RGB", (1, 1)))).shape
        self._item_pairs = min(max(ITEM_BYTES // int(np.prod(self._shape)), 1), MOST_ITEM_PAIRS)
        self._kept: PairsInMemory | None = None

    def __len__(self) -> int:
        return len(self._pairs)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_kept": None}

    @property
    def digest(self) -> str:
        """Equal where the pairs are equal in content and order; no image is read for it."""
        return self._pairs.digest

    def batches(self, rows: Iterable[Rows]) -> "Iterator[tuple[Tensor, Tensor]]":
        """Yield pixels (b, 3, h, w) uint8 and tokens (b, context) int64 of each batch of rows, in order, on the device.

        Args:
            rows: Any number of batches; workers ask for a few more than were yielded.

        Raises:
            ValueError: An image cannot be decoded or a caption is blank; the message names uid and crawl.
        """
        if len(self) * np.prod(self._shape) > self._cache_bytes:
            return self._read(rows, workers=self._workers)
        self._kept = self._kept or self._in_memory()
        return self._kept.batches(rows)

    def once(self, batch_size: int) -> "Iterator[tuple[Rows, Tensor, Tensor]]":
        """Yield rows, pixels and tokens of all pairs, batch by batch in the order that is the cheapest to read."""
        order = self._pairs.in_order_of_delivery()
        split = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        workers = self._workers if len(self) >= PAIRS_WORTH_WORKERS else 0
        for rows, batch in zip(split, self._read(split, workers=workers), strict=True):
            yield rows, *batch

    def _read(self, batches: Iterable[Rows], *, workers: int) -> "Iterator[tuple[Tensor, Tensor]]":
        import torch

        runs = (list(self._pairs.runs(batch, most=self._item_pairs, with_image=True)) for batch in batches)
        coming, present = tee(runs)  # workers are ahead
        items = ((self._pairs.table[run], self._pairs.row[run]) for batch in coming for run in batch)
        prepared = prepare_items(self._prepared, items, workers=workers, pin=self._device != "cpu")
        for batch in present:
            parts = [next(prepared) for _ in batch]
            pixels, tokens = (
                torch.cat([part.to(self._device, non_blocking=True) for part in some])
                for some in zip(*parts, strict=True)
            )
            yield pixels, tokens

    def _in_memory(self) -> PairsInMemory:
        import torch

        context = self._prepared.preparation.tokenizer([""]).shape[1]
        # Channels last in memory, as batches that were read are.
        pixels = torch.empty((len(self), *self._shape), dtype=torch.uint8, device=self._device).permute(0, 3, 1, 2)
        tokens = torch.empty((len(self), context), dtype=torch.int64, device=self._device)
        for rows, some_pixels, some_tokens in self.once(self._item_pairs):
            places = torch.from_numpy(rows).to(self._device)
            pixels[places], tokens[places] = some_pixels, some_tokens
        return PairsInMemory(pixels, tokens)


def clip_scores_of(encoder: PairEncoder, pairs: TrainingPairs) -> NDArray[np.float64]:
    """Cosine of image and text of every pair under a model; a few batches are in memory at a time.

    Args:
        encoder: The model, on the device of the pairs.
        pairs: n pairs.

    Returns:
        (n,) in the order of the pairs.

    Raises:
        ValueError: An image cannot be decoded or a caption is blank; the message names uid and crawl.
    """
    scores, device, precision = np.empty(len(pairs)), encoder.device, encoder.precision

    def scored(batch: "tuple[Rows, Tensor, Tensor]") -> tuple[Rows, NDArray[np.float64]]:
        rows, pixels, tokens = batch
        image = image_rows(encoder.clip, pixels, device=device, precision=precision)
        text = text_rows(encoder.clip, tokens, device=device, precision=precision)
        return rows, clip_scores(image.cpu().numpy(), text.cpu().numpy())

    batches = pairs.once(encoder.batch_size)
    for rows, found in in_threads(scored, batches, threads=encoder.threads):
        scores[rows] = found
    return scores
