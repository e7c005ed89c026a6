"""Lineage as a tree for the terminal, as Markdown for Dagster, and as plain values for JSON.

A result and what it was made from form a graph: each partition of an asset, at the data version that was used, is one
node. It is written as a tree in which a node stands once and is referred to after that, and long runs of equal kinds,
such as the crawls of a pool, are folded; the values for JSON hold every node. Names are made harmless here.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

from clipcov_assets.export.escape import escape_markdown
from clipcov_assets.export.standings import printable

LONGEST = 120  # characters of a name
UNFOLDED, UNFOLDED_IN_DAGSTER = 4, 2  # groups of a run, beside its ends, that are shown
SHOWN_SHA256, SHOWN_RUN = 12, 8
COLUMNS = ("data version", "code", "run", "Lance")
# What of a node's facts has a place in the tree, and how it is said.
FACTS: Mapping[str, Callable[[str], str]] = {
    "pairs": lambda value: f"{_count(value)} pairs",
    "pairs_stored": lambda value: f"{_count(value)} pairs",
    "crawls": lambda value: f"{_count(value)} crawls",
    "source": lambda value: value,
    "sha256": lambda value: f"sha256 {value[:SHOWN_SHA256]}",
    "recipe_hash": lambda value: f"recipe {value}",
    "prompts_sha256": lambda value: f"prompts {value[:SHOWN_SHA256]}",
}


class Place(NamedTuple):
    """A partition of an asset at one data version; an asset without partitions has None."""

    asset: str
    partition: str | None
    data_version: str

    @property
    def name(self) -> str:
        """Asset and partition, fit for a line of text."""
        return printable(f"{self.asset} {self.partition or ''}".strip(), LONGEST)


@dataclass(frozen=True)
class Fault:
    """Something that is not as it was: its kind in a word, and what was found."""

    kind: str
    words: str


@dataclass(frozen=True)
class Node:
    """One materialization.

    Attributes:
        place: What it made.
        code_version: Of the code that made it.
        code_now: Of the present definitions; empty where that is not known.
        run: Dagster's run.
        lance_version: Of the table that it wrote; empty where it wrote none.
        made: When, in UTC; empty where that is not known.
        facts: What it reported of itself, such as its pairs and the sha256 of its weights.
        configuration: Project, scale and choices that it was made with; empty where they were not recorded.
        inputs: What it was made from.
        faults: What is not in order about it.
    """

    place: Place
    code_version: str = ""
    code_now: str = ""
    run: str = ""
    lance_version: str = ""
    made: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    configuration: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[Place, ...] = ()
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Lineage:
    """A result and everything that it was made from.

    Attributes:
        root: The result; its data version is empty while it is being made.
        nodes: The root and all that it was made from.
        configuration_now: Project, scale and choices of whoever looks.
    """

    root: Place
    nodes: Mapping[Place, Node]
    configuration_now: Mapping[str, str]

    @property
    def faults(self) -> list[tuple[Place, Fault]]:
        """Everything that is not in order, and where."""
        return [(place, fault) for place, node in self.nodes.items() for fault in node.faults]


@dataclass(frozen=True)
class Held:
    """A result that holds pairs of a crawl, or a pair.

    Attributes:
        place: The result.
        kind: pool, subset, export, checkpoint or scorecard.
        run: Dagster's run.
        pairs: How many of its pairs; None where that can no longer be said.
        of: All pairs of it, empty where that is not known.
        faults: Why something cannot be said.
    """

    place: Place
    kind: str
    run: str
    pairs: int | None
    of: str
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Reach:
    """What holds pairs of a crawl, or one pair.

    Attributes:
        what: crawl or pair.
        name: Of the crawl, or the uid of the pair.
        delivered_by: Crawls whose raw pairs hold it now.
        held: Results that hold it, or of which that can no longer be said.
        searched: How many results of each kind were looked at.
    """

    what: str
    name: str
    delivered_by: tuple[str, ...]
    held: tuple[Held, ...]
    searched: Mapping[str, int]

    @property
    def faults(self) -> list[tuple[Place, Fault]]:
        """Everything that cannot be said, and where."""
        return [(one.place, fault) for one in self.held for fault in one.faults]


@dataclass(frozen=True)
class Branch:
    """A line of the tree with those below it: a node with words behind it, or words alone."""

    node: Node | None
    words: str = ""
    branches: tuple["Branch", ...] = ()


def lineage_text(lineage: Lineage) -> str:
    """Lay the lineage out as a tree for a terminal."""
    lines = [*_drawn(_Tree(lineage, UNFOLDED).branch(lineage.root))]
    names = [f"{prefix}{branch.node.place.name}" if branch.node else "" for prefix, _, branch in lines]
    cells = [_cells(branch.node) if branch.node and not branch.words else None for _, _, branch in lines]
    widths = [max(map(len, column)) for column in zip(*filter(None, [COLUMNS, *cells]), strict=True)]
    width = max(map(len, names))
    text = [_title(lineage), *_made_with(lineage), "", _columns("".ljust(width), COLUMNS, widths)]
    for (prefix, below, branch), name, values in zip(lines, names, cells, strict=True):
        if branch.node is None:
            text.append(f"{prefix}{branch.words}")
        elif values is None:
            text.append(f"{name} ({branch.words})")
        else:
            line = _columns(name.ljust(width), values, widths)
            text.append(f"{line}  {_facts(branch.node)}".rstrip())
            text += [f"{below}! {printable(fault.words, 4 * LONGEST)}" for fault in branch.node.faults]
    return "\n".join([*text, "", *_verdict(lineage)]) + "\n"


def lineage_markdown(lineage: Lineage) -> str:
    """Write the lineage as a short Markdown list."""
    words = [*_verdict(lineage), *_made_with(lineage)]
    items = _items(_Tree(lineage, UNFOLDED_IN_DAGSTER).branch(lineage.root), "")
    return "\n".join([*items, "", "\n\n".join(map(escape_markdown, words))]) + "\n"


def lineage_values(lineage: Lineage) -> dict[str, Any]:
    """Every node of the lineage as values that JSON can hold, the result first."""
    nodes = [lineage.nodes[lineage.root]]
    nodes += [node for place, node in lineage.nodes.items() if place != lineage.root]
    return {
        "root": lineage.root._asdict(),
        "in_order": not lineage.faults,
        "faults": [{**place._asdict(), **asdict(fault)} for place, fault in lineage.faults],
        "configuration_now": dict(lineage.configuration_now),
        "nodes": [_values(node) for node in nodes],
    }


def reach_text(reach: Reach) -> str:
    """Lay out for a terminal what holds a crawl's pairs, or a pair: a line for each method and partition."""
    found = ", ".join(_found(reach, kind) for kind in reach.searched)
    lines = [f"{reach.what} {printable(reach.name, LONGEST)} is in {found}"]
    if reach.what == "pair":
        lines.append(f"delivered by {', '.join(map(printable, reach.delivered_by)) or 'no crawl any more'}")
    rows: dict[str, dict[tuple[str, str], list[Held]]] = {}
    for one in reach.held:
        stem = one.place.asset.removesuffix(f"_{one.kind}")
        rows.setdefault(stem, {}).setdefault((stem, one.place.partition or ""), []).append(one)
    names = [" ".join(name).strip() for mine in rows.values() for name in mine]
    width = max((len(printable(name, LONGEST)) for name in names), default=0)
    kinds = [kind for kind in reach.searched if any(one.kind == kind for one in reach.held)]
    lines += ["", "  ".join([" " * width, *kinds, "of pairs"])] if kinds else []
    for mine in rows.values():
        lines += _held_lines(mine, kinds, width)
    unknown = Counter(fault.words for _, fault in reach.faults)
    if unknown:
        lines += ["", "? cannot be said:"]
    lines += [f"  {printable(words, 4 * LONGEST)} ({_many(count, 'result')})" for words, count in unknown.items()]
    return "\n".join(lines) + "\n"


