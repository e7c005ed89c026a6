"""A scorecard as a job: a checkpoint's weights in, the prediction of every image and what follows from them out."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import groupby
from typing import Any

import pyarrow as pa

from clipcov_assets.ingest.evaluation_set import EvaluationSet, find_evaluation_sets
from clipcov_assets.jobs.evaluate import predictions_by_set
from clipcov_assets.jobs.job import Backend, Job, Outcome, Voice
from clipcov_assets.provenance import content_version
from clipcov_assets.scoring import MeasuredSet, class_recall_rows, group_rows, measure, score_rows
from clipcov_assets.tables import class_recalls_table, groups_table, scores_table, trainings_table
from resources.clip_encoder import ClipEncoder
from resources.evaluation_suite import EvaluationSuite
from resources.head_cache import HeadCache
from resources.lance_store import LanceStore


class ScoreCheckpoint(Job):
    """Scores one partition; each evaluation set under the weights of each seed is a part.

    Attributes:
        crawl: The pool's.
        method: Whose checkpoint it is.
        fraction: Of the pool.
        partition: Of the checkpoint.
        seed: Of the intervals.
        store: The tables.
        encoder: Loads the weights.
        suite: The evaluation sets.
        heads: Class rows of models that were evaluated before.
    """

    crawl: str
    method: str
    fraction: float
    partition: str
    seed: int
    store: LanceStore
    encoder: ClipEncoder
    suite: EvaluationSuite
    heads: HeadCache

    @cached_property
    def sets(self) -> dict[str, EvaluationSet]:
        """The evaluation sets by name."""
        return {one.name: one for one in find_evaluation_sets(self.suite.folder(), self.suite.digests)}

    @cached_property
    def trainings(self) -> list[dict[str, Any]]:
        """What was trained, a seed after the other."""
        rows: list[dict[str, Any]] = self.store.read(trainings_table(self.method), self.partition).to_pylist()
        return rows

    def run(self, backend: Backend) -> Outcome:
        """Write predictions, scores, groups and recalls.

        Returns:
            table, data_version, images, values of the metrics for each seed, and sha256 and prompts of each set.

        Raises:
            ValueError: A set that cannot be read, or an image in it; the message names it.
        """
        items = [(place, name) for place in range(len(self.trainings)) for name in sorted(self.sets)]
        found = dict(backend.each(self, items))
        predictions = pa.concat_tables(found[place] for place in range(len(items)))
        sets = list(self.sets.values())
        measured = measure(predictions, sets, seed=self.seed)
        whose: dict[str, Any] = {"crawl": self.crawl, "method": self.method, "fraction": self.fraction}
        scores = score_rows(measured, **whose, pairs=self.trainings[0]["pairs"])
        written = self.store.write(f"{self.method}_scorecard", self.partition, predictions)
        self.store.write(scores_table(self.method), self.partition, scores)
        self.store.write(groups_table(self.method), self.partition, group_rows(measured, **whose))
        self.store.write(class_recalls_table(self.method), self.partition, class_recall_rows(measured, **whose))
        return {
            "table": asdict(written),
            "data_version": content_version(predictions, scores),
            "images": sum(map(len, sets)),
            "values": [_values(measured, place) for place in range(len(self.trainings))],
            "sha256": {one.name: one.sha256 for one in sets},
            "prompts": {one.name: _prompts_in_words(one) for one in sets},
        }

    def parts(self, items: Sequence[tuple[int, str]], voice: Voice) -> Iterator[pa.Table]:
        """Yield the predictions of each set; neighbouring sets of one model are one stream of images."""
        compute = self.compute.settled()
        for place, some in groupby(items, key=lambda item: item[0]):
            trained = self.trainings[place]
            yield from predictions_by_set(
                self.encoder.load(trained["architecture"], trained["weights"]),
                [self.sets[name] for _, name in some],
                seed=trained["seed"],
                compute=compute,
                heads=self.heads,
                report=voice.report,
            )


def _values(measured: Sequence[MeasuredSet], place: int) -> dict[str, float]:
    """The metrics of one of the seeds."""
    return {
        f"{one.evaluation_set.name}/{name}": float(found.of_seeds[place])
        for one in measured
        for name, found in one.metrics.items()
    }


def _prompts_in_words(one: EvaluationSet) -> str:
    if one.other_prompts:
        return "other class names or templates than the published ones: not comparable with others' numbers"
    return "as published" if one.known and one.known.prompts_sha256 else "of one's own"
