"""How a CLIP is trained, as plain values: no torch here, so that settings load fast."""

from dataclasses import dataclass


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

    The length is given in epochs, or in samples seen, which is then the same for every subset.

    Attributes:
        batch_size: Pairs a step; each is contrasted with all the others.
        learning_rate: At the end of the warm-up.
        epochs: Passes over the pairs, or None.
        samples_seen: Pairs over all steps, rounded up to whole batches, or None.
        warmup_fraction: Share of all samples.
        weight_decay: Of matrices; norms, biases and the logit scale do not decay.

    Raises:
        ValueError: Both or neither of `epochs` and `samples_seen`, or a value out of range.
    """

    batch_size: int
    learning_rate: float
    epochs: int | None = None
    samples_seen: int | None = None
    warmup_fraction: float = 0.1
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-6
    augmentation: Augmentation = Augmentation()

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.samples_seen is None):
            raise ValueError("a recipe has either epochs or samples_seen; set one and leave the other None")
        if self.batch_size < 2:
            raise ValueError(f"batch_size is {self.batch_size}; the contrastive loss needs at least 2")
        for name in ("learning_rate", "epochs", "samples_seen"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value}; give a positive number")
        if not 0 <= self.warmup_fraction < 1:
            raise ValueError(f"warmup_fraction is {self.warmup_fraction}; give a share in [0, 1)")
