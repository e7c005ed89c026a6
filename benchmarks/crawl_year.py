"""A Dagster instance on SQLite after a year of daily crawls: a directory enters, an instance with all its rows leaves.

One crawl is carried down the whole road by Dagster itself, with assets that report at once what real ones report. The
rows that this leaves in the databases are then written again for every day before, with that day's crawl, runs and
time.
"""

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg

from clipcov_assets.checks import all_checks
from clipcov_assets.definitions import ASSETS
from clipcov_assets.demo import QUIET, Step, road
from clipcov_assets.provenance import Input, provenance_table

SETTINGS = Path(__file__).parents[1] / "dagster.yaml"
MEMORY = Path("/dev/shm")
INDEX, RUNS = "history/runs/index.db", "history/runs.db"
# What real assets keep in Dagster, by the last word of their name: numbers, rows of tables, letters of text with
# pictures in it. Counted in the demo; tables of classes have the hundred rows of ImageNet's.
REPORTED = {
    "pairs": (13, 0, 19_000),
    "embeddings": (20, 0, 1_000),
    "classes": (6, 100, 0),
    "pool": (8, 120, 0),
    "ranking": (6, 0, 0),
    "subset": (18, 0, 18_500),
    "checkpoint": (14, 3, 2_000),
    "scorecard": (26, 24, 0),
    "comparison": (90, 0, 140_000),
}
TABLES = {INDEX: ("event_logs", "asset_event_tags", "asset_check_executions"), RUNS: ("runs", "run_tags")}
# Columns that hold an id of the table of events.
EVENT_IDS = ("event_id", "evaluation_event_storage_id", "materialization_event_storage_id")
RUN_ID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# What differs from day to day in a text, beside the name of the crawl: runs, times, events.
PIECES = rf'{RUN_ID}|(?<=timestamp": )\d+\.\d+|(?<=storage_id": )\d+|pointer/\w+": "\d+'
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?")


