"""A checkpoint as a job: the pairs of a subset in, weights of every seed, curves and what was trained how out."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from clipcov_assets.core.recipe import Recipe
from clipcov_assets.jobs.job import Backend, Job, Outcome, Voice
from clipcov_assets.jobs.train import Trainer, Training, curve_rows, training_rows
from clipcov_assets.provenance import content_version
from clipcov_assets.subset_pairs import pairs_of_pool
from clipcov_assets.tables import trainings_table
from resources.clip_encoder import ClipEncoder
from resources.lance_store import LanceStore
from resources.mlflow_tracker import MlflowTracker
from resources.staging import Staging


class TrainCheckpoint(Job):
    """Trains one partition with each seed, as one part: its devices are those of one node.

    Attributes:
        asset: Of the checkpoint.
        partition: Of the checkpoint.
        crawl: The pool's.
        method: Whose subset it is.
        fraction: Of the pool.
        subset: Asset of the subset in this partition; the whole pool where None.
        dataset: Name and data version of the pairs, for MLflow.
        architecture: open_clip's name.
        recipe: How.
        seeds: A training for each.
        tags: Of the MLflow runs.
        store: The tables.
        encoder: Keeps the weights.
        tracker: Records the runs.
        staging: Keeps the state of unfinished trainings.
    """

    asset: str
    partition: str
    crawl: str
    method: str
    fraction: float
    subset: str | None
    dataset: tuple[str, str]
    architecture: str
    recipe: Recipe
    seeds: list[int]
    tags: dict[str, str]
    store: LanceStore
    encoder: ClipEncoder
    tracker: MlflowTracker
    staging: Staging

    @property
    def gpus(self) -> int:
        """As many as train the model together."""
        return self.compute.devices or 1

    def run(self, backend: Backend) -> Outcome:
        """Train, and write curves and trainings.

        Returns:
            table, data_version, recipe_hash, and of the first training sha256, weights and its address in MLflow.

        Raises:
            ValueError: Pairs without an image, or one that cannot be read; the message names it.
        """
        ((_, outcome),) = backend.each(self, [self.partition])
        return dict(outcome)

    def parts(self, items: Sequence[str], voice: Voice) -> Iterator[Outcome]:
        """Train with every seed; one that a run that was broken off has trained is not trained again."""
        for partition in items:
            compute, training = self.compute.settled(), self._training()
            trainer = Trainer(self.encoder, self.tracker, compute, self.staging, report=voice.report, warn=voice.warn)
            checkpoints = trainer.train(training, self.seeds)
            trainings = training_rows(
                checkpoints, training, compute, crawl=self.crawl, method=self.method, fraction=self.fraction
            )
            written = self.store.write(self.asset, partition, curve_rows(checkpoints))
            self.store.write(trainings_table(self.method), partition, trainings)
            yield {
                "table": asdict(written),
                "data_version": content_version(*(one.weights.sha256 for one in checkpoints)),
                "recipe_hash": training.recipe_hash,
                "sha256": checkpoints[0].weights.sha256,
                "weights": checkpoints[0].weights.path,
                "mlflow": next((one.mlflow_address for one in checkpoints if one.mlflow_address), None),
            }

    def _training(self) -> Training:
        uid: Any = self.store.read(self.subset, self.partition, ["uid"])["uid"] if self.subset else None
        return Training(
            name=f"{self.asset}/{self.partition.replace('|', '/')}",
            pairs=pairs_of_pool(self.store, self.crawl, uid),
            dataset=(*self.dataset, self.store.uri),
            architecture=self.architecture,
            recipe=self.recipe,
            tags=self.tags,
            parent=(self.crawl, self.method),
        )
