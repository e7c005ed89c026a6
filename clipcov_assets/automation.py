"""What runs by itself: the named conditions of the assets, and the sensor that follows them.

A condition says for which partitions of an asset there is something to do. Crawls become partitions in
`clipcov_assets.crawl_sensor`; nothing else starts a run.

Conditions look at what is, not at what has happened: a partition is due while it is missing, or was made of other
inputs than there are now. So nothing is lost where a request is, where the daemon was away, or where an input changes
during a run.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import dagster as dg
from dagster import AutomationCondition as Condition

from clipcov_assets.input_versions import CODE_VERSION, EARLIER_CRAWLS, Versions, differ, made_and_now, version_of
from clipcov_assets.partitions import FRACTIONS, FULL_FRACTION, crawl_order
from clipcov_assets.pooling import sound_crawls
from clipcov_assets.scales import SCALE

ByPartition = Mapping[str, Versions]
Compared = tuple[ByPartition, ByPartition]

RECENT_CRAWLS = 30  # of them the newest that is ready is selected from


class _Stateless(dg.AutomationCondition[Any]):
    """A condition that remembers nothing from tick to tick."""

    @property
    def requires_cursor(self) -> bool:
        """Whether Dagster writes down what it said, on every tick."""
        return False


@dataclass(frozen=True, eq=False)
class Recent(_Stateless):
    """The partitions of the newest crawls, whether or not anything of them is ready: a year is not looked through."""

    @property
    def description(self) -> str:
        """Shown beside the asset's automation."""
        return f"It belongs to one of the newest {RECENT_CRAWLS} crawls"

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:
        """Keep the partitions of these crawls; all the others are not even listed."""
        view, definition = context.asset_graph_view, context.partitions_def
        known = view.get_full_subset(key=dg.AssetKey("raw_pairs")).expensively_compute_partition_keys()
        keys = set(sorted(known, key=crawl_order)[-RECENT_CRAWLS:])
        if isinstance(definition, dg.MultiPartitionsDefinition):
            (other,) = (one.partitions_def for one in definition.partitions_defs if one.name != "crawl")
            keys = {f"{crawl}|{key}" for crawl in keys for key in other.get_partition_keys()}
        return dg.AutomationResult(
            context, _true_for(context, keys).true_subset.compute_intersection(context.candidate_subset)
        )


@dataclass(frozen=True, eq=False)
class Newest(_Stateless):
    """The partitions of the newest crawl among those that all conditions before this one let through."""

    @property
    def description(self) -> str:
        """Shown beside the asset's automation."""
        return "It belongs to the newest crawl whose inputs are ready"

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:
        """Keep the partitions of one crawl."""
        keys = _candidates(context)
        newest = max(map(_crawl, keys), key=crawl_order, default=None)
        return _true_for(context, {key for key in keys if _crawl(key) == newest})


@dataclass(frozen=True, eq=False)
class NamedByPolicy(_Stateless):
    """The partitions that are trained without being asked for.

    Attributes:
        fractions: Their second dimension; the empty name stands for a partition that has none.
    """

    fractions: tuple[str, ...]

    @property
    def description(self) -> str:
        """Shown beside the asset's automation."""
        return f"The policy names it: {', '.join(filter(None, self.fractions)) or bool(self.fractions)}"

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:
        """Keep the partitions of these fractions."""
        return _true_for(context, {key for key in _candidates(context) if key.partition("|")[2] in self.fractions})


@dataclass(frozen=True, eq=False)
class InHours(_Stateless):
    """All partitions at some hours of the day, none at others.

    Attributes:
        opens: The first of the hours (UTC).
        closes: The hour after the last of them; where it is the smaller number, they go on past midnight.
    """

    opens: int
    closes: int

    @property
    def description(self) -> str:
        """Shown beside the asset's automation."""
        return f"It is between {self.opens}:00 and {self.closes}:00 UTC"

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:
        """Keep all or none."""
        since_opening = (context.evaluation_time.astimezone(UTC).hour - self.opens) % 24
        is_open = since_opening < (self.closes - self.opens) % 24
        return dg.AutomationResult(context, context.candidate_subset if is_open else context.get_empty_subset())


@dataclass(frozen=True, eq=False)
class Due(dg.AutomationCondition[Any]):
    """What is missing, or was made of other inputs than there are now; a failed one waits until they change.

    Attributes:
        by_code: Whether it is due, too, where the code has another version than what made it.
    """

    by_code: bool = False

    @property
    def description(self) -> str:
        """Shown beside the asset's automation."""
        code = " or by other code" if self.by_code else ""
        return (
            f"It is missing or was made of other inputs{code}; a failed one waits until these change, or for a person"
        )

    async def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:  # type: ignore[override]
        """Compare what each materialization recorded of its inputs with these as they are now."""
        candidates = _candidates(context)
        made, now = await self.compared(context, *await made_and_now(context, candidates))
        due = {key: version_of(now[key]) for key in candidates if key not in made or differ(made[key], now[key])}
        tried: dict[str, str] = json.loads(context.cursor or "{}")  # the inputs with which each was asked for
        view = context.asset_graph_view
        failed = _keys(
            await view.compute_execution_failed_subset(key=context.key, from_subset=context.candidate_subset)
        )
        waiting = {key for key in due.keys() & failed if tried.get(key, due[key]) == due[key]}
        remembered = {key: tried[key] for key in tried.keys() - (candidates - failed)} | due
        found = _true_for(context, due.keys() - waiting).true_subset
        return dg.AutomationResult(context, found, cursor=json.dumps(remembered, sort_keys=True))

    async def compared(self, context: dg.AutomationContext, made: ByPartition, now: ByPartition) -> Compared:
        """What each materialization recorded, and what one would record now, with all that counts beside inputs."""
        code = {CODE_VERSION: context.asset_graph.get(context.key).code_version or ""} if self.by_code else {}
        return made, {key: {**versions, **code} for key, versions in now.items()}


