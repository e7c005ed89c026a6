"""Pairs of a crawl in, unit embeddings out: workers read and decode while the model computes.

Pairs are embedded in pieces that are kept as they are finished, so that a killed run goes on where it was. How
pairs are divided into pieces, and pieces into batches, depends on nothing that changes from run to run.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, cast

import numpy as np
import pyarrow as pa

from clipcov_assets.core.clip_model import ClipModel, weights_sha256
from clipcov_assets.core.encoding import (
    Preparation,
    image_rows,
    image_size,
    text_rows,
)
from clipcov_assets.jobs.workers import forking_context
from clipcov_assets.pool_tables import list_column, row_matrix
from clipcov_assets.progress import Progress
from clipcov_assets.tables import EMBEDDINGS
from resources.compute import Compute
from resources.lance_store import LanceStore, StoredRows
from resources.pieces import Pieces

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset

    Prepared = tuple[Tensor, Tensor]  # pixels (b, 3, h, w) uint8 and tokens (b, context)

Item = TypeVar("Item")
AnyItem = TypeVar("AnyItem", contravariant=True)
Unit = TypeVar("Unit")
Result = TypeVar("Result")
AnyResult = TypeVar("AnyResult", covariant=True)

ENCODING_VERSION = "1"  # embeddings that another version of this encoding has made are made again
PIECE_PAIRS = 4_096
# What a worker hands over at a time: enough to make reading cheap, little enough for small shared memory.
ITEM_BYTES, MOST_ITEM_PAIRS = 8 * 2**20, 512
MOST_THREADS = 64  # each needs memory for a batch
PAIRS_WORTH_WORKERS = 8_192  # fewer are decoded here before workers have started, which takes seconds


@dataclass(frozen=True, eq=False)
class PairEncoder:
    """A model and how it is run.

    Attributes:
        clip: The model.
        device: Such as `cpu` or `cuda`.
        precision: `float32`, `bfloat16` or `float16`.
        batch_size: Pairs at a time.
        threads: That compute at once, each on a batch of its own and on one core: so no bit depends on their number.
    """

    clip: ClipModel
    device: str
    precision: str
    batch_size: int
    threads: int = 1

    @classmethod
    def on(cls, compute: Compute, clip: ClipModel) -> "PairEncoder":
        """Run a model as the machine suggests."""
        import torch

        device = compute.resolved_device()
        threads = min(torch.get_num_threads(), MOST_THREADS) if device == "cpu" else 1
        batch_size = compute.resolved_batch_size(image_size(clip))
        return cls(clip, device, compute.resolved_precision(), batch_size, threads)

    @cached_property
    def sha256(self) -> str:
        """Of the weights."""
        return weights_sha256(self.clip.model)

    @property
    def made_with(self) -> str:
        """What embeddings depend on besides their pairs: those of equal value may stand beside each other."""
        return f"{self.clip.architecture} {self.sha256} {self.precision} encoding {ENCODING_VERSION}"

    def embed(self, prepared: Sequence["Prepared"]) -> "tuple[Tensor, Tensor]":
        """Embed one batch that comes in parts; image and text embeddings (b, d) float16 on the device."""
        import torch

        pixels, tokens = (
            torch.cat([part.to(self.device, non_blocking=True) for part in parts])
            for parts in zip(*prepared, strict=True)
        )
        image = image_rows(self.clip, pixels, device=self.device, precision=self.precision)
        return image.half(), text_rows(self.clip, tokens, device=self.device, precision=self.precision).half()


class Source(Protocol[AnyItem, AnyResult]):
    """What prepares an item, such as places, in any process; a dataclass, of which a fresh copy can be sent there."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __getitem__(self, item: AnyItem, /) -> AnyResult: ...


@dataclass(eq=False)
class StoredPairs:
    """The pairs of a crawl by place, as a model takes them; every process opens the table at `uri` itself."""

    uri: str
    crawl: str
    version: int
    preparation: Preparation

    def __getitem__(self, places: np.ndarray) -> "Prepared":
        """Return pixels (b, 3, h, w) uint8 and tokens (b, context) of the pairs at these places.

        Raises:
            ValueError: A pair has no image, or one that cannot be decoded; the message names its uid.
        """
        pairs = self.rows.take(places, ["uid", "caption", "image"])
        uid, images = pairs["uid"].to_pylist(), pairs["image"].to_pylist()
        if None in images:
            raise ValueError(
                f"pair {uid[images.index(None)]} of {self.crawl} has neither an image nor delivered embeddings; "
                "materialize raw_pairs again"
            )
        named = zip(uid, pairs["caption"].to_pylist(), strict=True)
        return self.preparation.pixels(zip(uid, images, strict=True)), self.preparation.tokens(named)

    @cached_property
    def rows(self) -> StoredRows:
        """The open table."""
        return LanceStore(uri=self.uri).rows("raw_pairs", self.crawl, version=self.version)

    def __len__(self) -> int:
        return len(self.rows)


