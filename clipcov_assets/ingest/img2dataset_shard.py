"""Reads one img2dataset shard: NNNNN.tar, held against NNNNN.parquet and NNNNN_stats.json.

Table and statistics promise pairs, the tar holds some; every pair that was promised or found leaves as a
`Pair` or as a `Fault`. Without a table the statistics alone say how many pairs there should be.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clipcov_assets.ingest.delivery import DeliveryError, Fault, Pair, Reason, ShardContents, content_uid
from clipcov_assets.ingest.pair_parts import RejectedPartError, check_image, is_uid, read_caption, read_uid
from clipcov_assets.ingest.tar_shard import IMAGE_SUFFIXES, DamagedTarError, read_members

STATISTICS = "_stats.json"
DOWNLOAD_AGAIN = "run img2dataset again with the same arguments, it finishes what is missing"
MOST_PAIRS = 1_000_000
PART_OF_SUFFIX = dict.fromkeys(IMAGE_SUFFIXES, "image") | {"txt": "caption", "json": "metadata"}

Parts = dict[str, bytes]  # "image", "caption", "metadata" -> raw bytes
PromisedUids = Mapping[str, list[str | None]]  # key -> its uids in order, None where there is none


@dataclass(frozen=True)
class _Tar:
    """All of one tar: for every key its occurrences in order, and what stopped the reading, if anything."""

    occurrences: Mapping[str, list[Parts]]
    damage: str


def read_shard(path: Path) -> ShardContents:
    """Read a tar and hold it against the statistics and the table beside it.

    Raises:
        DeliveryError: Statistics or table cannot be read.
    """
    successes = _successes(path.with_name(path.stem + STATISTICS))
    promised = _promised_uids(path.with_suffix(".parquet"))
    tar = _read_tar(path)
    outcomes = [
        outcome
        for key, occurrences in tar.occurrences.items()
        for outcome in _outcomes(occurrences, source=_source(path, key), uids=promised.get(key, []))
    ]
    outcomes += _lost(path, tar, promised)
    outcomes += [_lost_fault(path.name, None, tar)] * (successes - len(outcomes))
    return ShardContents(
        name=path.stem,
        expected=max(successes, _promised_or_found(tar, promised)),
        pairs=tuple(outcome for outcome in outcomes if isinstance(outcome, Pair)),
        faults=tuple(outcome for outcome in outcomes if isinstance(outcome, Fault)),
    )


def _promised_or_found(tar: _Tar, promised: PromisedUids) -> int:
    keys = tar.occurrences.keys() | promised.keys()
    return sum(max(len(tar.occurrences.get(key, [])), len(promised.get(key, []))) for key in keys)


def _outcomes(occurrences: list[Parts], *, source: str, uids: list[str | None]) -> Iterator[Pair | Fault]:
    """Judge every occurrence of one key."""
    # Occurrences that lack different parts may have swapped them: then none can be trusted.
    mixed = any(parts.keys() != occurrences[0].keys() for parts in occurrences)
    for number, parts in enumerate(occurrences):
        outcome = _judge(parts, source=source, promised_uid=uids[number] if number < len(uids) else None)
        if number > 0 or mixed:
            detail = f"occurrence {number + 1} of {len(occurrences)}"
            outcome = Fault(source, outcome.uid, Reason.DUPLICATE_KEY, detail)
        yield outcome


def _judge(parts: Parts, *, source: str, promised_uid: str | None) -> Pair | Fault:
    uid = promised_uid
    try:
        uid = read_uid(parts.get("metadata")) or promised_uid
        image = check_image(parts.get("image"))
        caption = read_caption(parts.get("caption"))
    except RejectedPartError as rejected:
        return Fault(source, uid, rejected.reason, rejected.detail)
    return Pair(uid or content_uid(image, caption), caption, image, source)


def _lost(path: Path, tar: _Tar, promised: PromisedUids) -> list[Fault]:
    return [
        _lost_fault(_source(path, key), uid, tar)
        for key, uids in promised.items()
        for uid in uids[len(tar.occurrences.get(key, [])) :]
    ]


def _lost_fault(source: str, uid: str | None, tar: _Tar) -> Fault:
    return Fault(source, uid, Reason.LOST_IN_TAR, tar.damage or "the tar reads to its end without it")


def _source(path: Path, key: str) -> str:
    return f"{path.name}:{ascii(key)[1:-1][:200]}"  # a key may hold anything, a source can be printed


def _read_tar(path: Path) -> _Tar:
    occurrences: dict[str, list[Parts]] = defaultdict(list)
    try:
        for member in read_members(path, PART_OF_SUFFIX, salvage=True):
            part = PART_OF_SUFFIX[member.suffix]
            if not occurrences[member.key] or part in occurrences[member.key][-1]:
                occurrences[member.key].append({})
            occurrences[member.key][-1][part] = member.content
    except DamagedTarError as damage:
        return _Tar(occurrences, str(damage))
    return _Tar(occurrences, "")


def _successes(path: Path) -> int:
    """Pairs that img2dataset says it has put into the tar."""
    remedy = f"delete it and {DOWNLOAD_AGAIN}"
    try:
        successes = json.loads(path.read_bytes())["successes"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise DeliveryError(f"{path} is not img2dataset's ({error!r}); {remedy}") from error
    if type(successes) is not int or not 0 <= successes <= MOST_PAIRS:
        raise DeliveryError(f"{path} counts {successes!r} successes; {remedy}")
    return successes


def _promised_uids(path: Path) -> PromisedUids:
    """The rows of the table that succeeded; nothing without a table."""
    if not path.exists():
        return {}
    remedy = f"delete it to go on without it, or {DOWNLOAD_AGAIN}"
    try:
        table = pq.ParquetFile(path)
        columns = {"key", "status", "uid"} & set(table.schema_arrow.names)
        rows = table.read(columns=sorted(columns)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DeliveryError(f"{path} is no readable parquet ({str(error).strip()}); {remedy}") from error
    if "key" not in columns:
        raise DeliveryError(f"{path} has no column 'key', so it is not img2dataset's; {remedy}")
    promised: dict[str, list[str | None]] = defaultdict(list)
    for row in rows:
        if row.get("status", "success") == "success":
            promised[str(row["key"])].append(row["uid"] if is_uid(row.get("uid")) else None)
    return promised
