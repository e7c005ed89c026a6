"""Training of a CLIP with the contrastive loss.

A model, pairs and a recipe enter; the model is trained in place and a summary leaves. The loss,
the towers and the transforms are open_clip's.

Source: Radford et al. 2021, arXiv:2103.00020, section 2.5; the schedule counts samples, so that
subsets of any size go through all of it.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from itertools import count, islice
from typing import Any, Protocol, cast

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipcov_assets.core.augmentation import augment
from clipcov_assets.core.clip_model import ClipModel, seeded
from clipcov_assets.core.encoding import decode_image, tokenize
from clipcov_assets.core.recipe import Recipe

KEPT_BYTES = 1 << 30
MAXIMAL_LOGIT_SCALE = math.log(100)


@dataclass(frozen=True)
class TrainingStep:
    """What one optimizer step reports; `samples_seen` includes this step's batch."""

    step: int
    samples_seen: int
    loss: float
    learning_rate: float
    samples_per_second: float


@dataclass(frozen=True)
class TrainingSummary:
    """A finished training; `epochs` is samples seen over pairs, `loss` the mean of the last epoch."""

    pairs: int
    steps: int
    samples_seen: int
    epochs: float
    loss: float
    seconds: float
    samples_per_second: float


class Images(Protocol):
    """Anything that holds the bytes of an image at every position."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int, /) -> bytes: ...


class Savepoint(Protocol):
    """Keeps the state of a training: tensors, numbers and lists of them, by name."""

    @property
    def every_samples(self) -> int:
        """How often it wants the state; a killed training loses at most these samples."""

    def load(self) -> dict[str, Any] | None:
        """Return the state to go on from; None to begin."""

    def save(self, state: dict[str, Any]) -> None:
        """Keep a state in the place of an earlier one."""


class PairDataset:
    """Pairs as tensors: tokens (n, context) int64, and pixels (3, h, w) float32 by row.

    Decoded images are kept on the device while all of them take at most 1 GiB, else decoded
    anew for every batch.

    Raises:
        ValueError: Images and captions differ in number, fewer than two pairs, or a pair that
            cannot be read; the message names its row.
    """

    def __init__(self, clip: ClipModel, images: Images, captions: list[str], *, device: str) -> None:
        if len(images) != len(captions):
            raise ValueError(f"{len(images)} images but {len(captions)} captions; give one caption an image")
        if len(captions) < 2:
            raise ValueError(f"{len(captions)} pairs; the contrastive loss needs at least 2")
        self._clip, self._images, self._device = clip, images, device
        named = [(f"pair {row}", caption) for row, caption in enumerate(captions)]
        self._tokens = tokenize(clip, named).to(device)
        self._kept: Tensor | None = None
        if self._pixels(0).nbytes * len(images) <= KEPT_BYTES:
            self._kept = torch.stack([self._pixels(row) for row in range(len(images))]).to(device)

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return pixels (b, 3, h, w) and tokens (b, context) of the rows."""
        selected = torch.from_numpy(rows).to(self._device)
        if self._kept is not None:
            return self._kept[selected], self._tokens[selected]
        pixels = torch.stack([self._pixels(int(row)) for row in rows])
        return pixels.to(self._device), self._tokens[selected]

    def _pixels(self, row: int) -> Tensor:
        return decode_image(self._clip, f"pair {row}", self._images[row])


