"""What materializations were made of, and what these inputs are now, under the names that Dagster's own tags have."""

import json
import time
from collections.abc import Collection, Iterator, Mapping
from hashlib import sha256
from typing import Any

import dagster as dg
from dagster._core.storage.event_log.base import AssetRecord

CODE_VERSION, DATA_VERSION = "dagster/code_version", "dagster/data_version"
INPUT_VERSION = "dagster/input_data_version/"  # and the name of the input
# The earlier crawls of a pool, which are no inputs to Dagster: a pool depends on its own crawl alone.
EARLIER_CRAWLS = "earlier_crawls_version"
MATERIALIZATION = dg.DagsterEventType.ASSET_MATERIALIZATION
NOT_MADE = sha256(b"").hexdigest()  # version of no partitions
NEVER_MADE = "INITIAL"  # Dagster's word for the version of an asset of which nothing was ever made
MOST_COMPARED = 99  # partitions of an input: of more, Dagster records only the newest
READ_AT_ONCE = 500
MOST_REMEMBERED = 100_000
KEPT_SECONDS = 600  # what was compared, where nothing was made since: a person may delete a run

Versions = Mapping[str, str]

# A materialization never changes, so it is read once: by the database and the number of the event.
_remembered: dict[tuple[str, int], Versions] = {}
# What was found when an asset was last looked at, beside all that it depends on.
_compared: dict[tuple[str, dg.AssetKey], tuple[object, tuple[dict[str, Versions], dict[str, Versions]]]] = {}


def version_of(versions: Versions) -> str:
    """One version of several: equal for equal ones, whatever their order."""
    return sha256(json.dumps(versions, sort_keys=True).encode()).hexdigest()[:16]


def differ(made: Versions, now: Versions) -> bool:
    """Whether an input that both know has another version."""
    return any(made[name] != version for name, version in now.items() if name in made)


def data_versions(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: Collection[str] | None = None
) -> dict[str, str]:
    """The data version of each partition that is materialized; of some partitions, or of all."""
    newest = instance.event_log_storage.get_latest_storage_id_by_partition(
        asset, MATERIALIZATION, None if partitions is None else set(partitions)
    )
    tags = instance.event_log_storage.get_latest_tags_by_partition(
        asset, MATERIALIZATION, [DATA_VERSION], None if partitions is None else list(partitions)
    )
    return {partition: tags.get(partition, {}).get(DATA_VERSION, "") for partition in newest}


async def made_and_now(
    context: dg.AutomationContext, partitions: Collection[str]
) -> tuple[dict[str, Versions], dict[str, Versions]]:
    """What the newest materialization of each partition recorded of its inputs and code, and what one would record now.

    Returns:
        By partition: the one, where there is a materialization, and the other, without the code.
    """
    if not partitions:
        return {}, {}
    view: Any = context.asset_graph_view
    parents = context.asset_graph.get(context.key).parent_keys
    records = [await AssetRecord.gen(view, key) for key in (context.key, *sorted(parents))]
    newest = [record and record.asset_entry.last_materialization_storage_id for record in records]
    database = view.instance.run_storage.get_run_storage_id()
    state = frozenset(partitions), newest, int(time.monotonic() // KEPT_SECONDS)
    known = _compared.get((database, context.key))
    if known is None or known[0] != state:
        made = _made_of(view.instance, database, context.key, partitions)
        known = _compared[database, context.key] = state, (made, _inputs_now(context, partitions))
    return known[1]


def _made_of(
    instance: dg.DagsterInstance, database: str, asset: dg.AssetKey, partitions: Collection[str]
) -> dict[str, Versions]:
    newest = instance.event_log_storage.get_latest_storage_id_by_partition(asset, MATERIALIZATION, set(partitions))
    unread = [event for event in newest.values() if (database, event) not in _remembered]
    if len(_remembered) + len(unread) > MOST_REMEMBERED:
        _remembered.clear()
        unread = list(newest.values())
    for start in range(0, len(unread), READ_AT_ONCE):
        some = unread[start : start + READ_AT_ONCE]
        wanted = dg.AssetRecordsFilter(asset, storage_ids=some)
        for record in instance.fetch_materializations(wanted, limit=len(some)).records:
            _remembered[database, record.storage_id] = dict(_recorded(record))
    return {partition: _remembered[database, event] for partition, event in newest.items()}


def _recorded(record: dg.EventLogRecord) -> Iterator[tuple[str, str]]:
    made = record.asset_materialization
    for name, value in (made and made.tags or {}).items():
        if name == CODE_VERSION or name.startswith(INPUT_VERSION):
            yield name, NOT_MADE if value == NEVER_MADE else value
    earlier = made and made.metadata.get(EARLIER_CRAWLS)
    if earlier:
        yield EARLIER_CRAWLS, str(earlier.value)


def _inputs_now(context: dg.AutomationContext, partitions: Collection[str]) -> dict[str, Versions]:
    found: dict[str, dict[str, str]] = {partition: {} for partition in partitions}
    for parent in context.asset_graph.get(context.key).parent_keys:
        for partition, version in _versions_of(context, parent, partitions).items():
            found[partition][f"{INPUT_VERSION}{parent.to_user_string()}"] = version
    return dict(found)


def _versions_of(context: dg.AutomationContext, parent: dg.AssetKey, partitions: Collection[str]) -> dict[str, str]:
    """The version of one input of each partition, made as Dagster makes it."""
    view: Any = context.asset_graph_view
    if context.asset_graph.get(parent).partitions_def is None:
        event = view.instance.get_latest_materialization_event(parent)
        made = event and event.asset_materialization
        return dict.fromkeys(partitions, (made.tags or {}).get(DATA_VERSION, NOT_MADE) if made else NOT_MADE)
    parents = {partition: _parents(context, parent, partition) for partition in partitions}
    compared = {partition: keys for partition, keys in parents.items() if len(keys) <= MOST_COMPARED}
    wanted = sorted({key for keys in compared.values() for key in keys})
    tags = view.instance.event_log_storage.get_latest_tags_by_partition(parent, MATERIALIZATION, [DATA_VERSION], wanted)
    versions = {key: found[DATA_VERSION] for key, found in tags.items()}
    return {
        partition: sha256("".join(versions.get(key, "") for key in sorted(keys)).encode()).hexdigest()
        for partition, keys in compared.items()
    }


def _parents(context: dg.AutomationContext, parent: dg.AssetKey, partition: str) -> set[str]:
    """The partitions of an input that a partition is made of."""
    if context.asset_graph.get(parent).partitions_def == context.partitions_def:
        return {partition}
    view: Any = context.asset_graph_view
    own = view.get_subset_from_partition_keys(context.key, context.partitions_def, {partition})
    return set(map(str, view.compute_parent_subset(parent, own).expensively_compute_partition_keys()))
