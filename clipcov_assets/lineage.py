"""From any partition back to the deliveries, and from a crawl or a pair to everything that holds it.

Every materialization records the data version, the run and the Lance version of each of its inputs; a pool only those
of its own crawl, and its table those of the earlier ones. Backwards, the walk finds the materializations with those
data versions, not just the newest ones, and says what is no longer as it was. Forwards, it reads the subsets and pools
that results were really made from, at the Lance versions that they recorded. The history is asked asset by asset, for
many partitions at once: a pool may hold a year of daily crawls.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from clipcov_assets.export.lineage_text import (
    Fault,
    Held,
    Lineage,
    Node,
    Place,
    Reach,
    lineage_markdown,
    lineage_values,
)
from clipcov_assets.input_versions import data_versions
from clipcov_assets.partitions import crawl_order
from clipcov_assets.pool_tables import pooled_crawls
from clipcov_assets.provenance import (
    CONFIGURATION,
    LANCE_VERSION,
    UNKNOWN,
    Input,
    RecordedInput,
    configuration,
    recorded_inputs,
)
from clipcov_assets.tables import PROXY_SHA256
from resources.lance_store import LanceStore

# What a fault is about: an input with other content now, a version of a table that is gone, embeddings of another
# proxy, an input that is not recorded, one input with two contents, a table that is read at another version.
CHANGED, GONE, OTHER_PROXY, UNRECORDED, TWO_CONTENTS, OTHER_VERSION = (
    "changed",
    "gone",
    "other_proxy",
    "unrecorded",
    "two_contents",
    "other_version",
)
# What is made from deliveries or from nothing here.
SOURCES = ("raw_pairs", "proxy_checkpoint")
PROXY = "proxy_checkpoint"
PROXY_TABLES = ("embeddings", "latent_classes")
# Results that hold pairs, and what says which crawl each pair is of.
BASES = ("pool", "raw_pairs")
HOLDING = ("pool", "subset", "export", "checkpoint", "scorecard")
FACTS = (
    "pairs",
    "pairs_stored",
    "crawls",
    "left_out",
    "source",
    "delivery",
    "delivery_fingerprint",
    "sha256",
    PROXY_SHA256,
    "prompts_sha256",
    "architecture",
    "recipe_hash",
    "seeds",
    "fraction",
)
SET_FACTS = "sha256/"  # of the evaluation sets behind a scorecard
PAGE = 1_000  # materializations read at once
MOST_SEARCHED = 50  # of one partition, newest first
MOST_LISTED = 100  # names in a message
READERS = 8
LARGEST_JSON = 100  # nodes that still go into Dagster's own history
IN_BRIEF = "Of the earlier crawls of its pool, only what has changed since is listed; `clipcov_assets.trace` lists all."

Partition = tuple[str, str | None]


@dataclass(frozen=True)
class Made:
    """A materialization as Dagster recorded it, or, without a data version, one that is being made."""

    place: Place
    inputs: tuple[RecordedInput, ...]
    code_version: str = ""
    run: str = ""
    lance_version: str = ""
    seconds: float | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    configuration: Mapping[str, str] = field(default_factory=dict)

    @property
    def partition(self) -> Partition:
        """Asset and partition."""
        return self.place.asset, self.place.partition

    @property
    def when(self) -> str:
        """When it was made."""
        return "" if self.seconds is None else f"{datetime.fromtimestamp(self.seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


class History:
    """The materializations that Dagster has recorded, read for many partitions at once and remembered."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        """Nothing is read yet."""
        self._instance = instance
        self._made: dict[Place, dict[int, Made]] = defaultdict(dict)  # newest first
        self._newest: dict[Partition, Made] = {}

    def newest(self, asset: str, partitions: Collection[str | None]) -> list[Made]:
        """The newest materialization of each partition that has one, in the order given."""
        wanted = [(asset, partition) for partition in partitions]
        missing = {one for one in wanted if one not in self._newest}
        for _ in self._pages(asset, [partition for _, partition in missing]):
            if missing <= self._newest.keys():
                break
        return [self._newest[one] for one in wanted if one in self._newest]

    def newest_of(self, partition: Partition) -> Made | None:
        """The newest materialization of a partition, of those that were looked for."""
        return self._newest.get(partition)

    def find(self, wanted: Iterable[RecordedInput]) -> None:
        """Look for materializations with these data versions, by these runs, and for the newest of their partitions."""
        missing: dict[str, set[RecordedInput]] = defaultdict(set)
        for one in wanted:
            if not self._is_found(one):
                missing[one.asset].add(one)
        for asset, some in missing.items():
            for _ in self._pages(asset, {one.partition for one in some}):
                some = {one for one in some if not self._is_found(one)}
                if not some:
                    break

    def made(self, wanted: RecordedInput) -> Made | None:
        """The materialization with this data version, by that run where it is there, of those that were looked for."""

        def likeness(one: Made) -> tuple[bool, bool]:
            return one.run == wanted.run_id, one.lance_version == wanted.lance_version

        return max(self._made[place_of(wanted)].values(), key=likeness, default=None)

    def changed(self, inputs: Collection[RecordedInput]) -> list[RecordedInput]:
        """Those of some inputs whose partition has other content now; no materialization is read for that."""
        partitions: dict[str, set[str]] = defaultdict(set)
        for one in inputs:
            partitions[one.asset].add(str(one.partition))
        now = {asset: data_versions(self._instance, dg.AssetKey(asset), some) for asset, some in partitions.items()}
        return [one for one in inputs if now[one.asset].get(str(one.partition)) != one.data_version]

    def _is_found(self, wanted: RecordedInput) -> bool:
        # A pool records no runs of its earlier crawls.
        return any(wanted.run_id in ("", one.run) for one in self._made[place_of(wanted)].values())

    def _pages(self, asset: str, partitions: Collection[str | None]) -> Iterator[None]:
        """Read materializations of some partitions page by page, newest first."""
        if not partitions:
            return
        named = None if None in partitions else sorted(filter(None, partitions))
        wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=named)
        cursor, left = None, MOST_SEARCHED * len(partitions)
        while left > 0:
            found = self._instance.fetch_materializations(wanted, limit=min(PAGE, left), cursor=cursor)
            for record in found.records:
                made = _made_of(asset, record)
                self._made[made.place][record.storage_id] = made
                self._newest.setdefault(made.partition, made)
            yield
            if not found.has_more:
                return
            cursor, left = found.cursor, left - len(found.records)


def place_of(recorded: RecordedInput) -> Place:
    """The node that a recorded input is."""
    return Place(recorded.asset, recorded.partition, recorded.data_version)


def lineage_of(
    instance: dg.DagsterInstance,
    store: LanceStore,
    asset: str,
    partition: str | None,
    *,
    code_now: Mapping[str, str] | None = None,
) -> Lineage:
    """Everything that the newest materialization of a partition was made from, and what is not in order about it.

    Args:
        instance: Dagster's history.
        store: The tables.
        asset: Name of the asset.
        partition: Its partition, None for an asset that has none.
        code_now: Code version of each asset as it is defined now, to say where the code has changed.

    Raises:
        ValueError: It was never materialized; the message says what was.
    """
    history = History(instance)
    found = history.newest(asset, [partition])
    if not found:
        raise ValueError(_never_made(instance, asset, partition))
    return _lineage(history, store, found[0], code_now or {})


def lineage_metadata(
    instance: dg.DagsterInstance, store: LanceStore, asset: str, partition: str | None, inputs: Iterable[Input]
) -> dict[str, dg.MetadataValue]:
    """The lineage of a result that is being made, as metadata for its materialization.

    Args:
        instance: Dagster's history.
        store: The tables.
        asset: What is being made.
        partition: Its partition.
        inputs: What it is made from.

    Returns:
        `lineage`, Markdown to read; `lineage_faults`, how many there are; and, where there are few enough for
        Dagster's history, `lineage_nodes`, the nodes as JSON. A year of crawls is not read for every scorecard: of
        the earlier crawls of a pool there is only what has changed. `python -m clipcov_assets.trace` gives all.
    """
    recorded = tuple(
        RecordedInput(one.asset, one.partition, one.data_version, one.run_id, one.lance_version) for one in inputs
    )
    root = Made(Place(asset, partition, ""), recorded, configuration=configuration())
    lineage = _lineage(History(instance), store, root, {}, only_changed=True)
    metadata: dict[str, dg.MetadataValue] = {
        "lineage": dg.MetadataValue.md(f"{lineage_markdown(lineage)}\n{IN_BRIEF}\n"),
        "lineage_faults": dg.MetadataValue.int(len(lineage.faults)),
    }
    if len(lineage.nodes) <= LARGEST_JSON:
        metadata["lineage_nodes"] = dg.MetadataValue.json(lineage_values(lineage))
    return metadata


def reached_from_crawl(instance: dg.DagsterInstance, store: LanceStore, crawl: str) -> Reach:
    """The pools, subsets, exports, checkpoints and scorecards that hold pairs of a crawl.

    A pair that several crawls deliver counts for the oldest of them, whose copy is used.

    Raises:
        ValueError: There is no such crawl; the message lists those that there are.
    """
    known = instance.get_materialized_partitions(dg.AssetKey("raw_pairs"))
    if crawl not in known:
        raise ValueError(f"no raw pairs of a crawl {crawl!r}: there are those of {_listed(known)}")

    def pairs_in(base: Made | None) -> pa.ChunkedArray:
        if base is None:
            raise ValueError("what it was made from is not in Dagster's history")
        asset, partition = base.place.asset, str(base.place.partition)
        if asset == "pool":
            return store.find(asset, partition, "crawl", [crawl], ["uid"], version=_version(base))["uid"]
        uid = store.read(asset, partition, ["uid"], version=_version(base))["uid"]
        return uid if partition == crawl else uid.slice(0, 0)

    # A pool holds its crawl and earlier ones only.
    results = _results(instance, lambda partition: crawl_order(partition) >= crawl_order(crawl))
    return Reach("crawl", crawl, (crawl,), *_held(results, store, pairs_in))


def reached_from_pair(instance: dg.DagsterInstance, store: LanceStore, uid: str) -> Reach:
    """The pools, subsets, exports, checkpoints and scorecards that hold a pair, also one that no crawl brings any more.

    Raises:
        ValueError: Nothing holds it.
    """
    crawls = sorted(instance.get_materialized_partitions(dg.AssetKey("raw_pairs")), key=crawl_order)

    def brings(crawl: str) -> bool:
        return store.exists("raw_pairs", crawl) and len(store.find("raw_pairs", crawl, "uid", [uid], ["uid"])) > 0

    def pairs_in(base: Made | None) -> pa.ChunkedArray:
        try:
            return _rows_of(store, base, uid)["uid"] if base else pair
        except (KeyError, ValueError):
            return pair  # a subset may still be there where its pool is not

    pair = pa.chunked_array([[uid]], pa.string())
    with ThreadPoolExecutor(READERS) as readers:
        delivered = [crawl for crawl, is_there in zip(crawls, readers.map(brings, crawls), strict=True) if is_there]
    reach = Reach("pair", uid, tuple(delivered), *_held(_results(instance, lambda _: True), store, pairs_in))
    if not delivered and not reach.held:
        raise ValueError(f"no pair {uid!r} in any of {len(crawls)} crawls, nor in what was made of them")
    return reach


def _made_of(asset: str, record: dg.EventLogRecord) -> Made:
    found = record.asset_materialization
    assert found is not None  # materializations were asked for
    tags, metadata = found.tags or {}, found.metadata
    told = {name: value.value for name, value in metadata.items() if name in FACTS or name.startswith(SET_FACTS)}
    made_with = metadata.get(CONFIGURATION)
    choices = made_with.value if isinstance(made_with, dg.JsonMetadataValue) else None
    return Made(
        place=Place(asset, found.partition, tags.get("dagster/data_version", UNKNOWN)),
        inputs=recorded_inputs(metadata),
        code_version=tags.get("dagster/code_version", ""),
        run=record.run_id,
        lance_version=str(metadata[LANCE_VERSION].value) if LANCE_VERSION in metadata else "",
        seconds=record.timestamp,
        facts={name: str(value) for name, value in told.items()},
        configuration={str(key): str(value) for key, value in choices.items()} if isinstance(choices, dict) else {},
    )


def _never_made(instance: dg.DagsterInstance, asset: str, partition: str | None) -> str:
    known = sorted(key.to_user_string() for key in instance.get_asset_keys())
    if asset not in known:
        return f"no asset {asset!r} was ever materialized: there are {_listed(known)}"
    there = instance.get_materialized_partitions(dg.AssetKey(asset))
    if not there:
        return f"{asset} has no partitions: leave {partition!r} away"
    wanted = f"for {partition!r}" if partition else "without a partition"
    return f"{asset} was never materialized {wanted}: it is there for {_listed(there)}"


def _listed(names: Collection[str]) -> str:
    """Names that there are, for a message; those in the middle are left out where they are many."""
    ordered = [repr(name) for name in sorted(names, key=crawl_order)]
    if len(ordered) > MOST_LISTED:
        ordered[MOST_LISTED // 2 : -MOST_LISTED // 2] = [f"{len(ordered) - MOST_LISTED:,} more"]
    return ", ".join(ordered) or "none; is DAGSTER_HOME where the history is?"


def _lineage(
    history: History, store: LanceStore, root: Made, code_now: Mapping[str, str], *, only_changed: bool = False
) -> Lineage:
    """Walk back from a result; of the earlier crawls of a pool all is followed, or only what has changed since."""

    def whole(made: Made | None, version: str) -> Made | None:
        if made is None or made.place.asset != "pool":
            return made
        earlier = _earlier_crawls(store, str(made.place.partition), version)
        return replace(made, inputs=(*(history.changed(earlier) if only_changed else earlier), *made.inputs))

    made: dict[Place, Made | None] = {root.place: whole(root, root.lance_version)}
    versions: dict[Place, set[str]] = defaultdict(set, {root.place: {root.lance_version}})
    reached = [root.place]
    while reached:
        waiting = [one for place in reached for one in getattr(made[place], "inputs", ())]
        for one in waiting:
            versions[place_of(one)].add(one.lance_version)
        new = {place_of(one): one for one in waiting if place_of(one) not in made}
        history.find(new.values())
        made |= {place: whole(history.made(one), one.lance_version) for place, one in new.items()}
        reached = list(new)
    faults = _Faults(history, store, made, versions, root.place)
    nodes = {place: _node(place, one, faults.of(place), code_now) for place, one in made.items()}
    return Lineage(root.place, nodes, configuration())


def _earlier_crawls(store: LanceStore, crawl: str, version: str) -> list[RecordedInput]:
    """What Dagster does not keep of the pool as of a crawl: the inputs of its earlier crawls, by data version alone."""
    try:
        pooled = pooled_crawls(store, crawl, version=int(version))
    except (KeyError, ValueError):
        return []  # that a table or a version is gone is a fault of its own
    return [
        RecordedInput(asset, one.crawl, data_version, "", str(one.versions.get(asset, "")))
        for one in pooled
        if one.crawl != crawl
        for asset, data_version in (one.data_versions or {"latent_classes": UNKNOWN}).items()
    ]


def _node(place: Place, made: Made | None, faults: Iterable[Fault], code_now: Mapping[str, str]) -> Node:
    if made is None:
        return Node(place, faults=tuple(faults))
    return Node(
        place=place,
        code_version=made.code_version,
        code_now=code_now.get(place.asset, ""),
        run=made.run,
        lance_version=made.lance_version,
        made=made.when,
        facts=made.facts,
        configuration=made.configuration,
        inputs=tuple(dict.fromkeys(map(place_of, made.inputs))),
        faults=tuple(faults),
    )


class _Faults:
    """What is not in order about the nodes of a lineage; tables are looked at side by side."""

    def __init__(
        self,
        history: History,
        store: LanceStore,
        made: Mapping[Place, Made | None],
        versions: Mapping[Place, Collection[str]],
        root: Place,
    ) -> None:
        self._history, self._store, self._made, self._root = history, store, made, root
        self._contents: dict[Partition, list[str]] = defaultdict(list)
        for place in made:
            self._contents[place.asset, place.partition].append(place.data_version)
        used = [(place, int(one)) for place in made for one in sorted(versions[place]) if one.isdecimal()]
        self._of_tables: dict[Place, list[Fault]] = defaultdict(list)
        with ThreadPoolExecutor(READERS) as readers:
            for (place, _), faults in zip(used, readers.map(lambda one: list(self._look(*one)), used), strict=True):
                self._of_tables[place] += faults

    def of(self, place: Place) -> Iterator[Fault]:
        yield from self._of_history(place)
        yield from self._of_tables[place]

    def _of_history(self, place: Place) -> Iterator[Fault]:
        made, newest = self._made[place], self._history.newest_of((place.asset, place.partition))
        others = sorted({*self._contents[place.asset, place.partition]} - {place.data_version})
        if others:
            yield Fault(TWO_CONTENTS, f"was used with other content, too: data version {', '.join(others)}")
        if made is None:
            there = f"; the newest has {newest.place.data_version}" if newest else ""
            yield Fault(UNRECORDED, f"no materialization with this data version is in Dagster's history{there}")
            return
        if place != self._root and newest and newest.place.data_version != place.data_version:
            by = f"by run {newest.run}" if newest.run else "without a run"
            version = newest.place.data_version
            yield Fault(CHANGED, f"has changed since: materialized again on {newest.when} {by}, data version {version}")
        if place.data_version == UNKNOWN:
            yield Fault(UNRECORDED, "its data version is not recorded: whether it has changed cannot be said")
        if not made.inputs and place.asset not in SOURCES:
            yield Fault(UNRECORDED, "what it was made from is not recorded")

    def _look(self, place: Place, version: int) -> Iterator[Fault]:
        """What is not in order about a table as it was when it was used."""
        partition, made = place.partition or "", self._made[place]
        try:
            told = self._store.metadata(place.asset, partition, version=version)
        except (KeyError, ValueError):
            words = f"Lance version {version} of its table is gone: its rows can no longer be read as they were used"
            yield Fault(GONE, words)
            return
        if made and place.asset in PROXY_TABLES:
            yield from self._other_proxy(made, told.get(PROXY_SHA256))
        if made and place.asset == "pool":
            yield from self._other_versions(made, version)

    def _other_proxy(self, made: Made, told: str | None) -> Iterator[Fault]:
        named = next((self._history.made(one) for one in made.inputs if one.asset == PROXY), None)
        sha256 = named and named.facts.get("sha256")
        if sha256 and told != sha256:
            yield Fault(
                OTHER_PROXY,
                f"its table is of proxy {(told or 'of no name')[:12]}, but it names the {PROXY} {sha256[:12]}",
            )

    def _other_versions(self, made: Made, version: int) -> Iterator[Fault]:
        own = pooled_crawls(self._store, str(made.place.partition), version=version)[-1]
        recorded = {one.asset: one.lance_version for one in made.inputs if one.partition == own.crawl}
        for table, read in own.versions.items():
            if (named := recorded.get(table, str(read))) != str(read):
                words = f"reads {table} of {own.crawl} at Lance version {read}, but records version {named}"
                yield Fault(OTHER_VERSION, words)


@dataclass(frozen=True)
class _Result:
    """A result with what it holds: the subset or pool that it was made from, and the pool or raw pairs behind that."""

    made: Made
    holder: Made | None
    base: Made | None


def _kind(asset: str) -> str:
    """The last word of its name: pool, subset, checkpoint and so on."""
    return asset.rpartition("_")[2]


def _results(instance: dg.DagsterInstance, is_wanted: Callable[[str], bool]) -> list[_Result]:
    """The newest materialization of every partition that may hold pairs, by kind, asset and crawl."""
    history = History(instance)
    newest: list[Made] = []
    for asset in sorted(key.to_user_string() for key in instance.get_asset_keys()):
        if _kind(asset) not in HOLDING:
            continue
        there = instance.get_materialized_partitions(dg.AssetKey(asset))
        wanted = sorted((one for one in there if is_wanted(one)), key=crawl_order)
        newest += history.newest(asset, wanted if there else [None])
    newest.sort(key=lambda made: (HOLDING.index(_kind(made.place.asset)), made.place.asset.rpartition("_")[0]))
    # The first input of a result is the one whose pairs it holds; a proxy from elsewhere has none.
    chains = [[made] for made in newest if made.inputs or made.place.asset not in SOURCES]
    waiting = chains
    while waiting := [chain for chain in waiting if chain[-1].place.asset not in BASES and chain[-1].inputs]:
        history.find(chain[-1].inputs[0] for chain in waiting)
        found = [(chain, history.made(chain[-1].inputs[0])) for chain in waiting]
        for chain, made in found:
            chain += [made] if made else []
        waiting = [chain for chain, made in found if made]
    return [_result(chain) for chain in chains]


def _result(chain: list[Made]) -> _Result:
    base = chain[-1] if chain[-1].place.asset in BASES else None
    return _Result(chain[0], next((made for made in chain if made.place.asset.endswith("_subset")), base), base)


def _held(
    results: Sequence[_Result], store: LanceStore, pairs_in: Callable[[Made | None], pa.ChunkedArray]
) -> tuple[tuple[Held, ...], dict[str, int]]:
    """Count the pairs that each result holds; every pool and subset is read once."""
    bases = {one.base and one.base.place: one.base for one in results}
    holders = {one.holder.place: one for one in results if one.holder}
    with ThreadPoolExecutor(READERS) as readers:
        pairs = dict(zip(bases, readers.map(lambda base: _try(lambda: pairs_in(base)), bases.values()), strict=True))

        def count(one: _Result) -> int | Fault:
            wanted = pairs[one.base and one.base.place]
            return wanted if isinstance(wanted, Fault) else _try(lambda: _shared(store, one, wanted))

        counts = dict(zip(holders, readers.map(count, holders.values()), strict=True))
    searched = {kind: sum(_kind(one.made.place.asset) == kind for one in results) for kind in HOLDING}
    held = [_held_by(one, counts.get(one.holder.place) if one.holder else None) for one in results]
    return tuple(one for one in held if one.pairs != 0), searched


def _held_by(result: _Result, count: int | Fault | None) -> Held:
    made, kind = result.made, _kind(result.made.place.asset)
    of = result.holder.facts if result.holder else {}
    if isinstance(count, int):
        return Held(made.place, kind, made.run, count, of.get("pairs", of.get("pairs_stored", "")))
    unknown = count or Fault(UNRECORDED, "what it was made from is not in Dagster's history")
    return Held(made.place, kind, made.run, None, "", (unknown,))


def _shared(store: LanceStore, result: _Result, pairs: pa.ChunkedArray) -> int:
    """How many of these pairs a result holds."""
    holder = result.holder
    if holder is None or not len(pairs):
        return 0
    if len(pairs) == 1:
        return len(_rows_of(store, holder, pairs[0].as_py()))
    if result.base and holder.place == result.base.place:
        return len(pairs)
    uid = store.read(holder.place.asset, str(holder.place.partition), ["uid"], version=_version(holder))["uid"]
    return int(pc.sum(pc.is_in(uid, value_set=pairs.combine_chunks())).as_py() or 0)


def _rows_of(store: LanceStore, made: Made, uid: str) -> pa.Table:
    return store.find(made.place.asset, str(made.place.partition), "uid", [uid], ["uid"], version=_version(made))


def _try(read: Callable[[], Any]) -> Any:  # noqa: ANN401  (what `read` returns)
    """Read, or say why that cannot be done any more."""
    try:
        return read()
    except (KeyError, ValueError) as error:
        return Fault(GONE, str(error.args[0]))


def _version(made: Made) -> int | None:
    return int(made.lance_version) if made.lance_version else None
