from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from clipcov_assets.core import suite
from clipcov_assets.core.evaluation import Classification, Predictions, Retrieval
from clipcov_assets.core.prompts import Prompts
from clipcov_assets.ingest.evaluation_set import EvaluationSet, ImagePlaces, find_evaluation_sets
from clipcov_assets.scoring import class_recall_rows, group_rows, main_metric, measure, score_rows
from clipcov_assets.tables import CLASS_RECALLS, GROUPS, PREDICTIONS, SCORES
from tests.deliveries import evaluation_set, retrieval_set

NOWHERE = ImagePlaces((), (), np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64))
CHECKPOINT = {"crawl": "crawl-1", "method": "random", "fraction": 0.2}
ELEVEN = next(group for group in suite.GROUPS if group.name == "average11").sets


def labelled(
    name: str, labels: list[int], *, classes: int = 2, published: bool = True, whole: bool = False
) -> EvaluationSet:
    """A classification set; `published` has its prompts count as those of a known set, `whole` asks for its images."""
    known = suite.known_set(name)
    if known and published:
        known = replace(known, prompts_sha256=())
    if known is not None and not whole:
        known = replace(known, images=None)
    prompts = Prompts(tuple(f"class {number}" for number in range(classes)), ("{c}",))
    keys = tuple(f"0/{place:04d}" for place in range(len(labels)))
    return EvaluationSet(name, known, prompts, keys, np.array(labels), None, "0" * 64, NOWHERE)


def captioned(name: str, *captions: int) -> EvaluationSet:
    """A retrieval set with so many captions an image."""
    keys = tuple(f"0/{place:04d}" for place in range(len(captions)))
    texts = tuple(("a caption",) * count for count in captions)
    return EvaluationSet(name, suite.known_set(name), None, keys, None, texts, "0" * 64, NOWHERE)


def predicted(one: EvaluationSet, *ranks: list[int]) -> list[dict]:
    """Predictions of a classification set, one list of ranks a seed."""
    return [
        {"evaluation_set": one.name, "seed": seed, "task": "classification", "key": key}
        | {"label": int(label), "predicted": 0, "rank_of_label": rank}
        for seed, row in enumerate(ranks)
        for key, label, rank in zip(one.keys, one.labels, row, strict=True)
    ]


def retrieved(one: EvaluationSet, texts: list[int], images: list[int]) -> list[dict]:
    """Predictions of a retrieval set with one seed: the rank of each image's caption, of each caption's image."""
    asked = [("image_to_text", key, number) for number, key in enumerate(one.keys)]
    asked += [
        ("text_to_image", f"{one.keys[number]}#{place}", number)
        for number, own in enumerate(one.captions)
        for place in range(len(own))
    ]
    return [
        {"evaluation_set": one.name, "seed": 0, "task": task, "key": key}
        | {"label": label, "predicted": 0, "rank_of_label": rank}
        for (task, key, label), rank in zip(asked, texts + images, strict=True)
    ]


