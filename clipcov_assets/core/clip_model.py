"""A CLIP model with all that belongs to it: weights, image transform, tokenizer.

An architecture's name and a seed enter, a `ClipModel` leaves; open_clip builds every part.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pickle import UnpicklingError

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor, nn

open_clip.add_model_config(str(files("clipcov_assets.core") / "architectures"))


@dataclass(frozen=True, eq=False)
class ClipModel:
    """One CLIP and what turns pairs into its input.

    `preprocess` makes (3, h, w) float32 of an image, `tokenizer` (n, context) int64 of n captions.
    """

    architecture: str
    model: open_clip.CLIP
    preprocess: Callable[[Image.Image], Tensor]
    tokenizer: Callable[[list[str]], Tensor]


def create_clip(architecture: str, *, seed: int, pretrained: str | None = None) -> ClipModel:
    """Build a CLIP on the CPU; equal seeds give equal weights, whatever ran before.

    Args:
        architecture: A name that open_clip knows; this package adds those in `core/architectures`.
        seed: Seed of the random weights.
        pretrained: An open_clip tag or the path of a weights file, read instead of random weights.

    Raises:
        ValueError: The architecture, or the pretrained tag or file, is unknown.
    """
    if open_clip.get_model_config(architecture) is None:
        raise ValueError(f"no architecture {architecture!r}; {_known_architectures()}")
    with seeded(seed), _without_random_weights_warning():
        try:
            model = open_clip.create_model(architecture, pretrained)
        except (RuntimeError, AssertionError, UnpicklingError) as error:  # open_clip unpickles weights and nothing else
            raise ValueError(f"cannot build {architecture!r} from {pretrained!r}: {error}") from error
    preprocess = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    return ClipModel(architecture, model.eval(), preprocess, open_clip.get_tokenizer(architecture))


def weights_sha256(model: nn.Module) -> str:
    """Hash the weights by content: sorted names, types, shapes and bytes; the device does not matter."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(weight.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's random numbers inside the block and put their state back afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


@contextmanager
def inference(clip: ClipModel, *, device: str) -> Iterator[open_clip.CLIP]:
    """Lend the model on `device`, in evaluation mode and without gradients; its mode is restored."""
    model, was_training = clip.model.to(device), clip.model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield model
    finally:
        model.train(was_training)


def _known_architectures() -> str:
    own = sorted(path.name.removesuffix(".json") for path in (files("clipcov_assets.core") / "architectures").iterdir())
    return f"take {', '.join([*own, 'RN50-quickgelu', 'ViT-B-32'])} or another of open_clip.list_models()"


@contextmanager
def _without_random_weights_warning() -> Iterator[None]:
    # Random weights are asked for here; open_clip warns of them through the root logger.
    def is_news(record: logging.LogRecord) -> bool:
        return "initialized randomly" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(is_news)
    try:
        yield
    finally:
        root.removeFilter(is_news)
