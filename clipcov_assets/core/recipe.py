"""How a CLIP is trained, as plain values: no torch here, so that settings load fast."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from typing import cast


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far training images may change; the default leaves them as they are.

    Attributes:
        flip: Probability of a mirror image.
        shift: Largest move to each side, as a share of the side.
        zoom: Largest change of scale, as a share of it.
        color: Largest change of a channel's gain, and of its offset in standard deviations.
        gray: Probability that all channels are replaced by their mean.
    """

    flip: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    color: float = 0.0
    gray: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train: AdamW, a linear warm-up and a cosine to zero.

    The length is given in epochs, so that a small subset gets little compute (the paper), or in samples seen, which
    is then the same for every subset (DataComp).

    Attributes:
        batch_size: Pairs a step, over all devices; each is contrasted with all the others.
        learning_rate: At the end of the warm-up.
        epochs: Passes over the pairs, or None.
        samples_seen: Pairs over all steps, rounded up to whole batches, or None.
        warmup_fraction: Share of all samples, so that a training of any length leaves it.
        warmup_steps: Takes the place of the share where given; a short training may never leave it.
        first_epoch: Number of the first epoch for the schedule: CyCLIP counts from 1, so it runs an epoch ahead, and
            past its end.
        weight_decay: Of matrices; norms, biases and the logit scale do not decay.
        gradient_clip: Largest norm of the gradient; None leaves it as it is.

    Raises:
        ValueError: Both or neither of `epochs` and `samples_seen`, or a value out of range.
    """

    batch_size: int
    learning_rate: float
    epochs: int | None = None
    samples_seen: int | None = None
    warmup_fraction: float = 0.1
    warmup_steps: int | None = None
    first_epoch: int = 0
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-6
    gradient_clip: float | None = None
    augmentation: Augmentation = Augmentation()

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.samples_seen is None):
            raise ValueError("a recipe has either epochs or samples_seen; set one and leave the other None")
        if self.batch_size < 2:
            raise ValueError(f"batch_size is {self.batch_size}; the contrastive loss needs at least 2")
        for name in ("learning_rate", "epochs", "samples_seen", "warmup_steps", "gradient_clip"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value}; give a positive number")
        if not 0 <= self.warmup_fraction < 1:
            raise ValueError(f"warmup_fraction is {self.warmup_fraction}; give a share in [0, 1)")

    @property
    def hash(self) -> str:
        """Equal for equal recipes, across machines and versions of Python."""
        return hashlib.blake2b(json.dumps(asdict(self), sort_keys=True).encode(), digest_size=6).hexdigest()

    def within(self, budget: str) -> "Recipe":
        """Return the recipe with another length: `epochs:30`, or `samples:12800000`.

        Raises:
            ValueError: Another text; the message says what is understood.
        """
        kind, _, number = budget.partition(":")
        if number.isdecimal() and kind == "epochs":
            return replace(self, epochs=int(number), samples_seen=None)
        if number.isdecimal() and kind == "samples":
            return replace(self, epochs=None, samples_seen=int(number))
        raise ValueError(f"budget {budget!r} is not understood: write epochs:30 or samples:12800000")


@dataclass(frozen=True)
class Schedule:
    """The course of a training on n pairs.

    Attributes:
        batch_size: Pairs a step; n where there are fewer than the recipe's batch.
        steps: Optimizer steps.
        warmup: Steps of the linear warm-up, a share of one included.
        start: Where on the schedule the first step is: the middle of its samples, so that no rate is zero.
        peak: Learning rate at the end of the warm-up.
    """

    batch_size: int
    steps: int
    warmup: float
    start: float
    peak: float

    @classmethod
    def of(cls, recipe: Recipe, pairs: int) -> "Schedule":
        """Lay out a recipe for so many pairs; samples seen are rounded up to whole batches, short epochs cut off."""
        size = min(recipe.batch_size, pairs)
        an_epoch = pairs // size
        if recipe.samples_seen is not None:
            steps = math.ceil(recipe.samples_seen / size)
        else:
            steps = cast(int, recipe.epochs) * an_epoch
        warmup = recipe.warmup_fraction * steps if recipe.warmup_steps is None else recipe.warmup_steps
        start = recipe.first_epoch * an_epoch or 0.5
        return cls(size, steps, warmup, start, recipe.learning_rate)

    @property
    def samples_seen(self) -> int:
        """Pairs over all steps, counting repeats."""
        return self.steps * self.batch_size

    @property
    def warmup_share(self) -> float:
        """Warm-up over all steps; from 1 on the training never leaves it."""
        return self.warmup / self.steps

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear to the peak, then a cosine that reaches 0 after all steps."""
        place = self.start + step
        if place < self.warmup:
            return self.peak * place / self.warmup
        return self.peak * 0.5 * (1 + math.cos(math.pi * (place - self.warmup) / (self.steps - self.warmup)))


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a machine does the arithmetic of a training: speed and memory, and of the result only its rounding.

    One thing else depends on it: batch normalization (ResNets) sees a micro-batch of one device at a time.

    Attributes:
        device: Such as `cpu`, `cuda` or `cuda:1`.
        precision: Of the products: `float32` or `bfloat16`; weights and loss stay in float32.
        micro_batch: Pairs that go through the model at once on one device; None takes the whole batch.
        checkpoint_activations: Compute activations again on the way back instead of keeping them.
        compile: Let torch.compile fuse the model; pays for long trainings.
    """

    device: str = "cpu"
    precision: str = "float32"
    micro_batch: int | None = None
    checkpoint_activations: bool = False
    compile: bool = False
