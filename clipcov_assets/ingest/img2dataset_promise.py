"""What lies beside img2dataset's NNNNN.tar: a table and statistics, which promise what the tar should hold.

Neither is needed, and neither is trusted: what cannot be used is left out with a remark.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from clipcov_assets.ingest.pair_parts import is_uid

STATISTICS = "_stats.json"
MOST_PAIRS = 1_000_000  # img2dataset writes 10,000 a shard
_INSTEAD = "the rest is read without it; have img2dataset write the shard again to know all that should be there"


@dataclass(frozen=True)
class Promise:
    """The pairs that a shard should hold.

    Attributes:
        uids: Of every key that the table names, its uids in order, None where there is none.
        successes: Pairs that the statistics count, 0 without statistics.
        remarks: What is wrong with either of them.
    """

    uids: Mapping[str, list[str | None]] = field(default_factory=dict)
    successes: int = 0
    remarks: tuple[str, ...] = ()


def table_of(tar: Path) -> Path:
    """Where the table of a tar lies."""
    return tar.with_suffix(".parquet")


def statistics_of(tar: Path) -> Path:
    """Where the statistics of a tar lie."""
    return tar.with_name(tar.stem + STATISTICS)


def read_promise(tar: Path, *, key_width: int) -> Promise:
    """Read what is promised beside a tar.

    Args:
        tar: Its path.
        key_width: Characters of a key in the tar; a table that holds keys as numbers has lost their zeros.
    """
    table, statistics = table_of(tar), statistics_of(tar)
    remarks: list[str] = []
    uids: Mapping[str, list[str | None]] = {}
    successes: int | None = None
    if table.exists():
        try:
            uids = _read_uids(table, key_width)
        except Exception as error:  # readers of foreign bytes raise whatever they like
            remarks.append(_unusable(table, error))
    if statistics.exists():
        try:
            successes = _read_successes(statistics)
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            remarks.append(_unusable(statistics, error))
    n_rows = sum(map(len, uids.values()))
    if uids and successes is not None and successes != n_rows:
        remarks.append(f"{statistics.name} promises {successes} pairs, {table.name} {n_rows}: the larger counts")
    return Promise(uids, successes or 0, tuple(remarks))


def _read_uids(path: Path, key_width: int) -> Mapping[str, list[str | None]]:
    """The rows that succeeded."""
    file = pq.ParquetFile(path)
    columns = {"key", "status", "uid"} & set(file.schema_arrow.names)
    if "key" not in columns:
        raise ValueError("no column 'key'")
    if file.metadata.num_rows > MOST_PAIRS:
        raise ValueError(f"{file.metadata.num_rows} rows, {MOST_PAIRS} are the most")
    uids: dict[str, list[str | None]] = defaultdict(list)
    for row in file.read(columns=sorted(columns)).to_pylist():
        if row.get("status", "success") == "success":
            uid = row.get("uid")
            uids[str(row["key"]).zfill(_is_number(row["key"]) * key_width)].append(uid if is_uid(uid) else None)
    return dict(uids)


def _read_successes(path: Path) -> int:
    successes = json.loads(path.read_bytes())["successes"]
    if not _is_number(successes) or not 0 <= successes <= MOST_PAIRS:
        raise ValueError(f"{successes!r} successes")
    return int(successes)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _unusable(path: Path, error: Exception) -> str:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return f"{path.name} cannot be used ({reason}): {_INSTEAD}"