def reach_values(reach: Reach) -> dict[str, Any]:
    """Everything that holds a crawl's pairs, or a pair, as values that JSON can hold."""
    return {
        reach.what: reach.name,
        "delivered_by": list(reach.delivered_by),
        "searched": dict(reach.searched),
        "in_order": not reach.faults,
        "held": [
            {
                **one.place._asdict(),
                "kind": one.kind,
                "run": one.run,
                "pairs": one.pairs,
                "of": one.of,
                "faults": [asdict(fault) for fault in one.faults],
            }
            for one in reach.held
        ],
    }


class _Tree:
    """Makes a tree of a lineage: what stands in it already is only referred to, and long runs are folded."""

    def __init__(self, lineage: Lineage, unfolded: int) -> None:
        self._nodes = lineage.nodes
        self._unfolded = unfolded
        self._shown: set[Place] = set()

    def branch(self, place: Place) -> Branch:
        node = self._nodes[place]
        if place in self._shown:
            return Branch(node, "see above")
        self._shown.add(place)
        # Inputs that belong together, such as the tables of one crawl, are neighbours.
        groups = [list(group) for _, group in groupby(node.inputs, key=lambda one: one.partition)]
        runs = [list(run) for _, run in groupby(groups, key=lambda group: [one.asset for one in group])]
        return Branch(node, "", tuple(branch for run in runs for branch in self._run(run)))

    def _run(self, groups: list[list[Place]]) -> Iterator[Branch]:
        folded: list[list[Place]] = []
        faulty = unfolded = 0
        for number, group in enumerate(groups):
            at_fault = self._is_at_fault(group)
            is_end = number in (0, len(groups) - 1)
            if len(groups) <= self._unfolded + 2 or is_end or (at_fault and unfolded < self._unfolded):
                if folded:
                    yield _fold(folded, faulty)
                folded, faulty = [], 0
                unfolded += not is_end
                yield from map(self.branch, group)
            else:
                folded.append(group)
                faulty += at_fault

    def _is_at_fault(self, group: Sequence[Place]) -> bool:
        """Whether anything behind the group that is not in the tree yet has a fault."""
        waiting, seen = list(group), set(self._shown)
        while waiting:
            place = waiting.pop()
            if place not in seen:
                seen.add(place)
                if self._nodes[place].faults:
                    return True
                waiting += self._nodes[place].inputs
        return False


