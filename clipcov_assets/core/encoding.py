"""Images and captions become unit rows, in two steps: preparation on any core, then a model on its device.

`Preparation` makes small whole numbers of images and tokens of captions; it holds no weights, so it can be sent to
other processes. `image_rows` and `text_rows` take what it made, a batch at a time; `encode_images` and
`encode_captions` do both.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from typing import TypeVar, cast

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import Compose, Normalize

from clipcov_assets.core.clip_model import ClipModel, inference

Item = TypeVar("Item")
# What Pillow raises for bytes that are no whole image.
UNDECODABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True, eq=False)
class Preparation:
    """What turns pairs into the input of a model.

    Attributes:
        fit: Scales and cuts an RGB image to the model's size.
        tokenizer: Makes (n, context) int64 of n captions.
    """

    fit: Callable[[Image.Image], Image.Image]
    tokenizer: Callable[[list[str]], Tensor]

    def pixels(self, images: Iterable[tuple[str, bytes]]) -> Tensor:
        """Return named images as (b, 3, h, w) uint8, with channels last in memory.

        Raises:
            ValueError: An image cannot be decoded; the message names it.
        """
        decoded = np.stack([np.asarray(self._image(name, data)) for name, data in images])
        return torch.from_numpy(decoded).permute(0, 3, 1, 2)

    def tokens(self, captions: Iterable[tuple[str, str]]) -> Tensor:
        """Return the tokens of named captions, (b, context) int64, cut at the model's context.

        Raises:
            ValueError: A caption is blank; the message names it.
        """
        named = list(captions)
        for name, caption in named:
            if not caption.strip():
                raise ValueError(f"caption of {name} is blank; remove the pair or give it a caption")
        return self.tokenizer([caption for _, caption in named])

    def _image(self, name: str, data: bytes) -> Image.Image:
        try:
            with Image.open(BytesIO(data)) as image:
                return self.fit(upright_rgb(image))
        except UNDECODABLE as error:
            raise ValueError(f"image of {name} cannot be decoded ({error}); remove it or deliver it again") from error


def preparation(clip: ClipModel) -> Preparation:
    """Return the preparation of a model's input: open_clip's own, up to the conversion to floats."""
    *fit, _, _ = _transforms(clip)
    return Preparation(Compose(fit), clip.tokenizer)


def image_size(clip: ClipModel) -> tuple[int, int]:
    """Return height and width of the images that the model takes."""
    height, width = open_clip.transform.to_2tuple(clip.model.visual.image_size)
    return height, width


def normalized(clip: ClipModel, pixels: Tensor) -> Tensor:
    """Return pixels (b, 3, h, w) uint8 as the model takes them, float32: bit for bit what its transform makes."""
    normalize = cast(Normalize, _transforms(clip)[-1])
    mean, std = (
        torch.tensor(values, device=pixels.device)[:, None, None] for values in (normalize.mean, normalize.std)
    )
    return pixels.float().div_(255).sub_(mean).div_(std)


def tokenize(clip: ClipModel, captions: Iterable[tuple[str, str]]) -> Tensor:
    """Return the tokens of named captions, (n, context) int64, cut at the model's context.

    Raises:
        ValueError: A caption is blank; the message names it.
    """
    return preparation(clip).tokens(captions)


def image_rows(clip: ClipModel, pixels: Tensor, *, device: str, precision: str = "float32") -> Tensor:
    """Return the unit rows (b, d) float32, on the device, of images (b, 3, h, w) uint8.

    The image tower is left with channels last, in which convolutions run faster; its weights are the same. A batch
    for which a GPU lacks the memory is halved.

    Args:
        clip: The model.
        pixels: From a `Preparation`, on any device.
        device: Where to compute, such as `cpu` or `cuda`.
        precision: Of the products: `float32`, `bfloat16` or `float16`.
    """
    # Before the inference mode, whose tensors no later training could use.
    clip.model.visual.to(device, memory_format=torch.channels_last)
    with inference(clip, device=device) as model, _products(device, precision):
        return _within_memory(lambda part: unit_rows(model.encode_image(normalized(clip, part.to(device)))), pixels)


def text_rows(clip: ClipModel, tokens: Tensor, *, device: str, precision: str = "float32") -> Tensor:
    """Return the unit rows (b, d) float32, on the device, of captions as tokens (b, context).

    A batch for which a GPU lacks the memory is halved.
    """
    with inference(clip, device=device) as model, _products(device, precision):
        return _within_memory(lambda part: unit_rows(model.encode_text(part.to(device))), tokens)


def encode_images(
    clip: ClipModel, images: Iterable[tuple[str, bytes]], *, device: str, batch_size: int
) -> Iterator[NDArray[np.float32]]:
    """Yield (b, d) unit rows for each batch of named images, in order, computed in float32.

    Raises:
        ValueError: An image cannot be decoded; the message names it.
    """
    prepare = preparation(clip)
    for batch in batches(images, batch_size):
        yield image_rows(clip, prepare.pixels(batch), device=device).cpu().numpy()


def encode_captions(
    clip: ClipModel, captions: Iterable[tuple[str, str]], *, device: str, batch_size: int
) -> Iterator[NDArray[np.float32]]:
    """Yield (b, d) unit rows for each batch of named captions, in order, computed in float32.

    Raises:
        ValueError: A caption is blank; the message names it.
    """
    for batch in batches(captions, batch_size):
        yield text_rows(clip, tokenize(clip, batch), device=device).cpu().numpy()


def unit_rows(features: Tensor) -> Tensor:
    """Scale features (n, d) to length 1 in float32."""
    return functional.normalize(features.float(), dim=-1)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return what a person sees: turned as its EXIF says, 16 bits scaled to 8, transparent parts on white.

    Of an animation it is the first frame.

    Raises:
        OSError, SyntaxError or ValueError: The image is damaged, or of a kind that has no colours.
    """
    image.load()
    with suppress(Exception):  # a damaged EXIF block raises anything, and turns nothing
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):
        # 16 bits; Pillow would cut them off at 255, which leaves white.
        image = Image.fromarray((np.asarray(image).clip(0, 65_535) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        seen = Image.new("RGBA", image.size, "white")
        seen.alpha_composite(image.convert("RGBA"))
        image = seen
    return image.convert("RGB")


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


def _transforms(clip: ClipModel) -> Sequence[Callable]:
    """The steps of the model's transform: scaling and cutting, then to a tensor, then normalization."""
    return cast(Sequence[Callable], cast(Compose, clip.preprocess).transforms)


def _products(device: str, precision: str) -> torch.autocast:
    kind = torch.device(device).type
    return torch.autocast(kind, getattr(torch, precision), enabled=precision != "float32")


def _within_memory(encode: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    try:
        return encode(batch)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    # Outside of the handler, which would hold on to the memory that the failed attempt took.
    torch.cuda.empty_cache()
    return torch.cat([_within_memory(encode, half) for half in batch.tensor_split(2)])
