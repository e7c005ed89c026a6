"""Pairs in, trained and saved CLIPs out, one a seed, with their curves in MLflow; a killed training goes on."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from clipcov_assets.core.clip_model import ClipModel, create_clip
from clipcov_assets.core.encoding import preparation
from clipcov_assets.core.recipe import Execution, Recipe, Schedule
from clipcov_assets.core.training import TrainingStep, TrainingSummary, train_clip
from clipcov_assets.jobs.training_pairs import TrainingPairs
from clipcov_assets.progress import Progress
from clipcov_assets.subset_pairs import FoundPairs
from clipcov_assets.tables import CURVE, TRAININGS
from resources.clip_encoder import ClipEncoder, SavedWeights
from resources.compute import Compute
from resources.mirror import Address, is_address
from resources.mlflow_tracker import MlflowTracker
from resources.pieces import Pieces, disk_of
from resources.shared_pieces import SETTING
from resources.staging import Staging
from resources.tracked_run import TrackedRun


@dataclass(frozen=True)
class Training:
    """What is trained.

    Attributes:
        name: Of the checkpoint, such as `clipcov_checkpoint/crawl-1/f10`.
        pairs: Trained on.
        dataset: Their name, the version of their content, and where they are, for MLflow.
        architecture: open_clip's name.
        recipe: How.
        tags: Dagster's asset, partition and run, for MLflow.
        parent: Crawl and method, whose runs stand together in MLflow; None where a run stands alone.
    """

    name: str
    pairs: FoundPairs
    dataset: tuple[str, str, str]
    architecture: str
    recipe: Recipe
    tags: Mapping[str, str]
    parent: tuple[str, str] | None = None

    @property
    def recipe_hash(self) -> str:
        """Equal where architecture and recipe are equal."""
        return hashlib.blake2b(f"{self.architecture} {self.recipe.hash}".encode(), digest_size=6).hexdigest()


@dataclass(frozen=True)
class TrainedCheckpoint:
    """What a training with one seed left; the MLflow run is None where MLflow could not be reached."""

    seed: int
    weights: SavedWeights
    steps: tuple[TrainingStep, ...]
    summary: TrainingSummary
    mlflow_run_id: str | None
    mlflow_address: str | None


@dataclass(frozen=True)
class StateFile:
    """The newest state of one training, in a file.

    Attributes:
        path: Where it is written on this machine.
        every_samples: Samples between two states.
        place: Directory or address where it is kept, under the name of the path.
    """

    path: Path
    every_samples: int
    place: str

    def load(self) -> dict[str, Any] | None:
        """Return the state, None where there is none."""
        import torch

        kept = Address.at(self.place, SETTING)
        if self.path.name not in kept.names():
            return None
        with kept.file(self.path.name) as file:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Keep a state in the place of the earlier one, whole or not at all."""
        import torch

        unfinished = self.path.with_suffix(".unfinished")
        with disk_of(self.path):
            torch.save(state, unfinished)
        Address.at(self.place, SETTING).put(self.path.name, unfinished)


