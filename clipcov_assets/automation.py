"""What runs by itself: the named conditions of the assets, and the sensor that follows them.

A condition says for which partitions of an asset there is something to do. Crawls become partitions in
`clipcov_assets.crawl_sensor`; nothing else starts a run.
"""

from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster import AutomationCondition as Condition

from clipcov_assets.partitions import FRACTIONS, FULL_FRACTION, crawl_order
from clipcov_assets.scales import SCALE

RECENT_CRAWLS = 30  # of them the newest that is ready is selected from
# Metadata of a pool: the names of the crawls that it holds, and of those that it left out because they were not ready.
INCLUDED, LEFT_OUT = "included", "left_out_crawls"


@dataclass(frozen=True, eq=False)
class Recent(dg.AutomationCondition[Any]):
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
class Newest(dg.AutomationCondition[Any]):
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
class NamedByPolicy(dg.AutomationCondition[Any]):
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
class OtherCrawls(dg.AutomationCondition[Any]):
    """The pools that would hold other crawls now: one came late, was classified again, withdrawn or taken back.

    Where several crawls land at once they join together: while any is being classified, no pool counts as outdated.
    """

    @property
    def description(self) -> str:
        """Shown beside the asset's automation."""
        return "An earlier crawl came late, was classified again, withdrawn or taken back since the pool was made"

    async def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:  # type: ignore[override]
        """Keep the pools that are older than what they hold, or hold what is no crawl any more."""
        view = context.asset_graph_view
        classes = view.get_full_subset(key=dg.AssetKey("latent_classes"))
        if not (await view.compute_run_in_progress_subset(key=classes.key, from_subset=classes)).is_empty:
            return dg.AutomationResult(context, context.get_empty_subset())
        instance = view.instance
        known = set(instance.get_dynamic_partitions("crawl"))
        classified, pooled = _made(instance, "latent_classes"), _made(instance, "pool")

        def is_outdated(crawl: str) -> bool:
            included, left_out = _recorded(instance, crawl)
            earlier = {one for one in known & classified.keys() if crawl_order(one) < crawl_order(crawl)}
            is_new = any(classified[one] > pooled[crawl] for one in earlier) or not earlier <= included | left_out
            return is_new or not included <= known

        return _true_for(context, {crawl for crawl in _candidates(context) & pooled.keys() if is_outdated(crawl)})


def _recently(change: dg.AutomationCondition[Any]) -> dg.AutomationCondition[Any]:
    """A change that is news until it is handled.

    What is remembered is asked of all partitions on every tick, whatever stands before it: so it begins with the
    newest crawls.
    """
    recent: dg.AutomationCondition[Any] = Recent() & change
    return recent.since_last_handled()


_missing = Condition.missing() & ~Condition.execution_failed()
_idle = ~Condition.in_progress() & ~Condition.any_deps_in_progress()
# What is made in the same run is stopped there, by the run itself, where a blocking check fails.
_checked = Condition.all_deps_match(
    Condition.all_checks_match(Condition.check_passed(), blocking_only=True) | Condition.will_be_requested()
)
_ready = ~Condition.any_deps_missing() & _checked
# Equal content again is no news: only a new data version of an input counts, or one about to be made.
_input_changed = Condition.any_deps_match(Condition.data_version_changed() | Condition.will_be_requested())
_inputs_changed = _recently(_input_changed)
_code_changed = _recently(Condition.code_version_changed())
_new_inputs = (_missing | _inputs_changed) & _idle

# A crawl that is there before the first tick, or whose request was lost, is asked for again; a failed one
# waits for a person.
on_arrival = (_missing & _idle).with_label("on_arrival")

# The proxy is made once, as soon as any crawl is there, and never again by itself.
once_pairs_are_there = (_missing & _idle & Condition.any_deps_match(~Condition.missing())).with_label(
    "once_pairs_are_there"
)

# Every crawl is embedded and classified. What asks the most comes last: of no candidate, nothing is asked.
when_inputs_change = ((_missing | _input_changed.since_last_handled()) & _idle & _ready).with_label(
    "when_inputs_change"
)

# What was trained is scored.
when_trained = (Recent() & _new_inputs & _ready).with_label("when_trained")

# Of many crawls that land at once, or of a year of them, one is selected from: the newest, which holds the others.
_newest = Recent() & _ready & Newest()
reselect = (_newest & (_missing | _inputs_changed | _code_changed) & _idle).with_label("reselect")
repool = (_newest & (_missing | _inputs_changed | _code_changed | OtherCrawls()) & _idle).with_label("repool")

# A comparison does not wait for scorecards that nobody asked for.
when_scored = (Recent() & _new_inputs & Condition.any_deps_match(~Condition.missing()) & _checked).with_label(
    "when_scored"
)


def nightly_training(method: str, *, by_fraction: bool = True) -> dg.AutomationCondition[Any]:
    """Training is dear: of the newest crawl, what the policy names, in its hours."""
    policy = SCALE.trained
    trained = [name for name, share in FRACTIONS.items() if share in policy.fractions] + list(FULL_FRACTION)
    named = (trained if by_fraction else [""]) if method in policy.methods else []
    opens, closes = (Condition.cron_tick_passed(f"0 {hour} * * *") for hour in policy.hours)
    in_hours = NamedByPolicy(tuple(named)) & opens.since(closes)
    condition = Recent() & in_hours & _ready & Newest() & _new_inputs
    return condition.with_label("nightly_training")


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
    return set(map(str, context.candidate_subset.expensively_compute_partition_keys()))


def _crawl(key: str) -> str:
    return key.partition("|")[0]


def _true_for(context: dg.AutomationContext, keys: set[str]) -> dg.AutomationResult:
    definition = context.partitions_def
    if definition is None:
        raise ValueError(f"{context.key.to_user_string()} has no partitions: this condition chooses among them")
    found = context.asset_graph_view.get_subset_from_partition_keys(context.key, definition, keys)
    return dg.AutomationResult(context, found)


def _made(instance: dg.DagsterInstance, asset: str) -> dict[str, int]:
    """Partition -> a number that grows with the time of its newest materialization."""
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    return dict(instance.event_log_storage.get_latest_storage_id_by_partition(dg.AssetKey(asset), kind))


def _recorded(instance: dg.DagsterInstance, crawl: str) -> tuple[set[str], set[str]]:
    """The crawls that a pool says it holds, and those that it left out."""
    wanted = dg.AssetRecordsFilter(dg.AssetKey("pool"), asset_partitions=[crawl])
    (record,) = instance.fetch_materializations(wanted, limit=1).records
    metadata = record.asset_materialization.metadata if record.asset_materialization else {}
    return _names(metadata.get(INCLUDED)), _names(metadata.get(LEFT_OUT))


def _names(value: dg.MetadataValue[Any] | None) -> set[str]:
    return set(value.value) if isinstance(value, dg.JsonMetadataValue) and isinstance(value.value, list) else set()
