"""The tables of the road: what enters is an Arrow table or a stream of batches, what leaves is an Arrow table."""

import asyncio
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
from pydantic import Field

from resources.mirror import is_address, trouble_with
from resources.patience import Answer, in_time
from resources.pieces import disk_of
from resources.text_columns import narrow, narrowed, wide

# Lance warns each time it creates a table; a user would read that as a fault.
os.environ.setdefault("LANCEDB_LOG", "error")
ONE_MOMENT = timedelta(minutes=2)
FIRST_TO_STAY = "first-to-stay"
ROWS_WRITTEN = 65_536  # of a table at a time, since text is copied to be stored

SETTING = "CLIPCOV_LANCE"
ANSWER_SECONDS = 45.0  # for what is short: to connect, to open a table, to list them
# A request is sent again up to five times, within 20 seconds; Lance lists up to six times on top of that.
CLIENT = {"connect_timeout": "5s", "client_max_retries": "5", "client_retry_timeout": "20"}
STORE_FAULT = "LanceError(IO)"  # how Lance calls what the store did, as opposed to what was in the rows


class UnreachableStoreError(OSError):
    """The database's address cannot be reached; the message names it, without secrets, and the remedy."""


@dataclass(frozen=True)
class WrittenTable:
    """What a write left behind: the table's name, its address, its Lance version and its rows."""

    name: str
    uri: str
    version: int
    row_count: int


@dataclass(frozen=True)
class Forgotten:
    """Versions of a table that are gone, and the bytes that this freed."""

    versions: int
    bytes: int


