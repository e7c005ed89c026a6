"""A delivery in, its pairs and faults out.

Every shard is read once, in a worker process, and kept on disk until all are; then one pass over what was
kept decides which pairs came twice, and streams the rest.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa

from clipcov_assets.ingest.delivery import Delivery, Fault, Pair, Reason, Shard, content_uid
from clipcov_assets.jobs.workers import in_workers
from clipcov_assets.tables import EMBEDDINGS, QUARANTINE, RAW_PAIRS, delivered_embeddings_schema
from resources.pieces import Pieces

READER_VERSION = "1"  # pieces that another version of the readers has made are made again
BATCH_PAIRS, BATCH_BYTES = 1_024, 16 * 2**20
IDENTITIES_AT_ONCE = 65_536
SUMMARY = pa.schema({"promised": pa.int64(), "remarks": pa.list_(pa.string())})


@dataclass(frozen=True)
class StagedShard:
    """A shard that has been read.

    Attributes:
        key: Of its piece.
        fingerprint: Of its content.
        promised: Pairs that it promised.
        remarks: What a person should know of it.
        found: Whether an earlier run had read it.
    """

    key: str
    fingerprint: str
    promised: int
    remarks: tuple[str, ...]
    found: bool


def stage_delivery(
    delivery: Delivery, pieces: Pieces, *, workers: int, on_shard: Callable[[Shard, StagedShard], None]
) -> list[StagedShard]:
    """Read the shards that no earlier run has finished, several at a time; the order of the delivery is kept.

    Args:
        delivery: What to read.
        pieces: Where finished shards are kept; those of another delivery are removed.
        workers: Processes that read.
        on_shard: Called with each shard when it is done.

    Raises:
        DeliveryError: A shard cannot be read at all.
        RuntimeError: A worker died.
    """
    staged: dict[int, StagedShard] = {}
    for place, one in in_workers(stage_shard, delivery.shards, pieces, workers=workers):
        staged[place] = one
        on_shard(delivery.shards[place], one)
    pieces.keep({one.key for one in staged.values()})
    return [staged[place] for place in range(len(staged))]


def stage_shard(shard: Shard, pieces: Pieces) -> StagedShard:
    """Read one shard into a piece, unless there is one of the same content."""
    fingerprint = shard.fingerprint()
    identity = f"{READER_VERSION}\n{shard.name}\n{fingerprint}"
    key = hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()
    found = key in pieces
    if not found:
        pieces.add(key, _tables(shard))
    ((summary,),) = (batch.to_pylist() for batch in pieces.batches(key, "summary"))
    return StagedShard(key, fingerprint, summary["promised"], tuple(summary["remarks"]), found)


def _tables(shard: Shard) -> dict[str, pa.RecordBatchReader]:
    """The tables of a shard's piece; pairs come first, and while they are read the faults are gathered."""
    contents = shard.read()
    faults: list[Fault] = []
    batches = _pair_batches(contents.outcomes, faults)
    first = list(islice(batches, 1))  # it knows whether embeddings came with the pairs

    def pairs() -> Iterator[pa.RecordBatch]:
        yield from first
        yield from batches

    def summary() -> Iterator[pa.RecordBatch]:
        yield pa.RecordBatch.from_pylist([{"promised": contents.promised, "remarks": contents.remarks}], schema=SUMMARY)

    return {
        "pairs": pa.RecordBatchReader.from_batches(first[0].schema if first else RAW_PAIRS, pairs()),
        "faults": pa.RecordBatchReader.from_batches(QUARANTINE, (_fault_batch(faults) for _ in range(1))),
        "summary": pa.RecordBatchReader.from_batches(SUMMARY, summary()),
    }


def _pair_batches(outcomes: Iterator[Pair | Fault], faults: list[Fault]) -> Iterator[pa.RecordBatch]:
    """Pairs in batches that are neither many nor large; faults go to the list."""
    pairs: list[Pair] = []
    size = 0
    for outcome in outcomes:
        if isinstance(outcome, Fault):
            faults.append(outcome)
            continue
        pairs.append(outcome)
        size += len(outcome.image or b"")
        if len(pairs) == BATCH_PAIRS or size >= BATCH_BYTES:
            yield _pair_batch(pairs)
            pairs, size = [], 0
    if pairs:
        yield _pair_batch(pairs)


def _pair_batch(pairs: Sequence[Pair]) -> pa.RecordBatch:
    columns: dict[str, pa.Array] = {
        "uid": pa.array([pair.uid for pair in pairs], pa.string()),
        "caption": pa.array([pair.caption for pair in pairs], pa.string()),
        "image": pa.array([pair.image for pair in pairs], pa.large_binary()),
        "file": pa.array([pair.place.file for pair in pairs], pa.string()),
        "key": pa.array([pair.place.key for pair in pairs], pa.string()),
        "row": pa.array([pair.place.row for pair in pairs], pa.int64()),
        "bytes": pa.array([None if pair.image is None else len(pair.image) for pair in pairs], pa.int64()),
        "content": pa.array([_content(pair) for pair in pairs], pa.binary(16)),
    }
    schema = RAW_PAIRS
    if pairs[0].embeddings is not None:
        found = [pair.embeddings for pair in pairs if pair.embeddings is not None]
        for column, rows in zip(EMBEDDINGS, zip(*found, strict=True), strict=True):
            values = pa.array(np.concatenate(rows).astype(np.float16))
            columns[column] = pa.FixedSizeListArray.from_arrays(values, len(rows[0]))
        width = columns[EMBEDDINGS[0]].type.list_size
        for column in EMBEDDINGS:
            schema = schema.append(delivered_embeddings_schema(width).field(column))
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _content(pair: Pair) -> bytes:
    """What a pair is, whatever its uid: everything that was delivered of it."""
    embeddings = b"".join(row.tobytes() for row in pair.embeddings or ())
    return bytes.fromhex(content_uid((pair.image or b"") + embeddings, pair.caption))


