"""Where a result came from, partition by partition, and the version of what it holds.

Dagster shows lineage by asset; these tables follow it by partition: which materialization, which run,
which Lance version went in.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa

from resources.lance_store import WrittenTable
from resources.text_columns import narrow, narrowed

LANCE_VERSION = "lance_version"
PROVENANCE = "provenance"
CONFIGURATION = "configuration"
UNKNOWN = "unknown"
# What of the environment decides about a result. Addresses are left out: they may hold secrets.
CHOICES = ("CLIPCOV_RECIPE", "CLIPCOV_BUDGET", "CLIPCOV_SEEDS")


@dataclass(frozen=True)
class Input:
    """One materialization that a result was made from, with the metadata that it reported."""

    asset: str
    partition: str | None
    data_version: str
    run_id: str
    metadata: Mapping[str, dg.MetadataValue]

    @property
    def lance_version(self) -> str:
        """Version of the Lance table it wrote, or nothing where it wrote none."""
        version = self.metadata.get(LANCE_VERSION)
        return "" if version is None else str(version.value)


@dataclass(frozen=True)
class RecordedInput:
    """One row of a provenance table: an input as the result that was made from it remembers it."""

    asset: str
    partition: str | None
    data_version: str
    run_id: str
    lance_version: str


def latest_input(
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext, asset: str, partition: str | None
) -> Input:
    """The newest materialization of an asset's partition.

    Raises:
        dagster.Failure: It was never materialized; a retry would not help.
    """
    wanted = dg.AssetRecordsFilter(
        asset_key=dg.AssetKey(asset), asset_partitions=None if partition is None else [partition]
    )
    records = context.instance.fetch_materializations(wanted, limit=1).records
    if not records:
        at = f" for partition {partition}" if partition else ""
        raise dg.Failure(f"{asset} has not been materialized{at}: materialize it first", allow_retries=False)
    materialization = records[0].asset_materialization
    return Input(
        asset=asset,
        partition=partition,
        data_version=(materialization.tags or {}).get("dagster/data_version", UNKNOWN),
        run_id=records[0].event_log_entry.run_id,
        metadata=materialization.metadata,
    )


def provenance_table(inputs: Iterable[Input]) -> dg.TableMetadataValue:
    """The inputs of a result as the table that Dagster shows beside it."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "asset": one.asset,
                    "partition": one.partition or "",
                    "data_version": one.data_version,
                    "run": one.run_id,
                    "lance_version": one.lance_version,
                }
            )
            for one in inputs
        ],
        schema=dg.TableSchema.from_name_type_dict(
            dict.fromkeys(("asset", "partition", "data_version", "run", "lance_version"), "string")
        ),
    )


def recorded_inputs(metadata: Mapping[str, Any]) -> tuple[RecordedInput, ...]:
    """Read a result's provenance table back; none where its metadata holds no such table."""
    table = metadata.get(PROVENANCE)
    if not isinstance(table, dg.TableMetadataValue):
        return ()
    rows = [{name: str(value or "") for name, value in record.data.items()} for record in table.records]
    return tuple(
        RecordedInput(
            asset=row.get("asset", ""),
            partition=row.get("partition") or None,
            data_version=row.get("data_version") or UNKNOWN,
            run_id=row.get("run", ""),
            lance_version=row.get("lance_version", ""),
        )
        for row in rows
    )


def configuration() -> dict[str, str]:
    """The project's version, the scale and the choices of the environment, as they are now."""
    try:
        project = version("clipcov-assets")
    except PackageNotFoundError:
        project = UNKNOWN
    chosen = {name: os.environ[name] for name in CHOICES if name in os.environ}
    return {"project": project, "CLIPCOV_SCALE": os.environ.get("CLIPCOV_SCALE", "demo"), **chosen}


def content_version(*parts: bytes | str | np.ndarray | pa.Table) -> str:
    """Version of some content: equal content gives the equal version, byte for byte.

    Text counts as it is stored, with offsets of 32 bits, so that a table in memory and read back has one version.
    """
    digest = hashlib.sha256()
    for part in parts:
        for piece in _bytes_of(part):
            digest.update(len(piece).to_bytes(8, "little"))
            digest.update(piece)
    return digest.hexdigest()[:16]


def materialized(
    written: WrittenTable,
    version: str,
    inputs: Sequence[Input],
    metadata: Mapping[str, Any],
) -> dg.MaterializeResult:
    """The result of an asset that wrote a Lance table, with the metadata that each of them carries."""
    return dg.MaterializeResult(
        data_version=dg.DataVersion(version),
        metadata={
            **metadata,
            "dagster/row_count": written.row_count,
            "dagster/uri": written.uri,
            LANCE_VERSION: written.version,
            CONFIGURATION: dg.MetadataValue.json(configuration()),
            **({PROVENANCE: provenance_table(inputs)} if inputs else {}),
        },
    )


def legible(number: float) -> int | float:
    """A number as people read it beside others: whole ones exactly, others to four digits."""
    return int(number) if float(number).is_integer() else float(f"{number:.4g}")


def _bytes_of(part: bytes | str | np.ndarray | pa.Table) -> Iterable[bytes | pa.Buffer]:
    if isinstance(part, str):
        yield part.encode()
    elif isinstance(part, np.ndarray):
        yield f"{part.dtype}{part.shape}".encode()
        yield np.ascontiguousarray(part).tobytes()
    elif isinstance(part, pa.Table):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, narrow(part.schema).remove_metadata()) as writer:
            for rows in narrowed(part):
                writer.write_table(rows)
        yield sink.getvalue()
    else:
        yield part