class LanceStore(dg.ConfigurableResource):
    """One Lance table for each asset and partition, in one LanceDB database.

    Writing a partition again replaces its rows in one step and makes a new version of the table; an
    interrupted write leaves the earlier version as it was. Text leaves with offsets of 64 bits and is stored with 32.
    """

    uri: str = Field(
        description="Directory of the LanceDB database, or its address, such as s3://bucket/tables. Every method "
        "raises UnreachableStoreError where an address does not answer."
    )

    def write(
        self,
        asset: str,
        partition: str,
        rows: pa.Table | pa.RecordBatchReader,
        metadata: dict[str, str] | None = None,
    ) -> WrittenTable:
        """Replace the rows of one partition.

        Args:
            asset: Last part of the asset's key.
            partition: Partition key; `|` between two dimensions is allowed.
            rows: A table, or a stream of batches for what should not be held in memory at once.
            metadata: Kept in the table's schema, such as the proxy that made its embeddings.

        Raises:
            FullDiskError: There is no room.
        """
        name = table_name(asset, partition)
        added = {key.encode(): value.encode() for key, value in (metadata or {}).items()}
        schema = narrow(rows.schema).with_metadata({**(rows.schema.metadata or {}), **added})
        batches = _narrow_batches(rows) if isinstance(rows, pa.Table) else rows.cast(narrow(rows.schema))
        rows = pa.RecordBatchReader.from_batches(schema, batches)
        connection = self._asked(self._connect)
        with reaching(self.uri), disk_of(self.uri):
            table = connection.create_table(name, rows, schema=schema, mode="overwrite")
            return WrittenTable(name, f"{self.uri}/{name}.lance", table.version, table.count_rows())

    def read(
        self,
        asset: str,
        partition: str,
        columns: list[str] | None = None,
        *,
        version: int | None = None,
    ) -> pa.Table:
        """Read one partition: all of it, or some columns, now or as it was at a version.

        Raises:
            KeyError: The table is not there; the message says what to materialize.
            ValueError: The version is gone, or the table has no such column.
        """
        query = self._query(asset, partition, columns, version)
        with reaching(self.uri):
            return _in_memory(query)

    def find(
        self,
        asset: str,
        partition: str,
        column: str,
        values: Iterable[str],
        columns: list[str],
        *,
        version: int | None = None,
    ) -> pa.Table:
        """Read the rows of one partition whose text in `column` is one of the values, in the order of the table.

        Args:
            asset: Last part of the asset's key.
            partition: Partition key.
            column: A column of text; no more than it is read of the other rows.
            values: Any text; those that no row has are passed over.
            columns: What is read.
            version: As it was then; now where None.

        Raises:
            KeyError: The table is not there; the message says what to materialize.
            ValueError: The version is gone, or the table has no such column.
        """
        table = self._open(asset, partition, version)
        check_columns(table, [column, *columns])
        listed = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
        with reaching(self.uri):
            return _in_memory(table.search().where(f"{column} IN ({listed})" if listed else "false").select(columns))

    def rows(self, asset: str, partition: str, *, version: int | None = None) -> "StoredRows":
        """Open one partition, now or as it was at a version, to read some of its rows at a time.

        Raises:
            KeyError: The table is not there; the message says what to materialize.
            ValueError: The version is gone.
        """
        return StoredRows(table_name(asset, partition), self._open(asset, partition, version), self.uri)

    def stream(self, asset: str, partition: str, columns: list[str], *, batch_size: int) -> pa.RecordBatchReader:
        """Read one partition batch by batch, for what should not be held in memory at once."""
        query = self._query(asset, partition, columns, None)
        with reaching(self.uri):
            batches = query.to_batches(batch_size=batch_size)
        return pa.RecordBatchReader.from_batches(batches.schema, _read(batches, self.uri)).cast(wide(batches.schema))

    def exists(self, asset: str, partition: str) -> bool:
        """Whether the partition has been written."""
        try:
            self._open(asset, partition)
        except KeyError:
            return False
        return True

    def tables(self) -> list[str]:
        """Names of all tables: the asset, a dot, and the partition."""
        connection = self._asked(self._connect)
        found, token = [], None
        while True:
            page = self._asked(lambda token=token: connection.list_tables(page_token=token))  # type: ignore[misc]
            found += page.tables
            if not (token := page.page_token):
                return found

    def partitions(self, asset: str) -> list[str]:
        """Partitions of an asset that have been written, as they stand in the names of tables."""
        prefix = table_name(asset, "")
        return [name.removeprefix(prefix) for name in self.tables() if name.startswith(prefix)]

    def row_count(self, asset: str, partition: str) -> int:
        """Rows of one partition."""
        return len(self.rows(asset, partition))

    def version(self, asset: str, partition: str) -> int:
        """Present Lance version of one partition."""
        return int(self._open(asset, partition).version)

    def has_version(self, asset: str, partition: str, version: int) -> bool:
        """Whether one partition can still be read as it was at a version."""
        try:
            self._open(asset, partition, version)
        except (KeyError, ValueError):
            return False
        return True

    def metadata(self, asset: str, partition: str, *, version: int | None = None) -> dict[str, str]:
        """What the writer put into the table's schema, now or at a version."""
        return self.rows(asset, partition, version=version).metadata

    def forget(self, name: str, age: timedelta, *, keep: Collection[int] = (), dry_run: bool = False) -> Forgotten:
        """Forget the versions of a table that were replaced longer ago, and compact what is left.

        LanceDB forgets by age alone, so what is newer than the oldest version to keep stays, too. The present version
        always does, and so does one that has a tag.

        Args:
            name: Of the table.
            age: A version that was replaced since then stays.
            keep: Versions that stay however old they are.
            dry_run: Only say which would go; the bytes are those of their files, some of which others may share.
        """
        table = self._asked(lambda: self._connect().open_table(name))
        with reaching(self.uri):
            return self._forget(table, name, age, keep, dry_run)

    def _forget(self, table: Any, name: str, age: timedelta, keep: Collection[int], dry_run: bool) -> Forgotten:  # noqa: ANN401
        versions = sorted(table.list_versions(), key=lambda one: int(one["version"]))
        tagged = (int(tag["version"]) for label, tag in table.tags.list().items() if label != FIRST_TO_STAY)
        kept = {*keep, *tagged}
        written = [one["timestamp"].astimezone() for one in versions]
        long_ago = datetime.now().astimezone() - age
        # The version that was the present one then, if there was one, is the first to stay.
        first = max((place for place, when in enumerate(written) if when <= long_ago), default=0)
        first = min([first, *(place for place, one in enumerate(versions) if one["version"] in kept)])
        # By age, versions of one moment cannot be told apart.
        while first and written[first] - written[first - 1] < ONE_MOMENT:
            first -= 1
        if not first:
            return Forgotten(0, 0)
        if dry_run:
            return Forgotten(first, sum(int(one["metadata"].get("total_files_size", 0)) for one in versions[:first]))
        pruned = asyncio.run(self._prune(name, written[first] - ONE_MOMENT / 2, int(versions[first]["version"])))
        return Forgotten(int(pruned.old_versions_removed), int(pruned.bytes_removed))

    async def _prune(self, name: str, before: datetime, first: int) -> Any:  # noqa: ANN401
        """Remove the versions before a time, all of which must be older than the first one to stay."""
        import lancedb

        # Only this interface says what was removed.
        table = await (await lancedb.connect_async(self.uri, storage_options=_options(self.uri))).open_table(name)
        # LanceDB counts back from its own now: should that be late, it refuses to remove what has a tag.
        mark = table.tags.update if FIRST_TO_STAY in await table.tags.list() else table.tags.create
        await mark(FIRST_TO_STAY, first)
        try:
            return (await table.optimize(cleanup_older_than=datetime.now().astimezone() - before)).prune
        finally:
            await table.tags.delete(FIRST_TO_STAY)

    def _connect(self) -> Any:  # noqa: ANN401  (lancedb has no types)
        import lancedb

        return lancedb.connect(self.uri, storage_options=_options(self.uri))

    def _open(self, asset: str, partition: str, version: int | None = None) -> Any:  # noqa: ANN401
        name = table_name(asset, partition)
        try:
            table = self._asked(lambda: self._connect().open_table(name))
        except ValueError as error:
            raise KeyError(
                f"table {name} is not in {self.uri}: materialize {asset} for partition {partition} first"
            ) from error
        if version is not None:
            try:
                with reaching(self.uri):
                    table.checkout(version)
            except ValueError as error:
                raise ValueError(
                    f"version {version} of table {name} is gone: materialize what was made from it again"
                ) from error
        return table

    def _asked(self, question: Callable[[], Answer]) -> Answer:
        """Ask the database something short.

        Raises:
            ValueError: It answers that there is no such table.
            UnreachableStoreError: It does not answer.
        """
        if not is_address(self.uri):
            return question()
        try:
            return in_time(question, ANSWER_SECONDS)
        except Exception as error:  # LanceDB raises all kinds, ValueError among them
            if _says_that_a_table_is_missing(error):
                raise
            raise UnreachableStoreError(trouble_with(self.uri, SETTING, error)) from error

    def _query(self, asset: str, partition: str, columns: list[str] | None, version: int | None) -> Any:  # noqa: ANN401
        table = self._open(asset, partition, version)
        query = table.search()
        return query.select(check_columns(table, columns)) if columns else query