def missing_pieces(
    encoder: PairEncoder, places: np.ndarray, content: pa.ChunkedArray, pieces: Pieces, *, report: Callable[[str], None]
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Divide some pairs of a crawl into pieces, and remove what was kept of others.

    Args:
        encoder: The model.
        places: (m,) which pairs, ascending.
        content: (m,) what each of them is, 16 bytes.
        pieces: Where finished pieces are kept; those of other pairs or another encoder are removed.
        report: Takes a sentence where a run that was broken off left some.

    Returns:
        The keys of all pieces, in the order of the places, and the places of those that are not finished.
    """
    keys = [_key(encoder, content.slice(start, PIECE_PAIRS)) for start in range(0, len(places), PIECE_PAIRS)]
    pieces.keep(keys)
    found = pieces.finished(keys)
    # Two pieces of equal content are one.
    missing = {key: part for key, part in zip(keys, _split(places, PIECE_PAIRS), strict=True) if key not in found}
    if found:
        left = sum(map(len, missing.values()))
        report(f"{len(places) - left:,} of {len(places):,} pairs had been embedded by a run that was broken off")
    return keys, missing


def embed_pieces(
    encoder: PairEncoder,
    pairs: StoredPairs,
    wanted: Mapping[str, np.ndarray],
    pieces: Pieces,
    *,
    workers: int,
    report: Callable[[str], None],
) -> Iterator[str]:
    """Embed pieces of a crawl, and yield the key of each when it is kept.

    Args:
        encoder: The model.
        pairs: All pairs of the crawl.
        wanted: Keys of the pieces, and the places of their pairs.
        pieces: Where finished ones are kept.
        workers: Processes that read and decode, where it is worth starting them.
        report: Takes a sentence on the progress now and then.

    Raises:
        ValueError: A pair has no image, or one that cannot be decoded; the message names its uid.
    """
    left = sum(map(len, wanted.values()))
    units = {key: list(units_of(encoder, part)) for key, part in wanted.items()}
    items = [item for piece in units.values() for unit in piece for item in unit]
    workers = workers if left >= PAIRS_WORTH_WORKERS else 0
    prepared = prepare_items(pairs, items, workers=workers, pin=encoder.device != "cpu")
    parts = ([next(prepared) for _ in unit] for piece in units.values() for unit in piece)
    progress = Progress(left, "pairs", report)
    embedded = counted(in_threads(encoder.embed, parts, threads=encoder.threads), progress, lambda rows: len(rows[0]))
    for key, piece in units.items():
        # The threads go on while a piece is written.
        pieces.add(key, {"rows": _piece_rows(list(islice(embedded, len(piece))))})
        yield key


def piece_rows(pieces: Pieces, keys: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Read pieces back: image and text embeddings (b, d) float16 of each."""
    for key in keys:
        for batch in pieces.batches(key, "rows"):
            yield row_matrix(batch[EMBEDDINGS[0]]), row_matrix(batch[EMBEDDINGS[1]])


def _key(encoder: PairEncoder, content: pa.ChunkedArray) -> str:
    """Digest of all that the embeddings of a piece depend on, to the last bit."""
    run = f"{encoder.made_with} {encoder.device} {encoder.batch_size}"
    digest = hashlib.blake2b(run.encode(), digest_size=16)
    digest.update(b"".join(content.to_pylist()))
    return digest.hexdigest()


def units_of(encoder: PairEncoder, places: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Yield the batches of places that a thread embeds, each in the items that a worker hands over at a time."""
    height, width = image_size(encoder.clip)
    item = min(max(ITEM_BYTES // (3 * height * width), 1), MOST_ITEM_PAIRS)
    for batch in _split(places, encoder.batch_size):
        yield _split(batch, item)


def _split(places: np.ndarray, size: int) -> list[np.ndarray]:
    return [places[start : start + size] for start in range(0, len(places), size)]


def prepare_items(source: Source[Item, Result], items: Iterable[Item], *, workers: int, pin: bool) -> Iterator[Result]:
    """Yield each item as the source prepares it, in order.

    Args:
        source: Such as the pairs of a crawl.
        items: Such as places of pairs; workers are a few of them ahead, and no more.
        workers: Processes that read, decode and tokenise; with 0 this process does it when asked.
        pin: Whether to keep the result where a GPU reads it fastest.
    """
    import torch
    from torch.utils.data import DataLoader

    loader = DataLoader(
        cast("Dataset[Result]", replace(source)),  # a copy, which has not opened its table, can be sent
        batch_size=None,
        sampler=items,
        num_workers=workers,
        multiprocessing_context=forking_context(__name__) if workers else None,
        pin_memory=pin,
        generator=torch.Generator(),  # the order of nothing is drawn; this leaves torch's own random numbers alone
    )
    return iter(loader)


def in_threads(function: Callable[[Unit], Result], units: Iterable[Unit], *, threads: int) -> Iterator[Result]:
    """Yield what a model makes of each unit, in order; each thread takes a whole unit, so that none waits for others.

    Args:
        function: Runs the model.
        units: Read a few ahead of what has been yielded.
        threads: With several, each computes on one core.
    """
    import torch

    cores = torch.get_num_threads()
    share = cores if threads == 1 else 1
    executor = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(share,))
    futures: deque[Future[Result]] = deque()
    try:
        for unit in units:
            futures.append(executor.submit(function, unit))
            if len(futures) > 2 * threads:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)  # what threads of their own were told holds for later threads, too


def counted(results: Iterable[Result], progress: Progress, size: Callable[[Result], int]) -> Iterator[Result]:
    """Yield results, and count into the progress how much each of them is."""
    for result in results:
        progress.add(size(result))
        yield result


def _piece_rows(embedded: "Sequence[tuple[Tensor, Tensor]]") -> pa.RecordBatchReader:
    import torch

    # One copy off the device for a whole piece: until here a GPU computed without waiting.
    columns = [list_column(torch.cat(parts).cpu().numpy()) for parts in zip(*embedded, strict=True)]
    batch = pa.RecordBatch.from_arrays(columns, names=EMBEDDINGS)
    return pa.RecordBatchReader.from_batches(batch.schema, [batch])
