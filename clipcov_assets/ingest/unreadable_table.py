"""A table that cannot be read: it leaves as one fault, so that the others of its delivery go on."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipcov_assets.ingest.delivery import (
    DeliveryError,
    Fault,
    Place,
    Reason,
    Shard,
    ShardContents,
    files_fingerprint,
)
from clipcov_assets.ingest.judging import place_name


@dataclass(frozen=True)
class UnreadableTable:
    """A shard for a table of which nobody can say how many pairs it holds."""

    directory: Path
    path: Path
    detail: str

    @property
    def name(self) -> str:
        """The table."""
        return place_name(self.directory, self.path)

    @property
    def size(self) -> int:
        """Nothing of it is read."""
        return 0

    def fingerprint(self) -> str:
        """Digest of the table."""
        return files_fingerprint([self.path], self.detail)

    def read(self) -> ShardContents:
        """Return one fault for all pairs of the table, and say so."""
        fault = Fault(Place(self.name), None, Reason.ROW_UNREADABLE, self.detail)
        remark = f"{self.name} is not read, whatever it holds counts as one pair: {self.detail}"
        return ShardContents(promised=1, outcomes=iter([fault]), remarks=[remark])


def table_shards(directory: Path, tables: Iterable[Path], cut: Callable[[Path], Sequence[Shard]]) -> tuple[Shard, ...]:
    """Return the shards of all tables; a table that cannot be cut leaves as an `UnreadableTable`, after the others.

    Args:
        directory: The delivery's.
        tables: In the order of the delivery.
        cut: Makes the shards of one table.

    Raises:
        DeliveryError: Not one table is readable.
    """
    shards: list[Shard] = []
    unreadable: list[UnreadableTable] = []
    for path in tables:
        try:
            shards += cut(path)
        except (DeliveryError, OSError) as error:
            unreadable.append(UnreadableTable(directory, path, str(error)))
    if not shards:
        details = "; ".join(table.detail for table in unreadable[:3]) or "there is none"
        raise DeliveryError(f"no table in {directory} holds a pair: {details}")
    return (*shards, *unreadable)
