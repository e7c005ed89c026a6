"""Pairs in, a trained and saved CLIP out, with its curve in MLflow."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pyarrow as pa

from clipcov_assets.core.clip_model import create_clip
from clipcov_assets.core.recipe import Recipe
from clipcov_assets.core.training import TrainingStep, TrainingSummary, train_clip
from clipcov_assets.tables import CURVE
from resources.clip_encoder import ClipEncoder, SavedWeights
from resources.compute import Compute
from resources.mlflow_tracker import MlflowTracker


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
) -> TrainedCheckpoint:
    """Train a fresh model on pairs, save it, and record the run.

    Args:
        name: Of the checkpoint and the MLflow run, such as `clipcov_checkpoint/crawl-1/f10`.
        pairs: Columns caption and image, n rows.
        architecture: open_clip name.
        recipe: How to train.
        seed: Decides the initial weights and the order of the pairs.
        tags: Dagster's asset, partition and run, for MLflow.
        encoder: Saves the weights.
        tracker: Records the run; it is closed FAILED when training fails.
        compute: The device.

    Raises:
        ValueError: Pairs without an image.
    """
    missing = pairs["image"].null_count
    if missing:
        raise ValueError(
            f"{missing} of {len(pairs)} pairs have no image, since their delivery brought embeddings only: export the "
            "subset with `python -m clipcov_assets.export` and train where the images are"
        )
    clip = create_clip(architecture, seed=seed)
    steps: list[TrainingStep] = []
    with tracker.run(name, tags) as run:
        run.log_parameters({"architecture": architecture, "seed": seed, "pairs": len(pairs), **asdict(recipe)})
        summary = train_clip(
            clip,
            ImageColumn(pairs["image"]),
            pairs["caption"].to_pylist(),
            recipe,
            seed=seed,
            device=compute.resolved_device(),
            on_step=steps.append,
        )
        weights = encoder.save(clip, name)
        run.log_curve([(one.samples_seen, _measures(one)) for one in steps])
        run.log_parameters({"weights": weights.path, "weights_sha256": weights.sha256})
        totals = {
            "samples_seen": summary.samples_seen,
            "final_loss": summary.loss,
            "training_seconds": summary.seconds,
        }
        run.log_metrics(totals, step=summary.samples_seen)
    curve = pa.Table.from_pylist([{"samples_seen": one.samples_seen, **_measures(one)} for one in steps], schema=CURVE)
    return TrainedCheckpoint(weights, curve, summary, run.run_id, run.address)


def _measures(step: TrainingStep) -> dict[str, float]:
    return {
        "loss": step.loss,
        "learning_rate": step.learning_rate,
        "samples_per_second": step.samples_per_second,
    }