def _fold(groups: list[list[Place]], faulty: int) -> Branch:
    first, last = (printable(groups[end][0].partition or "", LONGEST) for end in (0, -1))
    kind = "partitions" if "|" in first else "crawls"
    if len(groups) == 1:
        named = f"1 more of these {kind}, {first}"
    else:
        named = f"{len(groups):,} more {kind}, {first} to {last}"
    state = f"{faulty:,} of them with faults" if faulty else "all in order"
    return Branch(None, f"... and {named}, {state}")


def _drawn(branch: Branch, first: str = "", rest: str = "") -> Iterator[tuple[str, str, Branch]]:
    """Yield each line's prefix, that of lines below it which belong to it, and the branch."""
    yield first, rest + ("│  " if branch.branches else "   "), branch
    for number, below in enumerate(branch.branches, start=1):
        is_last = number == len(branch.branches)
        yield from _drawn(below, rest + ("└─ " if is_last else "├─ "), rest + ("   " if is_last else "│  "))


def _items(branch: Branch, indent: str) -> Iterator[str]:
    if branch.node is None:
        yield f"{indent}- {escape_markdown(branch.words)}"
    elif not branch.words:
        place = branch.node.place
        values = zip(COLUMNS, _cells(branch.node), strict=True)
        told = [*(f"{name} {value}" for name, value in values if value), _facts(branch.node)]
        partition = printable(place.partition or "", LONGEST)
        name = f"**{escape_markdown(printable(place.asset, LONGEST))}** {escape_markdown(partition)}".strip()
        yield f"{indent}- {name}: {escape_markdown(', '.join(filter(None, told)))}".rstrip(": ")
        for fault in branch.node.faults:
            yield f"{indent}  - **fault:** {escape_markdown(printable(fault.words, 4 * LONGEST))}"
        for below in branch.branches:
            yield from _items(below, indent + "  ")


