"""Random changes to a batch of images that keep what they show.

Normalized pixels enter and leave on their device; each image draws its own amounts. open_clip's
augmentation works on one decoded image at a time, which costs more than training a small model.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from clipcov_assets.core.recipe import Augmentation

CHANNELS = 3


@dataclass(frozen=True, eq=False)
class Amounts:
    """By how much each of n images is changed.

    Attributes:
        scale: (n,), 1 leaves it.
        mirror: (n,), -1 for a mirror image.
        shift: (n, 2), in grid coordinates, in which a side is 2 long.
        gain: (n, 3, 1, 1), 1 leaves it.
        offset: (n, 3, 1, 1).
        gray: (n, 1, 1, 1) whether the colours go.
    """

    scale: Tensor
    mirror: Tensor
    shift: Tensor
    gain: Tensor
    offset: Tensor
    gray: Tensor

    def __getitem__(self, rows: slice) -> "Amounts":
        """Return the amounts of some of the images."""
        return self._each(lambda amount: amount[rows])

    def to(self, device: torch.device) -> "Amounts":
        """Return the amounts on a device."""
        return self._each(lambda amount: amount.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Amounts":
        return Amounts(*map(change, (self.scale, self.mirror, self.shift, self.gain, self.offset, self.gray)))


def draw(n: int, augmentation: Augmentation) -> Amounts | None:
    """Draw the amounts for n images from torch's generator on the CPU; None where nothing is to change.

    They are the same whatever device the images are on, and however a batch is divided.
    """
    if augmentation == Augmentation():
        return None
    return Amounts(
        scale=1 + augmentation.zoom * _signed(n),
        mirror=1 - 2 * (torch.rand(n) < augmentation.flip).float(),
        shift=2 * augmentation.shift * _signed(n, 2),
        gain=1 + augmentation.color * _signed(n, CHANNELS, 1, 1),
        offset=augmentation.color * _signed(n, CHANNELS, 1, 1),
        gray=torch.rand(n, 1, 1, 1) < augmentation.gray,
    )


def augment(pixels: Tensor, amounts: Amounts) -> Tensor:
    """Return changed copies of the images (n, 3, h, w): moved, with the border's colour filling, and recoloured."""
    amounts = amounts.to(pixels.device)
    return _recolor(_move(pixels, amounts), amounts)


def _move(pixels: Tensor, amounts: Amounts) -> Tensor:
    scale, zero = amounts.scale, torch.zeros_like(amounts.scale)
    rows = torch.stack([scale * amounts.mirror, zero, zero, scale], dim=1).reshape(-1, 2, 2)
    places = torch.cat([rows, amounts.shift[:, :, None]], dim=2)
    grid = functional.affine_grid(places, list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def _recolor(pixels: Tensor, amounts: Amounts) -> Tensor:
    changed = pixels * amounts.gain + amounts.offset
    return torch.where(amounts.gray, changed.mean(dim=1, keepdim=True), changed)


def _signed(*shape: int) -> Tensor:
    """Draw uniformly from [-1, 1)."""
    return 2 * torch.rand(*shape) - 1
