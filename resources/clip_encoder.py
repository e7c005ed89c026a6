"""CLIP models on disk, at an address and by name: loaded for use, saved with their sha256."""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from resources.mirror import Address, is_address
from resources.pieces import disk_of

if TYPE_CHECKING:
    from clipcov_assets.core.clip_model import ClipModel

SETTING = "CLIPCOV_CHECKPOINTS"
WEIGHTS = "weights.pt"
MOST_CACHED = 10


@dataclass(frozen=True)
class SavedWeights:
    """Saved weights: their path or address, and the hash of their content."""

    path: str
    sha256: str


class ClipEncoder(dg.ConfigurableResource):
    """Creates, saves and loads CLIP models."""

    directory: str = Field(
        description="Directory of the checkpoints that this project trains, or its address, such as s3://bucket/models."
    )
    cache: str = Field(
        default=str(Path(tempfile.gettempdir(), "clipcov-checkpoints")),
        description=f"Directory of this machine for checkpoints from an address; the last {MOST_CACHED} stay.",
    )

    def load(self, architecture: str, weights: str) -> "ClipModel":
        """Load a model with the weights of an open_clip tag, or of a checkpoint at a path or an address.

        Raises:
            ValueError: Unknown architecture, unknown tag, or a checkpoint of another architecture.
            FileNotFoundError: `weights` looks like a path or an address and nothing is there.
            UnreadableAddressError: The address cannot be read.
            FullDiskError: There is no room for a copy from the address.
        """
        from clipcov_assets.core.clip_model import create_clip

        if is_address(weights):
            weights = str(self._copy_of(weights))
        elif os.sep in weights and not Path(weights).is_file():
            raise _absent(weights)
        return create_clip(architecture, seed=0, pretrained=weights)

    def path(self, name: str) -> str:
        """Where the weights of a checkpoint such as `clipcov_checkpoint/crawl-1/f10/seed-0` are kept."""
        if is_address(self.directory):
            return f"{self._place.plain}/{name}/{WEIGHTS}"
        return str(Path(self.directory) / name / WEIGHTS)

    def save(self, clip: "ClipModel", name: str) -> SavedWeights:
        """Write the weights of a checkpoint, whole or not at all.

        Raises:
            UnreadableAddressError: The address cannot be written.
            FullDiskError: There is no room.
        """
        import torch

        from clipcov_assets.core.clip_model import weights_sha256

        if is_address(self.directory):
            unfinished = Path(self.cache) / f"{_digest(self.path(name))}.unfinished"
        else:
            unfinished = Path(self.path(name)).with_suffix(".unfinished")  # beside its place: it is only renamed
        with disk_of(unfinished.parent):
            unfinished.parent.mkdir(parents=True, exist_ok=True)
            torch.save(clip.model.state_dict(), unfinished)
        self._place.below(name).put(WEIGHTS, unfinished)
        return SavedWeights(self.path(name), weights_sha256(clip.model))

    def keep_seeds(self, name: str, seeds: Collection[int]) -> None:
        """Remove the weights that a checkpoint such as `clipcov_checkpoint/crawl-1/f10` had with other seeds."""
        checkpoint = self._place.below(name)
        for folder in checkpoint.names():
            if folder.startswith("seed-") and folder not in {f"seed-{seed}" for seed in seeds}:
                checkpoint.below(folder).clear()

    @property
    def _place(self) -> Address:
        return Address.at(self.directory, SETTING)

    def _copy_of(self, weights: str) -> Path:
        """The copy of a checkpoint on this machine, which is made where there is none of its present version.

        A copy is replaced, never changed, so whoever reads it has a whole version, also while another process copies.
        """
        own = f"{self._place.plain}/"
        if is_address(self.directory) and weights.startswith(own):  # what else the directory's address says holds here
            folder, name = self._place, weights.removeprefix(own)
        else:
            address, _, name = weights.rpartition("/")
            folder = Address.of(address, SETTING)
        cache = Path(self.cache)
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        copy = cache / _digest(f"{folder.plain}/{name}")
        with copy.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # while another process copies, this one waits
            stamp, present = copy.with_suffix(".stamp"), folder.stamp(name)
            if present is None:
                raise _absent(f"{folder.plain}/{name}")
            target = copy.with_suffix(".pt")
            if not target.exists() or not stamp.exists() or stamp.read_text() != present:
                stamp.unlink(missing_ok=True)
                folder.get(name, target)
                stamp.write_text(present)
            os.utime(stamp)  # it was wanted now
        _forget(cache)
        return target


def _absent(weights: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"no checkpoint at {weights}: give the path or address of a weights file, or an open_clip tag"
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _forget(cache: Path) -> None:
    """Remove the copies that were not wanted for the longest time."""
    stamps = sorted(cache.glob("*.stamp"), key=_last_wanted)
    for stamp in stamps[:-MOST_CACHED]:
        for path in (stamp, stamp.with_suffix(".pt")):
            path.unlink(missing_ok=True)


def _last_wanted(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:  # another process has just forgotten it
        return 0