def table(*rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist([row for some in rows for row in some], schema=PREDICTIONS)


def scores(predictions: pa.Table, *sets: EvaluationSet) -> list[dict]:
    found = score_rows(measure(predictions, sets, seed=0), **CHECKPOINT, pairs=100)
    assert found.schema.equals(SCORES)
    return found.to_pylist()


def test_a_set_is_known_by_the_metric_that_the_field_reports() -> None:
    assert main_metric(labelled("wds_vtab-caltech101_test", [0])) == "mean_per_class_recall"
    assert main_metric(labelled("food101", [0])) == main_metric(labelled("our-own", [0])) == "acc1"
    assert main_metric(captioned("flickr30k", 1)) == main_metric(captioned("our-own", 1)) == "mean_recall_at_1"


def test_scores_of_two_seeds_by_hand() -> None:
    # Class 0 has three images: the first seed hits two of them, the second none; both hit the one of class 1.
    dogs = labelled("dogs", [0, 0, 0, 1])
    rows = scores(table(predicted(dogs, [0, 0, 1, 0], [1, 1, 1, 0])), dogs)
    assert [(row["metric"], row["is_main"]) for row in rows] == [("acc1", True), ("mean_per_class_recall", False)]
    accuracy, recall = rows
    assert accuracy["value"] == (3 / 4 + 1 / 4) / 2
    assert accuracy["seed_deviation"] == pytest.approx((3 / 4 - 1 / 4) / 2**0.5)
    assert recall["value"] == pytest.approx(((2 / 3 + 1) / 2 + (0 + 1) / 2) / 2)
    assert (accuracy["chance"], accuracy["above_chance"]) == (0.5, 0)
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    assert {name: accuracy[name] for name in ("crawl", "pairs", "seeds", "evaluation_set", "images")} == {
        "crawl": "crawl-1",
        "pairs": 100,
        "seeds": 2,
        "evaluation_set": "dogs",
        "images": 4,
    }


def test_scores_of_a_retrieval_set_by_hand() -> None:
    # Eleven images, the first with two captions; image 1 and the second caption of image 0 find theirs second.
    pictures = captioned("our-pictures", 2, *[1] * 10)
    predictions = table(retrieved(pictures, [0, 1] + [0] * 9, [0, 1] + [0] * 10))
    rows = {row["metric"]: row for row in scores(predictions, pictures)}
    assert {metric: row["value"] for metric, row in rows.items()} == pytest.approx(
        {f"{found}_recall_at_{k}": 1 for found in ("text", "image") for k in (5, 10)}
        | {
            "text_recall_at_1": 10 / 11,
            "image_recall_at_1": 11 / 12,
            "mean_recall_at_1": (10 / 11 + 11 / 12) / 2,
        }
    )
    assert [metric for metric, row in rows.items() if row["is_main"]] == ["mean_recall_at_1"]
    # Guessing finds one of the two captions of image 0 with 2/12, those of the others with 1/12.
    assert rows["text_recall_at_1"]["chance"] == pytest.approx((2 / 12 + 10 * 1 / 12) / 11)
    assert rows["text_recall_at_1"]["images"] == 11
    assert rows["text_recall_at_1"]["seed_deviation"] is None


def test_recall_at_ten_among_ten_images_says_nothing_about_chance() -> None:
    pictures = captioned("our-pictures", *[1] * 10)
    rows = {row["metric"]: row for row in scores(table(retrieved(pictures, [0] * 10, [0] * 10)), pictures)}
    assert rows["image_recall_at_10"]["chance"] == 1
    assert rows["image_recall_at_10"]["above_chance"] is None


def test_the_order_of_predictions_changes_nothing() -> None:
    dogs, pictures = labelled("dogs", [1, 0, 0, 1]), captioned("pictures", 1, 12, 1)
    predictions = table(predicted(dogs, [0, 1, 0, 1]), retrieved(pictures, [0, 1, 5], [0, 1, *range(3)] + [0] * 9))
    shuffled = predictions.take(np.random.default_rng(0).permutation(len(predictions)))
    assert scores(shuffled, dogs, pictures) == scores(predictions, dogs, pictures)


def test_another_set_changes_nothing_for_the_others() -> None:
    dogs, cats = labelled("dogs", [0, 1] * 50), labelled("cats", [0, 1] * 50)
    ranks = ([0, 0, 1] * 34)[:100]
    alone = scores(table(predicted(dogs, ranks)), dogs)
    both = scores(table(predicted(dogs, ranks), predicted(cats, ranks)), cats, dogs)
    assert [row for row in both if row["evaluation_set"] == "dogs"] == alone


def test_sets_are_resampled_independently() -> None:
    dogs, cats = labelled("dogs", [0, 1] * 50), labelled("cats", [0, 1] * 50)
    ranks = ([0, 0, 1] * 34)[:100]
    measured = measure(table(predicted(dogs, ranks), predicted(cats, ranks)), [dogs, cats], seed=0)
    of_dogs, of_cats = (one.metrics["acc1"].of_resamples for one in measured)
    assert abs(np.corrcoef(of_dogs, of_cats)[0, 1]) < 0.1


def test_class_recalls_are_of_the_classes_that_have_images() -> None:
    dogs, pictures = labelled("dogs", [0, 0, 2], classes=3), captioned("pictures", 1)
    predictions = table(
        predicted(dogs, [0, 1, 0], [0, 0, 1]),
        [dict(row, seed=seed) for seed in (0, 1) for row in retrieved(pictures, [0], [0])],
    )
    found = class_recall_rows(measure(predictions, [dogs, pictures], seed=0), **CHECKPOINT)
    assert found.schema.equals(CLASS_RECALLS)
    assert found.to_pylist() == [
        CHECKPOINT | {"evaluation_set": "dogs", "label": 0, "name": "class 0", "images": 2, "recall": 0.75},
        CHECKPOINT | {"evaluation_set": "dogs", "label": 2, "name": "class 2", "images": 1, "recall": 0.5},
    ]


def the_eleven(*, without: tuple[str, ...] = (), other_prompts: tuple[str, ...] = ()) -> tuple[dict, list[float]]:
    """Groups by name, and the acc1 of every set: set number k hits k + 1 of 20 images, with both seeds one more."""
    sets = [labelled(name, [0, 1] * 10, published=name not in other_prompts) for name in ELEVEN if name not in without]
    ranks = {name: [[0] * (k + 1 + seed) + [1] * (19 - k - seed) for seed in (0, 1)] for k, name in enumerate(ELEVEN)}
    predictions = table(*[predicted(one, *ranks[one.name]) for one in sets])
    found = group_rows(measure(predictions, sets, seed=0), **CHECKPOINT)
    assert found.schema.equals(GROUPS)
    hits = [[row.count(0) / 20 for row in ranks[name]] for name in ELEVEN]
    return {row["group"]: row for row in found.to_pylist()}, np.mean(hits, axis=1).tolist()


def test_groups_are_means_of_the_main_metrics() -> None:
    groups, accuracies = the_eleven()
    assert set(groups) == {group.name for group in suite.GROUPS}
    average = groups["average11"]
    # As many images in both classes: mean per-class recall, by which Caltech101 is known, is the accuracy.
    assert average["value"] == pytest.approx(np.mean(accuracies))
    assert average["seed_deviation"] == pytest.approx((1 / 20) / 2**0.5)
    assert (average["sets"], average["reason"]) == (11, None)
    assert groups["shift5"]["value"] == pytest.approx(np.mean(accuracies[-5:]))
    # The standard error of a mean over sets: the root of the sum of their variances, over their number.
    error = np.sqrt(sum(one * (1 - one) / 20 for one in accuracies)) / 11
    assert average["high"] - average["low"] == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert average["low"] < average["value"] < average["high"]


def test_a_group_without_one_of_its_sets_has_a_reason_and_no_value() -> None:
    groups, _ = the_eleven(without=("dtd", "sun397"))
    empty = {name: groups["average11"][name] for name in ("value", "low", "high", "seed_deviation")}
    assert set(empty.values()) == {None}
    assert groups["average11"]["reason"] == "DTD, SUN397 are not there"
    assert groups["shift6"]["reason"] == "ImageNet-O is not there"
    assert groups["shift5"]["value"] is not None


def test_a_set_with_other_prompts_does_not_count() -> None:
    groups, _ = the_eleven(without=("dtd",), other_prompts=("imagenet-a",))
    reason = "ImageNet-A has other class names or templates than the published ones"
    assert (groups["shift5"]["value"], groups["shift5"]["reason"]) == (None, reason)
    assert groups["average11"]["reason"] == f"DTD is not there; {reason}"


def test_a_set_with_fewer_images_than_were_published_does_not_count() -> None:
    imagenet = labelled("imagenet1k", [0, 1], whole=True)
    (row, *_) = group_rows(measure(table(predicted(imagenet, [0, 1])), [imagenet], seed=0), **CHECKPOINT).to_pylist()
    assert (row["group"], row["value"]) == ("imagenet", None)
    assert row["reason"] == "ImageNet has 2 images, 50,000 were published"


def test_sets_of_ones_own_belong_to_no_group() -> None:
    dogs = labelled("dogs", [0, 1])
    rows = group_rows(measure(table(predicted(dogs, [0, 1])), [dogs], seed=0), **CHECKPOINT).to_pylist()
    assert {row["value"] for row in rows} == {None}
    assert rows[0]["reason"] == "ImageNet is not there"


DOGS = labelled("dogs", [0, 1])
COMPLETE = predicted(DOGS, [0, 1], [1, 0])


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (COMPLETE[:-1], "'dogs': of 4 over all seeds 1 are missing.*'seed': 1.*'key': '0/0001'"),
        (COMPLETE + COMPLETE[:1], "'dogs'.*0 are missing.* 2 are there more than once"),
        (COMPLETE[:-1] + COMPLETE[:1], "'dogs'.*1 are missing"),
        ([*COMPLETE[:-1], COMPLETE[-1] | {"label": 0}], "'dogs'.*1 are of no image of the set or of another label"),
        ([row | {"task": "image_to_text"} for row in COMPLETE], "'dogs'.*4 are missing"),
        ([row | {"rank_of_label": 7} for row in COMPLETE], "'dogs': rank_of_label 7"),
        ([*COMPLETE, COMPLETE[0] | {"evaluation_set": "wolves"}], "wolves"),
        ([row | {"evaluation_set": "wolves"} for row in COMPLETE], "wolves"),
        ([], "no predictions"),
    ],
)
def test_incomplete_predictions_are_refused(rows: list[dict], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        measure(table(rows), [DOGS], seed=0)


def test_a_set_without_predictions_is_refused() -> None:
    with pytest.raises(ValueError, match="'wolves': of 4 over all seeds 4 are missing"):
        measure(table(COMPLETE), [DOGS, labelled("wolves", [0, 1])], seed=0)


def rows_of(one: EvaluationSet, found: tuple[Predictions, ...]) -> list[dict]:
    """What an evaluation of one seed has predicted, as rows."""
    return [
        {"evaluation_set": one.name, "seed": 0, "task": task.task, "key": key}
        | {"label": int(label), "predicted": int(predicted), "rank_of_label": int(rank)}
        for task in found
        for key, label, predicted, rank in zip(task.key, task.label, task.predicted, task.rank_of_label, strict=True)
    ]


def test_what_an_evaluation_of_files_predicts_is_scored(tmp_path: Path) -> None:
    evaluation_set(tmp_path / "wds_food101_test", range(8))
    retrieval_set(tmp_path / "wds_flickr8k_test", range(6), captions=2)
    pictures, food = find_evaluation_sets(tmp_path)
    # Every image lies on its own class, but for the last two.
    classes = np.eye(4, dtype=np.float32)
    classified = Classification(food.name, food.keys, food.labels, 4).predictions(
        [classes[[0, 1, 2, 3, 0, 1, 3, 2]]], classes
    )
    # The first caption of each picture lies on it, the second on the next picture: half of the captions find theirs.
    # Ties go to the smaller number, so that only the first picture finds its own caption before another's.
    images = np.eye(6, dtype=np.float32)
    captions = images[np.stack([np.arange(6), (np.arange(6) + 1) % 6], axis=1).ravel()]
    found = Retrieval(pictures.name, pictures.keys, np.full(6, 2)).predictions([images], captions)
    measured = measure(table(rows_of(food, classified), rows_of(pictures, found)), [food, pictures], seed=0)
    rows = score_rows(measured, **CHECKPOINT, pairs=100).to_pylist()
    values = {(row["evaluation_set"], row["metric"]): row["value"] for row in rows if row["is_main"]}
    assert values == {
        ("wds_food101_test", "acc1"): 6 / 8,
        ("wds_flickr8k_test", "mean_recall_at_1"): pytest.approx((1 / 6 + 1 / 2) / 2),
    }
    reasons = {row["group"]: row["reason"] for row in group_rows(measured, **CHECKPOINT).to_pylist()}
    assert "Food101 has other class names or templates" in reasons["others5"]