@dataclass(frozen=True, eq=False)
class DuePool(Due):
    """A pool is due, too, where other earlier crawls would go in: one came late, was withdrawn, or is sound by now.

    Where several crawls land at once they join together: while any is being classified, no pool counts as outdated.
    """

    async def compared(self, context: dg.AutomationContext, made: ByPartition, now: ByPartition) -> Compared:
        """The same, with the version of the earlier crawls together."""
        view = context.asset_graph_view
        earlier = {crawl: version_of(sound_crawls(view.instance, crawl)) for crawl in now}
        now = {crawl: {**versions, EARLIER_CRAWLS: earlier[crawl]} for crawl, versions in now.items()}
        classes = view.get_full_subset(key=dg.AssetKey("latent_classes"))
        if made and not (await view.compute_run_in_progress_subset(key=classes.key, from_subset=classes)).is_empty:
            made = {crawl: {**versions, EARLIER_CRAWLS: earlier[crawl]} for crawl, versions in made.items()}
        return await super().compared(context, made, now)


_missing = Condition.missing() & ~Condition.execution_failed()
_idle = ~Condition.in_progress() & ~Condition.any_deps_in_progress()
# What is made in the same run is stopped there, by the run itself, where a blocking check fails.
_checked = Condition.all_deps_match(
    Condition.all_checks_match(Condition.check_passed(), blocking_only=True) | Condition.will_be_requested()
)
_ready = ~Condition.any_deps_missing() & _checked
# What follows is asked for together with what it follows, so that one run makes both.
_follows = Condition.any_deps_match(Condition.will_be_requested())
_due = Due() | _follows

# A crawl that is there before the first tick, or whose request was lost, is asked for again; a failed one
# waits for a person.
on_arrival = (_missing & _idle).with_label("on_arrival")

# The proxy is made once, as soon as any crawl is there, and never again by itself.
once_pairs_are_there = (_missing & _idle & Condition.any_deps_match(~Condition.missing())).with_label(
    "once_pairs_are_there"
)

# Every crawl is embedded and classified. What asks the most comes last: of no candidate, nothing is asked.
when_inputs_change = (_due & _idle & _ready).with_label("when_inputs_change")

# What was trained is scored.
when_trained = (Recent() & _due & _idle & _ready).with_label("when_trained")

# Of many crawls that land at once, or of a year of them, one is selected from: the newest, which holds the others.
_newest = Recent() & _ready & Newest()
reselect = (_newest & (Due(by_code=True) | _follows) & _idle).with_label("reselect")
repool = (_newest & (DuePool(by_code=True) | _follows) & _idle).with_label("repool")

# A comparison does not wait for scorecards that nobody asked for.
when_scored = (Recent() & _due & _idle & Condition.any_deps_match(~Condition.missing()) & _checked).with_label(
    "when_scored"
)


def nightly_training(method: str, *, by_fraction: bool = True) -> dg.AutomationCondition[Any]:
    """Training is dear: of the newest crawl, what the policy names, in its hours."""
    policy = SCALE.trained
    trained = [name for name, share in FRACTIONS.items() if share in policy.fractions] + list(FULL_FRACTION)
    named = (trained if by_fraction else [""]) if method in policy.methods else []
    in_hours = InHours(*policy.hours) & NamedByPolicy(tuple(named))
    return (Recent() & in_hours & _ready & Newest() & _due & _idle).with_label("nightly_training")


def policy_in_words(method: str) -> str:
    """Say which trainings of a method start by themselves, for the person who looks at its checkpoints."""
    policy = SCALE.trained
    if method not in policy.methods:
        return f"Trained when you ask for it: CLIPCOV_TRAINED_METHODS does not name {method}."
    sizes = ", ".join(f"{100 * share:g} %" for share in policy.fractions) if method != "full" else ""
    return (
        f"Trained by itself for the newest crawl{f' at {sizes}' if sizes else ''}, between {policy.hours[0]}:00 and "
        f"{policy.hours[1]}:00 UTC (CLIPCOV_TRAINED_METHODS, _FRACTIONS, CLIPCOV_TRAINING_HOURS); else when you ask "
        "for it."
    )


reselection = dg.AutomationConditionSensorDefinition(
    "reselection",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=15,
    use_user_code_server=True,  # it knows the conditions above
    description="Runs what the assets' conditions ask for: what is missing, and what has newer inputs.",
)


def _candidates(context: dg.AutomationContext) -> set[str]:
    """The partitions that the conditions before let through."""
    return _keys(context.candidate_subset)


def _keys(subset: Any) -> set[str]:  # noqa: ANN401  (of a class that Dagster does not export)
    return set(map(str, subset.expensively_compute_partition_keys()))


def _crawl(key: str) -> str:
    return key.partition("|")[0]


def _true_for(context: dg.AutomationContext, keys: Collection[str]) -> dg.AutomationResult:
    definition = context.partitions_def
    if definition is None:
        raise ValueError(f"{context.key.to_user_string()} has no partitions: this condition chooses among them")
    found = context.asset_graph_view.get_subset_from_partition_keys(context.key, definition, set(keys))
    return dg.AutomationResult(context, found)
