"""CLIP models on disk and by name: loaded for use, saved with their sha256."""

import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

if TYPE_CHECKING:
    from clipcov_assets.core.clip_model import ClipModel


@dataclass(frozen=True)
class SavedWeights:
    """Weights on disk: where, and the hash of their content."""

    path: str
    sha256: str


class ClipEncoder(dg.ConfigurableResource):
    """Creates, saves and loads CLIP models."""

    directory: str = Field(description="Directory of the checkpoints that this project trains.")

    def load(self, architecture: str, weights: str) -> "ClipModel":
        """Load a model with the weights of an open_clip tag or of a local checkpoint.

        Raises:
            ValueError: Unknown architecture, unknown tag, or a checkpoint of another architecture.
            FileNotFoundError: `weights` looks like a path and nothing is there.
        """
        from clipcov_assets.core.clip_model import create_clip

        if os.sep in weights and not Path(weights).is_file():
            raise FileNotFoundError(f"no checkpoint at {weights}: give the path of a weights file, or an open_clip tag")
        return create_clip(architecture, seed=0, pretrained=weights)

    def path(self, name: str) -> str:
        """Where the weights of a checkpoint such as `clipcov_checkpoint/crawl-1/f10/seed-0` are kept."""
        return str(Path(self.directory) / name / "weights.pt")

    def save(self, clip: "ClipModel", name: str) -> SavedWeights:
        """Write the weights of a checkpoint, whole or not at all."""
        import torch

        from clipcov_assets.core.clip_model import weights_sha256

        path = Path(self.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        torch.save(clip.model.state_dict(), unfinished)
        unfinished.replace(path)
        return SavedWeights(str(path), weights_sha256(clip.model))

    def keep_seeds(self, name: str, seeds: Collection[int]) -> None:
        """Remove the weights that a checkpoint such as `clipcov_checkpoint/crawl-1/f10` had with other seeds."""
        for folder in (Path(self.directory) / name).glob("seed-*"):
            if folder.name not in {f"seed-{seed}" for seed in seeds}:
                shutil.rmtree(folder)
