"""Training of a CLIP with the contrastive loss.

A model, pairs and a recipe enter; the model is trained in place and a summary leaves. The loss,
the towers and the transforms are open_clip's.

Every random number is drawn anew from the seed and the number of the step, and the order of an epoch from the seed
and the number of the epoch: neither a break nor the number of devices or workers changes what is trained on.

Source: Radford et al. 2021, arXiv:2103.00020, section 2.5. Batches larger than memory: Gao et al. 2021,
arXiv:2101.06983, section 3.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from itertools import count, islice
from typing import Any, Protocol, cast

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from clipcov_assets.core.augmentation import Amounts, augment, draw
from clipcov_assets.core.clip_model import ClipModel, seeded
from clipcov_assets.core.encoding import normalized
from clipcov_assets.core.recipe import Execution, Recipe, Schedule

MAXIMAL_LOGIT_SCALE = math.log(100)
PRECISIONS = ("float32", "bfloat16")
# Normalized features of images and captions (b, d), and the logit scale.
Features = tuple[Tensor, Tensor, Tensor]


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
    """A finished training.

    Attributes:
        pairs: Trained on.
        steps: Optimizer steps.
        samples_seen: Pairs over all steps, counting repeats.
        epochs: Samples seen over pairs.
        warmup_share: Warm-up over all steps; from 1 on the training never left it.
        max_learning_rate: The highest of a step.
        last_learning_rate: That of the last step.
        loss: Mean of the last epoch.
        seconds: Over all runs that it took.
        samples_per_second: Samples seen over seconds.
    """

    pairs: int
    steps: int
    samples_seen: int
    epochs: float
    warmup_share: float
    max_learning_rate: float
    last_learning_rate: float
    loss: float
    seconds: float
    samples_per_second: float


class Pairs(Protocol):
    """Pairs as a model takes them, by row."""

    def __len__(self) -> int: ...

    def batches(self, rows: Iterable[NDArray[np.int64]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pixels (b, 3, h, w) uint8 and tokens (b, context) int64 of each batch of rows, in order."""


class Savepoint(Protocol):
    """Keeps the state of a training: tensors, numbers and lists of them, by name."""

    @property
    def every_samples(self) -> int:
        """How often it wants the state; a killed training loses at most these samples."""

    def load(self) -> dict[str, Any] | None:
        """Return the state to go on from; None to begin."""

    def save(self, state: dict[str, Any]) -> None:
        """Keep a state in the place of an earlier one."""


@dataclass(frozen=True)
class Ranks:
    """The processes that train one model together, and which of them this one is."""

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> "Ranks":
        """Those of torch's process group; alone where there is none."""
        if not distributed.is_initialized():
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    def share(self, n: int) -> slice:
        """Which of the n rows of a batch are this process's.

        Raises:
            ValueError: They do not divide evenly.
        """
        if n % self.size:
            raise ValueError(f"a batch of {n} does not divide among {self.size} devices; choose another batch_size")
        part = n // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def average(self, values: Iterable[Tensor]) -> None:
        """Replace tensors by their means over the processes, in place."""
        if self.size > 1:
            for value in values:
                distributed.all_reduce(value)
                value.div_(self.size)


