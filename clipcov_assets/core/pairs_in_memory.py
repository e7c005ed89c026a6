"""Pairs that are decoded once and then stay in memory, as a training reads them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipcov_assets.core.clip_model import ClipModel
from clipcov_assets.core.encoding import preparation


@dataclass(frozen=True, eq=False)
class PairsInMemory:
    """Decoded pairs.

    Attributes:
        pixels: (n, 3, h, w) uint8.
        tokens: (n, context) int64.
    """

    pixels: Tensor
    tokens: Tensor

    @classmethod
    def of(cls, clip: ClipModel, images: Sequence[bytes], captions: Sequence[str]) -> "PairsInMemory":
        """Decode encoded images and tokenise their captions, as a model takes them.

        Raises:
            ValueError: Images and captions differ in number, or a pair cannot be read; the message names its row.
        """
        if len(images) != len(captions):
            raise ValueError(f"{len(images)} images but {len(captions)} captions; give one caption an image")
        prepare = preparation(clip)
        names = [f"pair {row}" for row in range(len(images))]
        return cls(
            prepare.pixels(zip(names, images, strict=True)), prepare.tokens(list(zip(names, captions, strict=True)))
        )

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: str) -> "PairsInMemory":
        """Return the pairs on a device, so that batches need not be moved there."""
        return PairsInMemory(self.pixels.to(device), self.tokens.to(device))

    def batches(self, rows: Iterable[NDArray[np.int64]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pixels (b, 3, h, w) and tokens (b, context) of each batch of rows."""
        for batch in rows:
            selected = torch.from_numpy(batch).to(self.pixels.device)
            yield self.pixels[selected], self.tokens[selected]