class StoredRows:
    """An open table, to read some of its rows at a time; may be used from several threads."""

    def __init__(self, name: str, table: Any, uri: str) -> None:  # noqa: ANN401
        self.name = name
        self._table, self._uri = table, uri

    def __len__(self) -> int:
        with reaching(self._uri):
            return int(self._table.count_rows())

    @property
    def version(self) -> int:
        """Lance version that is open."""
        return int(self._table.version)

    @property
    def metadata(self) -> dict[str, str]:
        """What the writer put into the table's schema."""
        return {key.decode(): value.decode() for key, value in (self._table.schema.metadata or {}).items()}

    def slice(self, start: int, count: int, columns: list[str]) -> pa.Table:
        """Read `count` neighbouring rows from place `start` on: a sequential read."""
        if not count:
            return self.take(np.empty(0, np.int64), columns)
        query = self._table.search().select(check_columns(self._table, columns)).offset(start).limit(count)
        with reaching(self._uri):
            return self._whole(_in_memory(query), count)

    def take(self, places: np.ndarray, columns: list[str]) -> pa.Table:
        """Read the rows at these places, in this order; a place may repeat."""
        check_columns(self._table, columns)
        if not len(places):
            return _in_memory(self._table.search().select(columns).limit(1)).slice(0, 0)
        # Lance returns them in the order of the table.
        order = np.argsort(places, kind="stable")
        query = self._table.take_offsets(places[order].tolist()).select(columns)
        with reaching(self._uri):
            found = self._whole(_in_memory(query), len(places))
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return found.take(pa.array(back))

    def _whole(self, found: pa.Table, count: int) -> pa.Table:
        if len(found) != count:
            raise ValueError(
                f"{self.name} has {len(found)} of {count} wanted rows: it is shorter than what was made with it says; "
                "materialize it again"
            )
        return found


def check_columns(table: Any, columns: list[str]) -> list[str]:  # noqa: ANN401
    """Return the columns.

    Raises:
        ValueError: The table lacks one of them.
    """
    missing = sorted(set(columns).difference(table.schema.names))
    if missing:
        raise ValueError(
            f"table {table.name} has no column {', '.join(missing)}: another version of this project wrote it; "
            "materialize it again"
        )
    return columns


def table_name(asset: str, partition: str) -> str:
    """Name of the Lance table of one partition: `embeddings.crawl-1`, `random_subset.crawl-1.f10`."""
    return f"{asset}.{partition.replace('|', '.')}"


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Turn what a store at an address does to work that is in order into an `UnreachableStoreError`."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        if not is_address(uri) or STORE_FAULT not in str(error):
            raise
        raise UnreachableStoreError(trouble_with(uri, SETTING, error)) from error


def _read(batches: Iterable[pa.RecordBatch], uri: str) -> Iterator[pa.RecordBatch]:
    with reaching(uri):
        yield from batches


def _in_memory(query: Any) -> pa.Table:  # noqa: ANN401
    rows = query.to_arrow()
    return rows.cast(wide(rows.schema))


def _narrow_batches(rows: pa.Table) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(rows), ROWS_WRITTEN):
        for some in narrowed(rows.slice(start, ROWS_WRITTEN)):
            yield from some.to_batches()


def _options(uri: str) -> dict[str, str] | None:
    """What LanceDB's client is told beside what it reads from the environment itself, such as AWS_ENDPOINT_URL."""
    if not is_address(uri):
        return None
    plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    return {**CLIENT, "allow_http": "true"} if plain else CLIENT


def _says_that_a_table_is_missing(error: Exception) -> bool:
    return isinstance(error, ValueError) and str(error).startswith("Table '") and str(error).endswith("was not found")