def train_clip(
    clip: ClipModel,
    pairs: Pairs,
    recipe: Recipe,
    execution: Execution,
    *,
    seed: int,
    on_step: Callable[[TrainingStep], None] | None = None,
    savepoint: Savepoint | None = None,
) -> TrainingSummary:
    """Train the model in place and leave it in evaluation mode on the device.

    The same seed on the same data gives the same weights, bit for bit on one CPU with one number of
    threads, also where the training was broken off and went on from a savepoint. In a process group of torch each
    process calls this with all pairs and trains on its share of every batch; the first one's savepoint is kept.

    Args:
        clip: Its model is changed.
        pairs: n pairs.
        recipe: Length, schedule, optimizer and augmentation.
        execution: Device, precision and what saves memory.
        seed: Decides the order of the pairs and every random change; not the initial weights.
        on_step: Called after every step; where a training goes on, first with the steps that it had taken.
        savepoint: Where to go on from, and what keeps the state on the way.

    Raises:
        ValueError: Fewer than two pairs, a batch that does not divide among the devices, or an unknown precision.
        FloatingPointError: A loss is not finite; the message names the step.
    """
    if len(pairs) < 2:
        raise ValueError(f"{len(pairs)} pairs; the contrastive loss needs at least 2")
    ranks, plan = Ranks.here(), Schedule.of(recipe, len(pairs))
    share = ranks.share(plan.batch_size)
    trainer = _Trainer(clip, recipe, execution, ranks)
    with seeded(seed):
        taken, earlier = trainer.restore(savepoint.load() if savepoint else None)
        if on_step is not None:
            for one in taken:
                on_step(one)
        start = began = time.perf_counter()
        rows = islice(batch_rows(len(pairs), plan.batch_size, seed=seed), len(taken), plan.steps)
        for step, batch in enumerate(pairs.batches(some[share] for some in rows), len(taken)):
            _seed_step(seed, step)
            amounts = draw(plan.batch_size, recipe.augmentation)
            loss = trainer.step(batch, amounts and amounts[share], rate=plan.rate(step))
            if not math.isfinite(loss):
                raise FloatingPointError(f"loss is {loss} at step {step}; lower the learning rate or warm up longer")
            now = time.perf_counter()
            speed, began = plan.batch_size / (now - began), now
            taken.append(TrainingStep(step, (step + 1) * plan.batch_size, loss, plan.rate(step), speed))
            if on_step is not None:
                on_step(taken[-1])
            if savepoint and not ranks.rank and _is_due(taken[-1].samples_seen, plan.batch_size, savepoint):
                savepoint.save(trainer.state(taken, earlier + now - start))
    trainer.finish()
    return _summary(plan, len(pairs), taken, earlier + time.perf_counter() - start)


