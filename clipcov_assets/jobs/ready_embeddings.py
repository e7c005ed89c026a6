"""Embeddings that need no model any more: those of earlier crawls, and those that a delivery brought along."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipcov_assets.core.encoding import encode_captions, encode_images
from clipcov_assets.core.pool import UNIT_TOLERANCE
from clipcov_assets.jobs.embed import PairEncoder, StoredPairs
from clipcov_assets.partitions import crawl_order
from clipcov_assets.pool_tables import ROWS_TAKEN, row_matrix
from clipcov_assets.tables import EMBEDDINGS, RAW_PAIRS_VERSION
from resources.lance_store import LanceStore, StoredRows

MADE_WITH = "made_with"
SPOT_CHECKED = 64

Rows = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Known:
    """Pairs of a crawl that are embedded already, and where.

    Attributes:
        tables: Crawls that have some of them, with their embeddings as they are now.
        table: (n,) which of the tables has the pair; -1 for a new pair.
        place: (n,) its place there.
    """

    tables: tuple[tuple[str, StoredRows], ...]
    table: np.ndarray
    place: np.ndarray

    @property
    def new(self) -> np.ndarray:
        """(m,) places of the pairs that no table has."""
        places: np.ndarray = np.flatnonzero(self.table < 0)
        return places

    def counts(self) -> dict[str, int]:
        """How many pairs each crawl has."""
        return {crawl: int((self.table == number).sum()) for number, (crawl, _) in enumerate(self.tables)}


def find_known(store: LanceStore, content: pa.ChunkedArray, made_with: str) -> Known:
    """Look pairs up in the embeddings of all crawls, newest first; a crawl's own earlier ones count as well.

    Args:
        store: The tables.
        content: (n,) what each pair is.
        made_with: Only embeddings that the same encoder made, run in the same way.
    """
    table, place = np.full(len(content), -1, np.int16), np.zeros(len(content), np.int64)
    tables: list[tuple[str, StoredRows]] = []
    for crawl in sorted(store.partitions("embeddings"), key=crawl_order, reverse=True):
        missing = np.flatnonzero(table < 0)
        if not missing.size:
            break
        if store.metadata("embeddings", crawl).get(MADE_WITH) != made_with:
            continue
        rows = store.rows("embeddings", crawl)
        stored = rows.slice(0, len(rows), ["content"])["content"].combine_chunks()
        found = pc.index_in(content.take(pa.array(missing)), value_set=stored).combine_chunks()
        hits = missing[found.is_valid().to_numpy(zero_copy_only=False)]
        if hits.size:
            table[hits], place[hits] = len(tables), found.drop_null().to_numpy()
            tables.append((crawl, rows))
    return Known(tuple(tables), table, place)


def in_order(known: Known, new: Iterator[Rows], width: int) -> Iterator[Rows]:
    """Bring known and new embeddings into the order of the crawl, block by block.

    Args:
        known: Where the known ones are.
        new: The others, in order.
        width: Of an embedding.
    """
    fresh = _Queue(new, width)
    for start in range(0, len(known.table), ROWS_TAKEN):
        table, place = (values[start : start + ROWS_TAKEN] for values in (known.table, known.place))
        both = np.empty((2, len(table), width), np.float16)
        for number, (_, rows) in enumerate(known.tables):
            mine = np.flatnonzero(table == number)
            found = rows.take(place[mine], EMBEDDINGS)
            for half, column in zip(both, EMBEDDINGS, strict=True):
                half[mine] = row_matrix(found[column]) if mine.size else 0
        mine = np.flatnonzero(table < 0)
        both[:, mine] = fresh.next(len(mine))
        yield both[0], both[1]


class _Queue:
    """Rows that come in parts of any size, and leave in others."""

    def __init__(self, parts: Iterator[Rows], width: int) -> None:
        self._parts = parts
        self._left = np.empty((2, 0, width), np.float16)

    def next(self, count: int) -> np.ndarray:
        """The next rows of both kinds, (2, count, d)."""
        held = [self._left]
        while sum(part.shape[1] for part in held) < count:
            held.append(np.stack(next(self._parts)))
        rows = np.concatenate(held, axis=1)
        self._left = rows[:, count:]
        taken: np.ndarray = rows[:, :count]
        return taken


def delivered_embeddings(store: LanceStore, crawl: str, raw_pairs_version: int) -> StoredRows | None:
    """Open the embeddings that a delivery brought, if they belong to this version of its pairs."""
    if not store.exists("delivered_embeddings", crawl):
        return None
    if store.metadata("delivered_embeddings", crawl).get(RAW_PAIRS_VERSION) != str(raw_pairs_version):
        return None
    return store.rows("delivered_embeddings", crawl)


def delivered_width(delivered: StoredRows) -> int:
    """Width of delivered embeddings."""
    return int(delivered.take(np.empty(0, np.int64), EMBEDDINGS).schema.field(EMBEDDINGS[0]).type.list_size)


def delivered_rows(delivered: StoredRows, pairs: StoredPairs) -> Iterator[Rows]:
    """Read delivered embeddings in the order of the crawl, block by block, as unit rows.

    Raises:
        ValueError: They are not in the order of the pairs.
    """
    for start in range(0, len(pairs), ROWS_TAKEN):
        count = min(ROWS_TAKEN, len(pairs) - start)
        uid = pairs.rows.slice(start, count, ["uid"])["uid"]
        found = delivered.slice(start, count, ["uid", *EMBEDDINGS])
        if not found["uid"].equals(uid):
            raise ValueError(f"{delivered.name} is not in the order of its pairs: materialize raw_pairs again")
        yield _unit_rows(row_matrix(found[EMBEDDINGS[0]])), _unit_rows(row_matrix(found[EMBEDDINGS[1]]))


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    """Scale the rows (n, d) float16 that are off by more than rounding, as those of a model that scales in float16."""
    lengths = np.linalg.norm(rows.astype(np.float32), axis=1, keepdims=True)
    off = np.abs(lengths - 1) > UNIT_TOLERANCE
    return np.where(off, rows / lengths, rows).astype(np.float16)


def spot_check(encoder: PairEncoder, pairs: StoredPairs, delivered: StoredRows) -> dict[str, float]:
    """Embed up to 64 pairs, spread evenly over the crawl, and compare them with what was delivered.

    Returns:
        The median cosine of `text`, and of `image` where some of these pairs have one.
    """
    places = np.unique(np.linspace(0, len(pairs) - 1, SPOT_CHECKED).astype(np.int64))
    some = pairs.rows.take(places, ["uid", "caption", "image"]).to_pylist()
    theirs = delivered.take(places, EMBEDDINGS)
    cosines = {}
    for kind, column, encode in (("text", "caption", encode_captions), ("image", "image", encode_images)):
        at = [row for row, one in enumerate(some) if one[column] is not None]
        if at:
            named = [(some[row]["uid"], some[row][column]) for row in at]
            rows = encode(encoder.clip, named, device=encoder.device, batch_size=encoder.batch_size)
            products = np.concatenate(list(rows)) * row_matrix(theirs[f"{kind}_embedding"])[at]
            cosines[kind] = float(np.median(products.sum(axis=1)))
    return cosines
