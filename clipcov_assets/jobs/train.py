"""Pairs in, a trained and saved CLIP out, with its curve in MLflow; a training that was killed goes on."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clipcov_assets.core.clip_model import create_clip
from clipcov_assets.core.recipe import Recipe
from clipcov_assets.core.training import TrainingStep, TrainingSummary, train_clip
from clipcov_assets.provenance import content_version
from clipcov_assets.tables import CURVE
from resources.clip_encoder import ClipEncoder, SavedWeights
from resources.compute import Compute
from resources.mlflow_tracker import MlflowTracker, TrackedRun
from resources.pieces import disk_of
from resources.staging import Staging


@dataclass(frozen=True)
class TrainedCheckpoint:
    """What a training left: weights, curve, summary and the MLflow run that shows them."""

    weights: SavedWeights
    curve: pa.Table
    summary: TrainingSummary
    mlflow_run_id: str
    mlflow_address: str


class ImageColumn:
    """The image bytes of a table, by row."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, row: int, /) -> bytes:
        return bytes(self._column[row].as_py())


@dataclass(frozen=True)
class StateFile:
    """The newest state of one training, in a file.

    Attributes:
        path: Where it is kept.
        every_samples: Samples between two states.
    """

    path: Path
    every_samples: int

    def load(self) -> dict[str, Any] | None:
        """Return the state, None where there is none."""
        import torch

        if not self.path.exists():
            return None
        state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Keep a state in the place of the earlier one, whole or not at all."""
        import torch

        unfinished = self.path.with_suffix(".unfinished")
        with disk_of(self.path):
            torch.save(state, unfinished)
            unfinished.replace(self.path)


def train_checkpoint(
    name: str,
    pairs: pa.Table,
    architecture: str,
    recipe: Recipe,
    *,
    seed: int,
    tags: Mapping[str, str],
    encoder: ClipEncoder,
    tracker: MlflowTracker,
    compute: Compute,
    staging: Staging,
) -> TrainedCheckpoint:
    """Train a fresh model on pairs, save it, and record the run; go on with an equal training that was broken off.

    Args:
        name: Of the checkpoint and the MLflow run, such as `clipcov_checkpoint/crawl-1/f10`.
        pairs: Columns caption and image, n rows.
        architecture: open_clip name.
        recipe: How to train.
        seed: Decides the initial weights and the order of the pairs.
        tags: Dagster's asset, partition and run, for MLflow.
        encoder: Saves the weights.
        tracker: Records the run; it is closed FAILED when training fails.
        compute: The device, and how often the state is saved.
        staging: Keeps the state until the training is finished.

    Raises:
        ValueError: Pairs without an image.
        InUseError: Another run trains this checkpoint.
    """
    missing = pairs["image"].null_count
    if missing:
        raise ValueError(
            f"{missing} of {len(pairs)} pairs have no image, since their delivery brought embeddings only: export the "
            "subset with `python -m clipcov_assets.export` and train where the images are"
        )
    device = compute.resolved_device()
    clip = create_clip(architecture, seed=seed)
    steps: list[TrainingStep] = []
    asset, _, partition = name.partition("/")
    with staging.pieces(asset, partition.replace("/", ".") or "all") as pieces:
        kept = pieces.directory / _identity(pairs, architecture, recipe, seed, device)
        _abandon_others(pieces.directory, kept, tracker)
        with tracker.run(name, tags, earlier=_text(kept.with_suffix(".mlflow"))) as run:
            kept.with_suffix(".mlflow").write_text(run.run_id)
            run.log_parameters({"architecture": architecture, "seed": seed, "pairs": len(pairs), **asdict(recipe)})
            summary = train_clip(
                clip,
                ImageColumn(pairs["image"]),
                pairs["caption"].to_pylist(),
                recipe,
                seed=seed,
                device=device,
                on_step=steps.append,
                savepoint=StateFile(kept.with_suffix(".state"), compute.savepoint_samples),
            )
            weights = encoder.save(clip, name)
            _record(run, weights, summary, steps)
    curve = pa.Table.from_pylist([{"samples_seen": one.samples_seen, **_measures(one)} for one in steps], schema=CURVE)
    return TrainedCheckpoint(weights, curve, summary, run.run_id, run.address)


def _identity(pairs: pa.Table, architecture: str, recipe: Recipe, seed: int, device: str) -> str:
    """Digest of all that the weights depend on: a state belongs to one training."""
    sizes = pa.table({"caption": pairs["caption"], "bytes": pc.binary_length(pairs["image"])})
    parts = (architecture, recipe, seed, device, content_version(sizes))
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def _abandon_others(directory: Path, kept: Path, tracker: MlflowTracker) -> None:
    """Remove what other trainings of this checkpoint left when they were broken off."""
    for path in directory.iterdir():
        if path.stem != kept.name:
            if path.suffix == ".mlflow":
                tracker.abandon(path.read_text())
            path.unlink()


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def _record(run: TrackedRun, weights: SavedWeights, summary: TrainingSummary, steps: list[TrainingStep]) -> None:
    run.log_curve([(one.samples_seen, _measures(one)) for one in steps])
    run.log_parameters({"weights": weights.path, "weights_sha256": weights.sha256})
    totals = {"samples_seen": summary.samples_seen, "final_loss": summary.loss, "training_seconds": summary.seconds}
    run.log_metrics(totals, step=summary.samples_seen)


def _measures(step: TrainingStep) -> dict[str, float]:
    return {
        "loss": step.loss,
        "learning_rate": step.learning_rate,
        "samples_per_second": step.samples_per_second,
    }