def _title(lineage: Lineage) -> str:
    made = lineage.nodes[lineage.root].made
    return f"{lineage.root.name}{f', made {made}' if made else ''}"


def _made_with(lineage: Lineage) -> Iterator[str]:
    """What the results were made with, the most frequent first."""
    counts = Counter(_in_words(node.configuration) for node in lineage.nodes.values() if node.configuration)
    unknown = sum(not node.configuration for node in lineage.nodes.values())
    for words, count in counts.most_common():
        yield f"made with {words}: {_many(count, 'materialization')}"
    if unknown:
        now = _in_words(lineage.configuration_now)
        yield f"made with what is not recorded: {_many(unknown, 'materialization')}; now it would be {now}"


def _in_words(configuration: Mapping[str, str]) -> str:
    named = (f"{name} {value}" if name == "project" else f"{name}={value}" for name, value in configuration.items())
    return printable(", ".join(named), 4 * LONGEST)


def _verdict(lineage: Lineage) -> Iterator[str]:
    faults, nodes = len(lineage.faults), len(lineage.nodes)
    if faults:
        yield f"{_many(faults, 'fault')} in {_many(nodes, 'materialization')}"
        yield "to bring it up to date, materialize again from the lowest fault upwards"
    else:
        yield f"all in order: {_many(nodes, 'materialization')}"
    changed = sorted(
        {
            (place.asset, node.code_version or "of no version", node.code_now)
            for place, node in lineage.nodes.items()
            if node.code_now and node.code_now != node.code_version
        }
    )
    for asset, then, now in changed:
        yield printable(f"the code of {asset} has changed since: {then} then, {now} now", 4 * LONGEST)


def _cells(node: Node) -> tuple[str, ...]:
    values = (node.place.data_version, node.code_version, node.run[:SHOWN_RUN], node.lance_version)
    return tuple(printable(value) for value in values)


def _columns(name: str, values: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join([name, *(value.ljust(width) for value, width in zip(values, widths, strict=True))])


def _facts(node: Node) -> str:
    return ", ".join(printable(say(node.facts[name])) for name, say in FACTS.items() if node.facts.get(name))


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _count(value: str) -> str:
    """A whole number as people read it; a checkpoint's is a mean over its seeds."""
    whole = value.removesuffix(".0")
    return f"{int(whole):,}" if whole.isdecimal() else value


def _values(node: Node) -> dict[str, Any]:
    return {
        **node.place._asdict(),
        "code_version": node.code_version,
        "code_now": node.code_now,
        "run": node.run,
        "lance_version": node.lance_version,
        "made": node.made,
        "facts": dict(node.facts),
        "configuration": dict(node.configuration),
        "inputs": [place._asdict() for place in node.inputs],
        "faults": [asdict(fault) for fault in node.faults],
    }


def _found(reach: Reach, kind: str) -> str:
    counts = [one.pairs for one in reach.held if one.kind == kind]
    unknown = counts.count(None)
    aside = f" ({unknown:,} unknown)" if unknown else ""
    return f"{len(counts) - unknown:,} of {reach.searched[kind]:,} {kind}s{aside}"


def _held_lines(rows: Mapping[tuple[str, str], list[Held]], kinds: Sequence[str], width: int) -> Iterator[str]:
    """Yield one line for each partition of a method; those in the middle are folded."""
    middle = [*rows.values()][UNFOLDED : len(rows) - UNFOLDED]
    for number, (name, held) in enumerate(rows.items()):
        if UNFOLDED <= number < len(rows) - UNFOLDED:
            if number == UNFOLDED:
                unknown = sum(any(one.pairs is None for one in some) for some in middle)
                yield f"... and {len(middle):,} more partitions{f', {unknown:,} of them unknown' if unknown else ''}"
            continue
        counts = {one.kind: "?" if one.pairs is None else f"{one.pairs:,}" for one in held}
        of = next((printable(_count(one.of)) for one in held if one.of), "?")
        cells = [counts.get(kind, "").rjust(len(kind)) for kind in kinds]
        yield "  ".join([printable(" ".join(name).strip(), LONGEST).ljust(width), *cells, of.rjust(len("of pairs"))])