@dataclass(frozen=True)
class Trainer:
    """The resources of a training, bound together so that every checkpoint is trained the same way.

    Attributes:
        encoder: Saves the weights.
        tracker: Records the runs; a training neither waits for MLflow nor fails with it.
        compute: The machine, and how often the state is saved.
        staging: Keeps the state until all seeds are trained.
        report: Takes a sentence on the progress now and then.
        warn: Takes a sentence on what MLflow lost.
    """

    encoder: ClipEncoder
    tracker: MlflowTracker
    compute: Compute
    staging: Staging
    report: Callable[[str], None]
    warn: Callable[[str], None]

    def train(self, training: Training, seeds: Sequence[int]) -> list[TrainedCheckpoint]:
        """Train a fresh model with each seed and save it; go on with an equal training that was broken off.

        Args:
            training: What is trained.
            seeds: Each decides the initial weights and the order of the pairs.

        Raises:
            ValueError: Pairs without an image, or one that cannot be read; the message names it.
            InUseError: Another run trains this checkpoint.
        """
        asset, _, partition = training.name.partition("/")
        with self.staging.pieces(asset, partition.replace("/", ".") or "all", shared=True) as pieces:
            kept = {seed: self._identity(training, seed) for seed in seeds}
            self._abandon_others(_files(pieces), set(kept.values()))
            trained = [self._train_or_take(training, seed, pieces, kept[seed]) for seed in seeds]
        self.encoder.keep_seeds(training.name, seeds)
        return trained

    def _train_or_take(self, training: Training, seed: int, pieces: Pieces, kept: str) -> TrainedCheckpoint:
        """Train with a seed, unless a run that was broken off while it trained another seed has done it."""
        files = _files(pieces)
        there = files.names()
        done, noted = f"{kept}.done", f"{kept}.mlflow"
        if done in there:
            return _from_json(files.read(done).decode())
        earlier = files.read(noted).decode() if noted in there else None
        tags = {**training.tags, "clipcov.seed": str(seed)}
        name = f"{training.name}/seed-{seed}"
        with self.tracker.run(name, tags, parent=training.parent, earlier=earlier, report=self.warn) as run:
            weights, summary, steps = self._train(training, seed, pieces, kept, run)
        # Only now it is known whether MLflow has the run.
        checkpoint = TrainedCheckpoint(seed, weights, tuple(steps), summary, run.run_id, run.address)
        files.write(done, json.dumps(asdict(checkpoint)).encode())
        files.remove(f"{kept}.state")
        return checkpoint

    def _train(
        self, training: Training, seed: int, pieces: Pieces, kept: str, run: TrackedRun
    ) -> tuple[SavedWeights, TrainingSummary, list[TrainingStep]]:
        state = StateFile(pieces.directory / f"{kept}.state", self.compute.savepoint_samples, pieces.place)
        work = self._work(training, seed, state)
        _describe(run, training, work)
        progress = Progress(Schedule.of(training.recipe, len(training.pairs)).samples_seen, "samples", self.report)
        steps: list[TrainingStep] = []
        noted: str | None = None

        def on_step(step: TrainingStep) -> None:
            nonlocal noted
            progress.add(step.samples_seen - (steps[-1].samples_seen if steps else 0))
            steps.append(step)
            run.log_curve([(step.samples_seen, _measures(step))])
            if run.run_id not in (None, noted):  # MLflow may open it late, or have lost the earlier one
                noted = run.run_id
                _files(pieces).write(f"{kept}.mlflow", str(noted).encode())

        clip, devices = create_clip(training.architecture, seed=seed), self.compute.resolved_devices()
        summary = work.train(clip, on_step) if devices == 1 else _train_on(devices, work, clip, on_step)
        weights = self.encoder.save(clip, f"{training.name}/seed-{seed}")
        run.log_parameters({"weights": weights.path, "weights_sha256": weights.sha256})
        totals = {"samples_seen": summary.samples_seen, "final_loss": summary.loss, "training_seconds": summary.seconds}
        run.log_metrics(totals, step=summary.samples_seen)
        if not is_address(weights.path):  # what lies at an address is named, and not uploaded once more
            run.log_artifact(weights.path, "checkpoint")
        return weights, summary, steps

    def _work(self, training: Training, seed: int, state: StateFile) -> "_Work":
        compute = self.compute
        return _Work(
            training.pairs,
            training.recipe,
            compute.execution(),
            seed,
            state,
            workers=compute.resolved_workers() // compute.resolved_devices(),
            cache_bytes=compute.image_cache_bytes,
        )

    def _identity(self, training: Training, seed: int) -> str:
        """Digest of all that the weights depend on: a state belongs to one training."""
        devices = self.compute.resolved_devices()
        parts = (training.recipe_hash, seed, self.compute.execution(), devices, training.pairs.digest)
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()

    def _abandon_others(self, files: Address, kept: set[str]) -> None:
        """Remove what other trainings of this checkpoint left when they were broken off."""
        there = files.names()
        for name in there:
            training, _, kind = name.rpartition(".")
            if training not in kept:
                if kind == "mlflow" and f"{training}.done" not in there:
                    self.tracker.abandon(files.read(name).decode(), report=self.warn)
                files.remove(name)


def _files(pieces: Pieces) -> Address:
    """Where the files of unfinished trainings are kept."""
    return Address.at(pieces.place, SETTING)


def curve_rows(checkpoints: Sequence[TrainedCheckpoint]) -> pa.Table:
    """The learning curves of all seeds."""
    return pa.Table.from_pylist(
        [
            {"seed": one.seed, "samples_seen": step.samples_seen, **_measures(step)}
            for one in checkpoints
            for step in one.steps
        ],
        schema=CURVE,
    )