def _fault_batch(faults: Sequence[Fault]) -> pa.RecordBatch:
    rows = [
        {
            "file": fault.place.file,
            "key": fault.place.key,
            "row": fault.place.row,
            "uid": fault.uid,
            "reason": fault.reason.value,
            "detail": fault.detail,
        }
        for fault in faults
    ]
    return pa.RecordBatch.from_pylist(rows, schema=QUARANTINE)


class Census:
    """All pairs and faults of a staged delivery, each with its fate; memory holds uids, contents and reasons.

    Of pairs with one uid the first is stored; another is already known where its content is the same, and a fault
    where it is not.

    Attributes:
        promised: Pairs that the shards promised.
        stored: Pairs to store.
        known: Pairs that came before in the same delivery.
        reasons: How many pairs are quarantined, by reason.
        remarks: What a person should know of the shards.
        width: Of the embeddings that came with the pairs, 0 where none came.

    Raises:
        ValueError: Shards brought embeddings of different widths, or some brought none.
    """

    def __init__(self, pieces: Pieces, shards: Sequence[StagedShard]) -> None:
        self._pieces = pieces
        self._keys = [shard.key for shard in shards]
        self.promised = sum(shard.promised for shard in shards)
        self.remarks = [remark for shard in shards for remark in shard.remarks]
        self.width = self._width()
        self._uid, self._content = self._identities()
        first = first_places(self._uid)
        self._is_stored = first == np.arange(len(first))
        self._is_conflict = (self._content != self._content[first]).any(axis=1)
        self.stored = int(self._is_stored.sum())
        conflicts = int(self._is_conflict.sum())
        self.known = len(first) - self.stored - conflicts
        found = (reason for batch in self._batches("faults") for reason in batch["reason"].to_pylist())
        self.reasons = Counter(found) + Counter({Reason.UID_CONFLICT.value: conflicts})

    def pairs(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Columns of the pairs to store, in the order of the delivery."""
        start = 0
        for batch in self._batches("pairs"):
            stored = pa.array(self._is_stored[start : start + len(batch)])
            start += len(batch)
            yield batch.select(columns).filter(stored)

    def faults(self) -> Iterator[pa.RecordBatch]:
        """All that is quarantined, as rows of QUARANTINE: what the readers found, then conflicting uids."""
        yield from self._batches("faults")
        start = 0
        for batch in self._batches("pairs"):
            conflict = np.flatnonzero(self._is_conflict[start : start + len(batch)])
            start += len(batch)
            rows = batch.select(["file", "key", "row", "uid"]).take(pa.array(conflict)).to_pylist()
            detail = "an earlier pair of the delivery has this uid, with another image or caption"
            faults = [row | {"reason": Reason.UID_CONFLICT.value, "detail": detail} for row in rows]
            yield pa.RecordBatch.from_pylist(faults, schema=QUARANTINE)

    def version(self) -> str:
        """Version of the pairs to store: equal uids with equal content in equal order give the equal version."""
        digest = hashlib.sha256(self._content[self._is_stored].tobytes())
        stored = self._uid.filter(pa.array(self._is_stored))
        for start in range(0, len(stored), IDENTITIES_AT_ONCE):
            digest.update("".join(f"{uid}\n" for uid in stored.slice(start, IDENTITIES_AT_ONCE).to_pylist()).encode())
        return digest.hexdigest()[:16]

    def _batches(self, table: str) -> Iterator[pa.RecordBatch]:
        for key in self._keys:
            yield from self._pieces.batches(key, table)

    def _width(self) -> int:
        widths = set()
        for key in self._keys:
            for batch in self._pieces.batches(key, "pairs"):
                found = EMBEDDINGS[0] in batch.schema.names
                widths.add(batch.schema.field(EMBEDDINGS[0]).type.list_size if found else 0)
                break
        if len(widths) > 1:
            raise ValueError(
                f"shards of the delivery brought embeddings of widths {sorted(widths)} (0: none): deliver them of one "
                'model, or write embeddings = "none" into delivery.toml to embed all pairs anew'
            )
        return widths.pop() if widths else 0

    def _identities(self) -> tuple[pa.LargeStringArray, np.ndarray]:
        """Uid (n,) and content (n, 2) uint64 of every pair that was read, copied out of the pieces."""
        uid, content = [], [np.empty((0, 2), np.uint64)]
        for batch in self._batches("pairs"):
            uid.append(batch["uid"])
            content.append(np.frombuffer(batch["content"].buffers()[1], np.uint64).reshape(-1, 2)[: len(batch)])
        return pa.chunked_array(uid, pa.string()).cast(pa.large_string()).combine_chunks(), np.concatenate(content)


def first_places(values: pa.LargeStringArray) -> np.ndarray:
    """Return (n,) the first place of the value at each place."""
    # Codes are given in the order of first appearance, so the largest code so far grows where a value is new.
    codes = values.dictionary_encode().indices.to_numpy()
    largest = np.maximum.accumulate(codes)
    first: np.ndarray = np.searchsorted(largest, np.arange(largest[-1] + 1 if len(largest) else 0))[codes]
    return first
