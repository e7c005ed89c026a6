"""Predictions in, scorecards out: the rows of scores, groups and class recalls of one partition of checkpoints.

Every set is measured once, and all rows are made from that. A group of sets has a value only where all of them count.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from clipcov_assets.core import suite
from clipcov_assets.core.metrics import (
    Measurement,
    above_chance,
    average,
    chance,
    class_recalls,
    retrieval_chance,
    retrieval_score,
    score,
)
from clipcov_assets.core.suite import CLASSIFICATION, IMAGE_TO_TEXT, TEXT_TO_IMAGE
from clipcov_assets.ingest.evaluation_set import EvaluationSet
from clipcov_assets.tables import CLASS_RECALLS, GROUPS, SCORES

IN_ORDER = ["seed", "task", "label", "key"]

Columns = Mapping[str, NDArray[np.int32]]  # of each task


@dataclass(frozen=True, eq=False)
class MeasuredSet:
    """What checkpoints that differ in their seed reach on one evaluation set.

    Attributes:
        evaluation_set: The set.
        seeds: How many checkpoints.
        metrics: By name.
        chance: What guessing reaches, metric by metric.
        class_recalls: Label, name, images and recall of each class that has images; empty for retrieval.
    """

    evaluation_set: EvaluationSet
    seeds: int
    metrics: Mapping[str, Measurement]
    chance: Mapping[str, float]
    class_recalls: Sequence[Mapping[str, object]]


def main_metric(evaluation_set: EvaluationSet) -> str:
    """Return the metric that a set is known by: its own where the field knows it, else acc1 or mean recall at 1.

    Source: Gadre et al. 2023, arXiv:2304.14108.
    """
    if evaluation_set.is_retrieval:
        return suite.MEAN_RECALL
    return evaluation_set.known.main_metric if evaluation_set.known else suite.ACCURACY


def measure(predictions: pa.Table, sets: Sequence[EvaluationSet], *, seed: int) -> tuple[MeasuredSet, ...]:
    """Measure checkpoints of one partition, one a seed, on every set.

    Args:
        predictions: With the columns PREDICTIONS, of every set and every seed, in any order.
        sets: The evaluation sets as they were when the predictions were made.
        seed: Of the bootstrap. Each set draws by its own name too: sets are resampled independently, and one more
            changes nothing for the others.

    Raises:
        ValueError: No predictions, those of a set not among `sets`, or a set whose predictions are not exactly one
            for each image, or caption, and seed, with the label that it has; the message names the set.
    """
    rows = pl.DataFrame(predictions)
    if rows.is_empty():
        raise ValueError("no predictions to score; evaluate a checkpoint first")
    strangers = set(rows["evaluation_set"].unique()) - {one.name for one in sets}
    if strangers:
        raise ValueError(
            f"predictions of {', '.join(sorted(strangers))}, not among the evaluation sets; evaluate again"
        )
    seeds = rows["seed"].unique()
    of_set = rows.partition_by("evaluation_set", as_dict=True)
    return tuple(_measured(of_set.get((one.name,), rows.clear()), one, seeds, seed) for one in sets)


def score_rows(measured: Sequence[MeasuredSet], *, crawl: str, method: str, fraction: float, pairs: int) -> pa.Table:
    """Return the rows SCORES, every metric of every set."""
    checkpoint = {"crawl": crawl, "method": method, "fraction": fraction, "pairs": pairs}
    return pa.Table.from_pylist([checkpoint | row for one in measured for row in _scores(one)], schema=SCORES)


def group_rows(measured: Sequence[MeasuredSet], *, crawl: str, method: str, fraction: float) -> pa.Table:
    """Return the rows GROUPS, one for every group that the field averages over.

    A group has a value where all of its sets are there with their published prompts; else it has the reason.
    """
    checkpoint = {"crawl": crawl, "method": method, "fraction": fraction}
    return pa.Table.from_pylist([checkpoint | _group(one, measured) for one in suite.GROUPS], schema=GROUPS)


def class_recall_rows(measured: Sequence[MeasuredSet], *, crawl: str, method: str, fraction: float) -> pa.Table:
    """Return the rows CLASS_RECALLS, one for every class that has images."""
    checkpoint = {"crawl": crawl, "method": method, "fraction": fraction}
    rows = [
        checkpoint | {"evaluation_set": one.evaluation_set.name, **row} for one in measured for row in one.class_recalls
    ]
    return pa.Table.from_pylist(rows, schema=CLASS_RECALLS)


def _measured(rows: pl.DataFrame, evaluation_set: EvaluationSet, seeds: pl.Series, seed: int) -> MeasuredSet:
    found = rows.select(*IN_ORDER, "rank_of_label").sort(IN_ORDER)
    of_one_seed = _retrieval_rows(evaluation_set) if evaluation_set.is_retrieval else _labelled_rows(evaluation_set)
    wanted = seeds.to_frame("seed").join(of_one_seed, how="cross").select(IN_ORDER).sort(IN_ORDER)
    if not found.select(IN_ORDER).equals(wanted):
        raise ValueError(_what_is_wrong(evaluation_set, found, wanted))
    # Sorted by label, column i of the ranks of a retrieval set's images is image i.
    label = {str(task): of_one_seed.filter(task=task)["label"].sort().to_numpy() for task in found["task"].unique()}
    rank = {task: found.filter(task=task)["rank_of_label"].to_numpy().reshape(len(seeds), -1) for task in label}
    own_seed = [seed, *evaluation_set.name.encode()]
    try:
        if evaluation_set.prompts is None:
            return _retrieval(evaluation_set, label, rank, own_seed)
        return _classification(evaluation_set, evaluation_set.prompts.class_names, label, rank, own_seed)
    except ValueError as error:
        raise ValueError(f"predictions of {evaluation_set.name!r}: {error}") from error


def _classification(
    evaluation_set: EvaluationSet, names: Sequence[str], label: Columns, rank: Columns, seed: Sequence[int]
) -> MeasuredSet:
    own = label[CLASSIFICATION], rank[CLASSIFICATION]
    metrics = score(*own, n_classes=len(names), seed=seed)
    images, recall = class_recalls(*own, n_classes=len(names))
    recalls = [
        {"label": one, "name": names[one], "images": int(images[one]), "recall": float(recall[one])}
        for one in np.flatnonzero(images).tolist()
    ]
    return MeasuredSet(evaluation_set, len(own[1]), metrics, chance(len(names)), recalls)


def _retrieval(evaluation_set: EvaluationSet, label: Columns, rank: Columns, seed: Sequence[int]) -> MeasuredSet:
    image_of_caption = label[TEXT_TO_IMAGE]
    metrics = retrieval_score(rank[IMAGE_TO_TEXT], rank[TEXT_TO_IMAGE], image_of_caption, seed=seed)
    level = retrieval_chance(np.bincount(image_of_caption))
    return MeasuredSet(evaluation_set, len(rank[IMAGE_TO_TEXT]), metrics, level, [])


def _labelled_rows(evaluation_set: EvaluationSet) -> pl.DataFrame:
    """Task, label and key of every prediction that a seed makes on a classification set."""
    return _of_task(CLASSIFICATION, evaluation_set.labels, evaluation_set.keys)


def _retrieval_rows(evaluation_set: EvaluationSet) -> pl.DataFrame:
    """Task, label and key of every prediction that a seed makes on a retrieval set: its images, then its captions."""
    keys, captions = evaluation_set.keys, evaluation_set.captions or ()
    named = [(image, f"{keys[image]}#{number}") for image, own in enumerate(captions) for number in range(len(own))]
    return pl.concat(
        [
            _of_task(IMAGE_TO_TEXT, range(len(keys)), keys),
            _of_task(TEXT_TO_IMAGE, [image for image, _ in named], [key for _, key in named]),
        ]
    )


def _of_task(task: str, label: Iterable[int] | None, key: Iterable[str]) -> pl.DataFrame:
    return pl.DataFrame({"label": label, "key": key}, schema_overrides={"label": pl.Int32}).with_columns(
        task=pl.lit(task)
    )


def _what_is_wrong(evaluation_set: EvaluationSet, found: pl.DataFrame, wanted: pl.DataFrame) -> str:
    missing = wanted.join(found, on=IN_ORDER, how="anti")
    strange = found.join(wanted, on=IN_ORDER, how="anti").select(IN_ORDER)
    again = found.select(IN_ORDER).filter(found.select(IN_ORDER).is_duplicated())
    example = pl.concat([missing, strange, again]).row(0, named=True)
    return (
        f"predictions of {evaluation_set.name!r}: of {len(wanted):,} over all seeds {len(missing):,} are missing, "
        f"{len(strange):,} are of no image of the set or of another label and {len(again):,} are there more than once, "
        f"such as {example}; evaluate the checkpoints again"
    )


def _scores(one: MeasuredSet) -> Iterator[dict[str, object]]:
    for metric, measurement in one.metrics.items():
        estimate, level = measurement.estimate, one.chance[metric]
        yield {
            "seeds": one.seeds,
            "evaluation_set": one.evaluation_set.name,
            "metric": metric,
            "is_main": metric == main_metric(one.evaluation_set),
            **asdict(estimate),
            "chance": level,
            "above_chance": above_chance(estimate.value, level),
            "images": len(one.evaluation_set),
        }


def _group(group: suite.Group, measured: Sequence[MeasuredSet]) -> dict[str, object]:
    known = {one.evaluation_set.known.name: one for one in measured if one.evaluation_set.known}
    row: dict[str, object] = {"group": group.name, "sets": len(group.sets), "reason": _why_not(group, known)}
    if row["reason"] is None:
        members = [known[name] for name in group.sets]
        row |= asdict(average([one.metrics[main_metric(one.evaluation_set)] for one in members]).estimate)
    return row


def _why_not(group: suite.Group, known: Mapping[str, MeasuredSet]) -> str | None:
    """Why the sets of a group cannot be averaged, by their titles; None where they can."""
    title = {one.name: one.title for one in suite.KNOWN_SETS}
    missing = [title[name] for name in group.sets if name not in known]
    there = {name: known[name].evaluation_set for name in group.sets if name in known}
    other = [title[name] for name, one in there.items() if one.other_prompts]
    sentences = [
        f"{title[name]} has {len(one):,} images, {one.known.images:,} were published"
        for name, one in there.items()
        if one.known and one.known.images not in (None, len(one))
    ]
    if missing:
        sentences.append(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not there")
    if other:
        has = "has" if len(other) == 1 else "have"
        sentences.append(f"{', '.join(other)} {has} other class names or templates than the published ones")
    return "; ".join(sentences) or None