def training_rows(
    checkpoints: Sequence[TrainedCheckpoint],
    training: Training,
    compute: Compute,
    *,
    crawl: str,
    method: str,
    fraction: float,
) -> pa.Table:
    """What was trained on what, how and at which cost; one row a seed."""
    execution, devices = compute.execution(), compute.resolved_devices()
    shared = {
        "crawl": crawl,
        "method": method,
        "fraction": fraction,
        "architecture": training.architecture,
        "recipe": json.dumps(asdict(training.recipe)),
        "recipe_hash": training.recipe_hash,
        "device": device_name(execution.device),
        "devices": devices,
        "precision": execution.precision,
    }
    return pa.Table.from_pylist(
        [
            {
                **shared,
                **asdict(one.summary),
                "seed": one.seed,
                "weights": one.weights.path,
                "sha256": one.weights.sha256,
                "mlflow_run_id": one.mlflow_run_id,
            }
            for one in checkpoints
        ],
        schema=TRAININGS,
    )


def device_name(device: str) -> str:
    """What a person calls the device: the GPU's name, or `cpu`."""
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


@dataclass(frozen=True)
class _Work:
    """A training in which any process can take part.

    Attributes:
        pairs: Trained on.
        recipe: How.
        execution: How one device does it.
        seed: Decides initial weights and order.
        state: The newest state.
        workers: Processes that read for one device.
        cache_bytes: What decoded images may take on one device.
    """

    pairs: FoundPairs
    recipe: Recipe
    execution: Execution
    seed: int
    state: StateFile
    workers: int
    cache_bytes: int

    def train(self, clip: ClipModel, on_step: Callable[[TrainingStep], None]) -> TrainingSummary:
        """Train in this process, on its share where others train with it."""
        pairs = TrainingPairs(
            self.pairs,
            preparation(clip),
            workers=self.workers,
            cache_bytes=self.cache_bytes,
            device=self.execution.device,
        )
        return train_clip(
            clip, pairs, self.recipe, self.execution, seed=self.seed, on_step=on_step, savepoint=self.state
        )


def _train_on(devices: int, work: _Work, clip: ClipModel, on_step: Callable[[TrainingStep], None]) -> TrainingSummary:
    """Train in one process a device, started as torchrun starts them, and take the weights over.

    The curve comes when the training is over: steps are taken in other processes.

    Raises:
        RuntimeError: A process failed; the message says what it said.
    """
    import torch
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    weights = work.state.path.with_suffix(".weights")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        max_restarts=0,  # Dagster tries again
        run_id=work.state.path.stem,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        monitor_interval=0.5,
    )
    try:
        summary, steps = elastic_launch(config, _on_rank)(work, clip.architecture, weights)[0]
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise RuntimeError(f"the training stopped on device {rank}: {failure.message}") from error
    clip.model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    weights.unlink()
    for step in steps:
        on_step(step)
    return summary  # type: ignore[no-any-return]


def _on_rank(work: _Work, architecture: str, weights: Path) -> tuple[TrainingSummary, list[TrainingStep]] | None:
    """Train in this process on its share of every batch; the first one saves, and returns what was done."""
    import torch
    from torch import distributed

    rank, device = int(os.environ["LOCAL_RANK"]), work.execution.device
    if device.startswith("cuda"):
        device = f"cuda:{rank}"
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // int(os.environ["WORLD_SIZE"])))
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    clip = create_clip(architecture, seed=work.seed)
    steps: list[TrainingStep] = []
    summary = replace(work, execution=replace(work.execution, device=device)).train(clip, steps.append)
    if not rank:
        torch.save(clip.model.state_dict(), weights)
    distributed.destroy_process_group()
    return None if rank else (summary, steps)


def _describe(run: TrackedRun, training: Training, work: _Work) -> None:
    run.log_parameters(
        {
            "architecture": training.architecture,
            "seed": work.seed,
            "pairs": len(work.pairs),
            "recipe_hash": training.recipe_hash,
            **asdict(work.recipe),
            **asdict(work.execution),
        }
    )
    run.log_dataset(*training.dataset)


def _measures(step: TrainingStep) -> dict[str, float]:
    return {
        "loss": step.loss,
        "learning_rate": step.learning_rate,
        "samples_per_second": step.samples_per_second,
    }


def _from_json(text: str) -> TrainedCheckpoint:
    found = json.loads(text)
    return TrainedCheckpoint(
        **{
            **found,
            "weights": SavedWeights(**found["weights"]),
            "steps": tuple(TrainingStep(**step) for step in found["steps"]),
            "summary": TrainingSummary(**found["summary"]),
        }
    )