def instance_in(directory: Path) -> dg.DagsterInstance:
    """Open an instance that is configured as the project's, with all that it keeps in a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    quiet = "python_logs: {python_log_level: WARNING}\n"
    (directory / "dagster.yaml").write_text(SETTINGS.read_text().replace("var/dagster", str(directory)) + quiet)
    return dg.DagsterInstance.from_config(str(directory))


def crawl_name(day: int) -> str:
    """Name of the crawl of a day; all are equally long."""
    return f"crawl-{day:04d}"


@contextmanager
def carried(day: int) -> Iterator[tuple[Path, Mapping[str, int]]]:
    """Lend the directory of an instance in which the crawl of one day was carried down the road.

    Yields:
        The directory, and the highest ids that belong to no crawl. SQLite waits for the disk after every event, so it
        is in memory where the system has such a place.
    """
    job = stand_ins().resolve_implicit_global_asset_job_def()
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as home:
        directory = Path(home)
        with instance_in(directory) as instance:
            run(job, instance, Step(("proxy_checkpoint",), None))
            before = last_ids(directory)
            instance.add_dynamic_partitions("crawl", [crawl_name(day)])
            for step in runs_of(crawl_name(day)):
                run(job, instance, step)
        yield directory, before


def runs_of(crawl: str) -> list[Step]:
    """The runs of a crawl: as the conditions ask for them, all methods of a fraction in one."""
    runs: list[Step] = []
    for step in road(crawl):
        same = [place for place, other in enumerate(runs) if other.partition == step.partition]
        if step.partition is None:
            continue
        if same and (same[-1] == len(runs) - 1 or "|" in step.partition):
            other = runs[same[-1]]
            runs[same[-1]] = replace(other, assets=(*other.assets, *step.assets))
        else:
            runs.append(step)
    return runs


def run(job: dg.JobDefinition, instance: dg.DagsterInstance, step: Step) -> None:
    """Materialize stand-ins of assets, in a run that has the tags that the assets themselves would give it."""
    crawl, _, fraction = (step.partition or "").partition("|")
    found = {"clipcov/crawl": crawl, "clipcov/fraction": fraction}
    job.execute_in_process(
        asset_selection=[dg.AssetKey(asset) for asset in step.assets],
        partition_key=step.partition,
        tags={name: value for name, value in found.items() if value},
        run_config=QUIET,
        instance=instance,
    )


def stand_ins() -> dg.Definitions:
    """The assets and checks of the project, which report at once."""
    checks: dict[dg.AssetKey, list[dg.AssetCheckSpec]] = {}
    for definition in all_checks():
        for check in definition.check_specs:
            checks.setdefault(check.asset_key, []).append(check)
    return dg.Definitions(
        assets=[stand_in(spec, checks.get(spec.key, [])) for asset in ASSETS for spec in asset.specs],
        executor=dg.in_process_executor,
    )


def stand_in(spec: dg.AssetSpec, checks: list[dg.AssetCheckSpec]) -> dg.AssetsDefinition:
    """An asset with its checks that reports at once."""
    name = spec.key.path[-1]

    @dg.multi_asset(name=name, specs=[spec], check_specs=checks)
    def report() -> dg.MaterializeResult:
        results = [dg.AssetCheckResult(check_name=one.name, passed=True, metadata={"rows": 1}) for one in checks]
        version = dg.DataVersion("0123456789abcdef")
        return dg.MaterializeResult(metadata=reported(name), data_version=version, check_results=results)

    return report


def reported(asset: str) -> dict[str, Any]:
    """Metadata as large as that of the real asset."""
    numbers, rows, letters = REPORTED[asset.rpartition("_")[2]]
    found: dict[str, Any] = {f"number/{place:02d}": 0.123456 + place for place in range(numbers)}
    if rows:
        records = [dg.TableRecord({"name": f"some name {row:03d}", "value": row}) for row in range(rows)]
        found["rows"] = dg.MetadataValue.table(records)
    if letters:
        found["text"] = dg.MetadataValue.md("picture " * (letters // 8))
    came_from = [Input("an_asset", "a-crawl", "0123456789abcdef", "a run", {}) for _ in range(3)]
    return {**found, "dagster/row_count": 1, "lance_version": 1, "provenance": provenance_table(came_from)}


def last_ids(directory: Path) -> dict[str, int]:
    """The highest id of every table that grows with the crawls."""
    found = {}
    for database, tables in TABLES.items():
        with closing(sqlite3.connect(directory / database)) as connection:
            for table in tables:
                found[table] = connection.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()[0]
    return found


@dataclass(frozen=True)
class Day:
    """What is different in the rows of another day.

    Attributes:
        number: Counts the days.
        earlier: Whole days before the last one; they go into the ids of runs.
        ids: What is added to the ids of each table.
    """

    number: int
    earlier: timedelta
    ids: Mapping[str, int]


class Template:
    """The rows that one crawl left in a table, cut where those of another day differ.

    Args:
        connection: To the database.
        table: Name of the table.
        crawl: Name of the crawl.
        before: Highest id of each table before the crawl; what has it, or a lower one, belongs to no crawl.
    """

    def __init__(self, connection: sqlite3.Connection, table: str, crawl: str, before: Mapping[str, int]) -> None:
        """Read the rows."""
        self._crawl, self._before = crawl, before
        found = connection.execute(f"SELECT * FROM {table} WHERE id > ? ORDER BY id", (before[table],))
        columns = [column[0] for column in found.description]
        self._tables = ["event_logs" if name in EVENT_IDS else table if name == "id" else "" for name in columns]
        self._pieces = re.compile(f"({re.escape(crawl)}|{PIECES})")
        self._rows = [[self._cut(value) for value in row] for row in found]
        self._insert = f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})"

    def write(self, connection: sqlite3.Connection, day: Day) -> None:
        """Write the rows of another day."""
        connection.executemany(self._insert, (self._on(day, row) for row in self._rows))

    def _cut(self, value: object) -> object:
        """Text in pieces, of which every second one is another one on another day."""
        if not isinstance(value, str) or TIME.fullmatch(value):
            return value
        return self._pieces.split(value)

    def _on(self, day: Day, row: list[Any]) -> list[Any]:
        return [self._value(day, table, value) for table, value in zip(self._tables, row, strict=True)]

    def _value(self, day: Day, table: str, value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, list):
            varying = (self._piece(day, piece) for piece in value[1::2])
            return "".join(part for pair in zip_longest(value[::2], varying, fillvalue="") for part in pair)
        if isinstance(value, str):
            return str(datetime.fromisoformat(value) - day.earlier)
        if isinstance(value, float):
            return value - day.earlier.total_seconds()
        return self._id(day, table, value) if table and value is not None else value

    def _piece(self, day: Day, text: str) -> str:
        if text == self._crawl:
            return crawl_name(day.number)
        if text.isdecimal():
            return str(self._id(day, "event_logs", int(text)))
        if re.fullmatch(RUN_ID, text):
            return f"{int(text[:4], 16) ^ day.earlier.days:04x}{text[4:]}"  # the last day's is as it was
        if text.startswith("pointer"):
            start, _, event = text.rpartition('"')
            return f'{start}"{self._id(day, "event_logs", int(event))}'
        return str(float(text) - day.earlier.total_seconds())

    def _id(self, day: Day, table: str, value: int) -> int:
        return value + day.ids[table] if value > self._before[table] else value


def repeat(directory: Path, days: Sequence[int], before: Mapping[str, int]) -> None:
    """Write what the crawl of the last day left for all days, and put it itself behind them.

    Args:
        directory: Of an instance in which the crawl of the last day was carried.
        days: In order, without gaps.
        before: Highest id of each table before that crawl.
    """
    with instance_in(directory) as instance:
        instance.add_dynamic_partitions("crawl", [crawl_name(day) for day in days])
    after = last_ids(directory)
    for database, tables in TABLES.items():
        with closing(sqlite3.connect(directory / database)) as connection, connection:
            for setting in ("journal_mode = OFF", "synchronous = OFF"):
                connection.execute(f"PRAGMA {setting}")
            templates = [Template(connection, table, crawl_name(days[-1]), before) for table in tables]
            for table in tables:
                connection.execute(f"DELETE FROM {table} WHERE id > ?", (before[table],))
            for number, day in enumerate(days):
                ids = {table: number * (after[table] - before[table]) for table in after}
                for template in templates:
                    template.write(connection, Day(day, timedelta(days=days[-1] - day), ids))
            if database == INDEX:
                _mend_asset_keys(connection, before["event_logs"], ids["event_logs"])


def _mend_asset_keys(connection: sqlite3.Connection, after: int, added: int) -> None:
    """Each asset's newest materialization is the one of the last day, whose id is another one now."""
    found = connection.execute("SELECT id, last_materialization FROM asset_keys").fetchall()
    for row, newest in found:
        event = re.search(r'"storage_id": (\d+)}$', newest)
        if event and int(event[1]) > after:
            mended = f'{newest[: event.start()]}"storage_id": {int(event[1]) + added}}}'
            connection.execute("UPDATE asset_keys SET last_materialization = ? WHERE id = ?", (mended, row))
