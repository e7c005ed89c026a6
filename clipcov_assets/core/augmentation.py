"""Random changes to a batch of images that keep what they show.

Normalized pixels enter and leave on their device; each image draws its own amounts. open_clip's
augmentation works on one decoded image at a time, which costs more than training a small model.
"""

import torch
from torch import Tensor
from torch.nn import functional

from clipcov_assets.core.recipe import Augmentation


def augment(pixels: Tensor, augmentation: Augmentation) -> Tensor:
    """Return changed copies of the images (b, 3, h, w), drawn from torch's generator."""
    if augmentation == Augmentation():
        return pixels
    return _recolor(_move(pixels, augmentation), augmentation)


def _move(pixels: Tensor, augmentation: Augmentation) -> Tensor:
    """Mirror, scale and shift; the border's colour fills what comes into view."""
    n, device = len(pixels), pixels.device
    scale = 1 + augmentation.zoom * _signed(n, device=device)
    mirror = 1 - 2 * (torch.rand(n, device=device) < augmentation.flip).float()
    # Grid coordinates run from -1 to 1, so a share of the side is twice as long in them.
    shift = 2 * augmentation.shift * _signed(n, 2, device=device)
    zero = torch.zeros_like(scale)
    rows = torch.stack([scale * mirror, zero, zero, scale], dim=1).reshape(n, 2, 2)
    grid = functional.affine_grid(torch.cat([rows, shift[:, :, None]], dim=2), list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def _recolor(pixels: Tensor, augmentation: Augmentation) -> Tensor:
    n, channels, device = *pixels.shape[:2], pixels.device
    gain = 1 + augmentation.color * _signed(n, channels, 1, 1, device=device)
    offset = augmentation.color * _signed(n, channels, 1, 1, device=device)
    changed = pixels * gain + offset
    gray = torch.rand(n, 1, 1, 1, device=device) < augmentation.gray
    return torch.where(gray, changed.mean(dim=1, keepdim=True), changed)


def _signed(*shape: int, device: torch.device) -> Tensor:
    """Draw uniformly from [-1, 1)."""
    return 2 * torch.rand(*shape, device=device) - 1
