"""Zero-shot evaluation of a CLIP, image by image.

A model, labelled images and prompts enter; one prediction per image leaves, and a failure is raised.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipcov_assets.core.clip_model import ClipModel
from clipcov_assets.core.encoding import batches, encode_images
from clipcov_assets.core.prompts import Prompts
from clipcov_assets.core.zero_shot import class_embeddings, cosines


@dataclass(frozen=True, eq=False)
class Predictions:
    """Aligned columns, one row an image; `rank_of_label` counts the classes ahead of the true one."""

    key: tuple[str, ...]
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    rank_of_label: NDArray[np.int64]


def evaluate(
    clip: ClipModel,
    images: Iterable[tuple[str, bytes, int]],
    prompts: Prompts,
    *,
    device: str,
    batch_size: int,
) -> Predictions:
    """Classify each image (key, bytes, label) among the classes of the prompts.

    Raises:
        ValueError: No image, an image that cannot be decoded, or a label that has no class name;
            the message names the image.
        FloatingPointError: The model's class embeddings are not finite.
    """
    classes = class_embeddings(clip, prompts, device=device)
    keys: list[str] = []
    columns: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []
    for batch in batches(images, batch_size):
        keys += [key for key, _, _ in batch]
        label = _labels(batch, len(prompts.class_names))
        named = [(key, data) for key, data, _ in batch]
        (embeddings,) = encode_images(clip, named, device=device, batch_size=len(named))
        similarity = cosines(embeddings, classes)
        columns.append((label, similarity.argmax(axis=1), rank_of_label(similarity, label)))
    if not keys:
        raise ValueError("no image to evaluate; an evaluation set needs at least one")
    label, predicted, rank = (np.concatenate(column) for column in zip(*columns, strict=True))
    return Predictions(tuple(keys), label, predicted, rank)


def rank_of_label(similarity: NDArray[np.floating], label: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the classes ahead of the true one in similarities (n, K); ties go to the smaller class.

    Rank 0 is a hit, and holds exactly where the true class is the prediction.
    """
    own = np.take_along_axis(similarity, label[:, None], axis=1)
    tied_before = (similarity == own) & (np.arange(similarity.shape[1]) < label[:, None])
    ahead: NDArray[np.int64] = ((similarity > own) | tied_before).sum(axis=1)
    return ahead


def _labels(batch: list[tuple[str, bytes, int]], n_classes: int) -> NDArray[np.int64]:
    for key, _, label in batch:
        if not 0 <= label < n_classes:
            raise ValueError(f"image {key} has label {label}, but the prompts name {n_classes} classes")
    return np.array([label for _, _, label in batch], dtype=np.int64)