def batch_rows(n: int, batch_size: int, *, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of one batch after another, without end.

    The order of an epoch depends on the seed and the number of the epoch only. A last short batch
    is left out of its epoch; n pairs that do not fill one batch are a single batch of n.
    """
    size = min(batch_size, n)
    for epoch in count():
        order = np.random.default_rng([seed, epoch]).permutation(n)
        yield from order[: n - n % size].reshape(-1, size)


class _Trainer:
    """A model on its device with its optimizer."""

    def __init__(self, clip: ClipModel, recipe: Recipe, execution: Execution, ranks: Ranks) -> None:
        if execution.precision not in PRECISIONS:
            raise ValueError(f"precision of a training is {execution.precision!r}: use one of {', '.join(PRECISIONS)}")
        self._clip, self._recipe, self._execution, self._ranks = clip, recipe, execution, ranks
        # Convolutions run faster with channels last, on CPU and GPU; the weights are the same.
        self._model = clip.model.to(execution.device, memory_format=torch.channels_last).train()
        self._model.set_grad_checkpointing(execution.checkpoint_activations)
        self._forward = torch.compile(self._model) if execution.compile else self._model
        self._loss = open_clip.ClipLoss(local_loss=True, gather_with_grad=True, rank=ranks.rank, world_size=ranks.size)
        self._weights = [weight for weight in self._model.parameters() if weight.requires_grad]
        self._optimizer = _optimizer(self._weights, recipe)

    def step(self, batch: tuple[Tensor, Tensor], amounts: Amounts | None, *, rate: float) -> float:
        """Take one optimizer step at a learning rate; return the loss of the whole batch before it."""
        self._optimizer.zero_grad()
        size = self._execution.micro_batch or len(batch[0])
        parts = [slice(first, first + size) for first in range(0, len(batch[0]), size)]
        inputs = ((batch[0][part], batch[1][part], amounts and amounts[part]) for part in parts)
        loss = self._backward(next(inputs)) if len(parts) == 1 else self._backward_in_parts(list(inputs))
        self._ranks.average([loss, *(weight.grad for weight in self._weights if weight.grad is not None)])
        if self._recipe.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self._weights, self._recipe.gradient_clip)
        value = float(loss)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        with torch.no_grad():
            self._model.logit_scale.clamp_(0, MAXIMAL_LOGIT_SCALE)
        return value

    def _backward(self, part: "_Part") -> Tensor:
        loss = self._loss(*self._features(part))
        loss.backward()
        return cast(Tensor, loss.detach())

    def _backward_in_parts(self, parts: "list[_Part]") -> Tensor:
        """Contrast the whole batch, though only a part of it goes through the model at once.

        The loss depends on the weights through the features alone. So features of all parts come first, without a
        graph; then the gradient of the loss by them; then part by part the features again, now with a graph.
        """
        torch.manual_seed(torch.initial_seed())  # before both passes: random layers draw the same in them
        with torch.no_grad(), _running_statistics_kept(self._model):
            features = [self._features(part) for part in parts]
        image, text = (torch.cat(some).requires_grad_() for some in list(zip(*features, strict=True))[:2])
        loss = self._loss(image, text, self._model.logit_scale.exp())
        loss.backward()
        torch.manual_seed(torch.initial_seed())
        sizes = [len(part[0]) for part in parts]
        gradients = (torch.split(cast(Tensor, leaf.grad), sizes) for leaf in (image, text))
        for part, *gradient in zip(parts, *gradients, strict=True):
            torch.autograd.backward(self._features(part)[:2], gradient)
        return cast(Tensor, loss.detach())

    def _features(self, part: "_Part") -> Features:
        device, precision = self._execution.device, self._execution.precision
        pixels, tokens, amounts = part
        pixels = normalized(self._clip, pixels.to(device, non_blocking=True))
        if amounts is not None:
            pixels = augment(pixels, amounts)
        kind = torch.device(device).type
        with torch.autocast(kind, getattr(torch, precision), enabled=precision != "float32"):
            image, text, scale = self._forward(pixels, tokens.to(device, non_blocking=True))
        return image.float(), text.float(), scale

    def state(self, taken: list[TrainingStep], seconds: float) -> dict[str, Any]:
        """Everything that the steps to come depend on, and the steps that were taken."""
        return {
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "steps": [astuple(step) for step in taken],
            "seconds": seconds,
        }

    def restore(self, state: dict[str, Any] | None) -> tuple[list[TrainingStep], float]:
        """Put a state back; return the steps that led to it, and how many seconds they took."""
        if state is None:
            return [], 0.0
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        return [TrainingStep(*step) for step in state["steps"]], state["seconds"]

    def finish(self) -> None:
        """Leave the model as others use it."""
        self._model.set_grad_checkpointing(False)
        self._model.to(memory_format=torch.contiguous_format).eval()


# Pixels (b, 3, h, w) uint8, tokens (b, context), and how the images are to change.
_Part = tuple[Tensor, Tensor, Amounts | None]


@contextmanager
def _running_statistics_kept(model: nn.Module) -> Iterator[None]:
    """Normalize by the batch as always, but leave what batch normalization remembers as it is."""
    norms = [(norm, norm.momentum) for norm in model.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    for norm, _ in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in norms:
            norm.momentum = momentum


def _seed_step(seed: int, step: int) -> None:
    """Make the random numbers of a step depend on nothing but the seed and its number."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]))


def _is_due(samples_seen: int, size: int, savepoint: Savepoint) -> bool:
    """Whether the last batch went past a multiple of what the savepoint wants."""
    return samples_seen // savepoint.every_samples > (samples_seen - size) // savepoint.every_samples


def _summary(plan: Schedule, pairs: int, taken: list[TrainingStep], seconds: float) -> TrainingSummary:
    an_epoch = pairs // plan.batch_size
    return TrainingSummary(
        pairs=pairs,
        steps=plan.steps,
        samples_seen=plan.samples_seen,
        epochs=plan.samples_seen / pairs,
        warmup_share=plan.warmup_share,
        max_learning_rate=max(one.learning_rate for one in taken),
        last_learning_rate=taken[-1].learning_rate,
        loss=float(np.mean([one.loss for one in taken[-an_epoch:]])),
        seconds=seconds,
        samples_per_second=plan.samples_seen / seconds,
    )


def _optimizer(weights: list[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """Return AdamW in which vectors and scalars (norms, biases, the logit scale) do not decay."""
    groups = [
        {"params": [weight for weight in weights if weight.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, eps=recipe.epsilon, fused=True)
