"""Images and captions become unit rows, batch by batch.

Named bytes or captions enter; each yielded array belongs to the next `batch_size` of them, so a
caller can write one batch while the rest is still to come.
"""

import io
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from clipcov_assets.core.clip_model import ClipModel, inference

Item = TypeVar("Item")


def encode_images(
    clip: ClipModel, images: Iterable[tuple[str, bytes]], *, device: str, batch_size: int
) -> Iterator[NDArray[np.float32]]:
    """Yield (b, d) unit rows for each batch of named images, in order.

    Raises:
        ValueError: An image cannot be decoded; the message names it.
    """
    for batch in batches(images, batch_size):
        pixels = torch.stack([decode_image(clip, name, data) for name, data in batch]).to(device)
        with inference(clip, device=device) as model:
            rows = unit_rows(model.encode_image(pixels))
        yield rows


def encode_captions(
    clip: ClipModel, captions: Iterable[tuple[str, str]], *, device: str, batch_size: int
) -> Iterator[NDArray[np.float32]]:
    """Yield (b, d) unit rows for each batch of named captions, in order.

    Raises:
        ValueError: A caption is blank; the message names it.
    """
    for batch in batches(captions, batch_size):
        tokens = tokenize(clip, batch).to(device)
        with inference(clip, device=device) as model:
            rows = unit_rows(model.encode_text(tokens))
        yield rows


def decode_image(clip: ClipModel, name: str, data: bytes) -> Tensor:
    """Return the image as the model takes it, (3, h, w) float32.

    Raises:
        ValueError: The bytes are not a whole image; the message holds `name`.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return clip.preprocess(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"image of {name} cannot be decoded ({error}); remove it or deliver it again") from error


def tokenize(clip: ClipModel, captions: Iterable[tuple[str, str]]) -> Tensor:
    """Return the tokens of named captions, (n, context) int64, cut at the model's context.

    Raises:
        ValueError: A caption is blank; the message names it.
    """
    named = list(captions)
    for name, caption in named:
        if not caption.strip():
            raise ValueError(f"caption of {name} is blank; remove the pair or give it a caption")
    return clip.tokenizer([caption for _, caption in named])


def unit_rows(features: Tensor) -> NDArray[np.float32]:
    """Scale features (n, d) to length 1 in float32."""
    return cast(NDArray[np.float32], functional.normalize(features.float(), dim=-1).cpu().numpy())


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` items, the last one possibly shorter.

    Raises:
        ValueError: `size` is not positive.
    """
    if size < 1:
        raise ValueError(f"batch_size is {size}; give at least 1")
    stream = iter(items)
    while batch := list(islice(stream, size)):
        yield batch