def train_clip(
    clip: ClipModel,
    images: Images,
    captions: list[str],
    recipe: Recipe,
    *,
    seed: int,
    device: str,
    on_step: Callable[[TrainingStep], None] | None = None,
    savepoint: Savepoint | None = None,
) -> TrainingSummary:
    """Train the model in place and leave it in evaluation mode on `device`.

    The same seed on the same data gives the same weights, bit for bit on one CPU with one number of
    threads, also where the training was broken off and went on from a savepoint.

    Args:
        clip: Its model is changed.
        images: Image bytes (n,).
        captions: Captions (n,), aligned with the images.
        recipe: Length, schedule, optimizer and augmentation.
        seed: Decides the order of the pairs and any random layer; not the initial weights.
        device: Where to train, such as `cpu` or `cuda`.
        on_step: Called after every step; where a training goes on, first with the steps that it had taken.
        savepoint: Where to go on from, and what keeps the state on the way.

    Raises:
        ValueError: See `PairDataset`.
        FloatingPointError: A loss is not finite; the message names the step.
    """
    pairs = PairDataset(clip, images, captions, device=device)
    size = min(recipe.batch_size, len(pairs))
    steps = n_steps(recipe, len(pairs))
    # Convolutions run faster with channels last, on CPU and GPU; the weights are the same.
    model = clip.model.to(device, memory_format=torch.channels_last).train()
    optimizer = _optimizer(model, recipe)
    with seeded(seed):
        taken, earlier = _restore(savepoint.load() if savepoint else None, model, optimizer)
        if on_step is not None:
            for one in taken:
                on_step(one)
        start = time.perf_counter()
        batches = enumerate(batch_rows(len(pairs), size, seed=seed))
        for step, rows in islice(batches, len(taken), steps):
            began = time.perf_counter()
            # The rate of a step is the schedule's at the middle of its samples, so none is zero.
            rate = recipe.learning_rate * schedule((step + 0.5) / steps, warmup=recipe.warmup_fraction)
            pixels, tokens = pairs.batch(rows)
            batch = augment(pixels, recipe.augmentation), tokens
            loss = _step(model, optimizer, batch, step=step, rate=rate)
            speed = size / (time.perf_counter() - began)
            taken.append(TrainingStep(step, (step + 1) * size, loss, rate, speed))
            if on_step is not None:
                on_step(taken[-1])
            if savepoint is not None and _is_due(taken[-1].samples_seen, size, savepoint.every_samples):
                savepoint.save(_state(model, optimizer, taken, earlier + time.perf_counter() - start))
    model.to(memory_format=torch.contiguous_format).eval()
    seconds = earlier + time.perf_counter() - start
    return TrainingSummary(
        pairs=len(pairs),
        steps=steps,
        samples_seen=steps * size,
        epochs=steps * size / len(pairs),
        loss=float(np.mean([one.loss for one in taken[-(len(pairs) // size) :]])),
        seconds=seconds,
        samples_per_second=steps * size / seconds,
    )


def n_steps(recipe: Recipe, n: int) -> int:
    """Return the optimizer steps of a training on n pairs; samples_seen is rounded up to whole batches."""
    size = min(recipe.batch_size, n)
    if recipe.samples_seen is not None:
        return math.ceil(recipe.samples_seen / size)
    return cast(int, recipe.epochs) * (n // size)


def schedule(progress: float, *, warmup: float) -> float:
    """Return the share of the learning rate at a share of the samples: linear to 1, then cosine to 0."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def batch_rows(n: int, batch_size: int, *, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of one batch after another, without end.

    The order of an epoch depends on the seed and the number of the epoch only. A last short batch
    is left out of its epoch; n pairs that do not fill one batch are a single batch of n.
    """
    size = min(batch_size, n)
    for epoch in count():
        order = np.random.default_rng([seed, epoch]).permutation(n)
        yield from order[: n - n % size].reshape(-1, size)


def _step(
    model: open_clip.CLIP,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor],
    *,
    step: int,
    rate: float,
) -> float:
    """Take one optimizer step at the learning rate and return the loss before it."""
    loss = open_clip.ClipLoss()(*model(*batch))
    value = float(loss.detach())
    if not math.isfinite(value):
        raise FloatingPointError(f"loss is {value} at step {step}; lower the learning rate or lengthen the warm-up")
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(0, MAXIMAL_LOGIT_SCALE)
    return value


def _is_due(samples_seen: int, size: int, every_samples: int) -> bool:
    """Whether the last batch went past a multiple of `every_samples`."""
    return samples_seen // every_samples > (samples_seen - size) // every_samples


def _state(
    model: open_clip.CLIP, optimizer: torch.optim.Optimizer, taken: list[TrainingStep], seconds: float
) -> dict[str, Any]:
    """Everything that the steps to come depend on, and the steps that were taken."""
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": [torch.get_rng_state(), *torch.cuda.get_rng_state_all()],
        "steps": [astuple(step) for step in taken],
        "seconds": seconds,
    }


def _restore(
    state: dict[str, Any] | None, model: open_clip.CLIP, optimizer: torch.optim.Optimizer
) -> tuple[list[TrainingStep], float]:
    """Put a state back; return the steps that led to it, and how many seconds they took."""
    if state is None:
        return [], 0.0
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"][0])
    torch.cuda.set_rng_state_all(state["random"][1:])
    return [TrainingStep(*step) for step in state["steps"]], state["seconds"]


def _optimizer(model: open_clip.CLIP, recipe: Recipe) -> torch.optim.Optimizer:
    """Return AdamW in which vectors and scalars (norms, biases, the logit scale) do not decay."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, eps=recipe.epsilon, fused=True)
