"""What the readers of tables, folders and embeddings share: how a pair is judged, and how a shard is named."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from clipcov_assets.ingest.delivery import Fault, Pair, Place, Reason, content_uid, printable
from clipcov_assets.ingest.pair_parts import RejectedPartError, check_image, is_uid, read_caption
from clipcov_assets.ingest.parquet_rows import LostRow

Embeddings = tuple[np.ndarray, np.ndarray]


def judge(
    place: Place,
    *,
    uid: bytes | str | None,
    caption: bytes | None,
    image: Callable[[], bytes | None] | bytes | None,
    embeddings: Embeddings | RejectedPartError | None = None,
) -> Pair | Fault:
    """Return the pair if all of its parts are sound, else what is wrong with the first part that is not.

    Args:
        place: Where it lies.
        uid: As delivered; None or empty to name the pair by its content.
        caption: As delivered.
        image: Encoded, or what loads it; None is a fault only where there are no embeddings.
        embeddings: Ready-made ones, where the delivery brings them, or why this pair has none.
    """
    known = None
    try:
        known = _read_uid(uid)
        if isinstance(embeddings, RejectedPartError):
            return Fault(place, known, embeddings.reason, embeddings.detail)
        content = image() if callable(image) else image
        if content is not None or embeddings is None:
            content = check_image(content)
        text = read_caption(caption)
    except RejectedPartError as rejected:
        return Fault(place, known, rejected.reason, rejected.detail)
    if known is None:
        named_by = content if content is not None or embeddings is None else embeddings[0].tobytes()
        known = content_uid(named_by or b"", text)
    return Pair(place, known, text, content, embeddings)


def rows_digest(rows: Iterable[Iterable[object] | LostRow], *parts: object) -> str:
    """Return the digest of rows, one in memory at a time, and of other parts that a reading depends on."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=16)
    for row in rows:
        for cell in (row,) if isinstance(row, LostRow) else row:
            content = cell if isinstance(cell, bytes) else repr(cell).encode("utf-8", "surrogateescape")
            digest.update(f"{type(cell).__name__} {len(content)} ".encode())
            digest.update(content)
        digest.update(b"row")
    return digest.hexdigest()


def place_name(directory: Path, path: Path) -> str:
    """Return where a file lies in a delivery, printable."""
    return printable(path.relative_to(directory).as_posix())


def run_name(directory: Path, path: Path, first: int, count: int) -> str:
    """Return the name of a shard that is a run of rows."""
    return f"{place_name(directory, path)}[{first}:{first + count}]"


def _read_uid(uid: bytes | str | None) -> str | None:
    if not uid:
        return None
    text = uid.decode("utf-8", "replace") if isinstance(uid, bytes) else uid
    if not is_uid(text) or "\ufffd" in text:
        raise RejectedPartError(Reason.METADATA_INVALID, "uid is not short printable text")
    return text
