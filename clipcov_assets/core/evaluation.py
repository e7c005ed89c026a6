"""Zero-shot evaluation of a CLIP, image by image: unit rows of images enter, one prediction for each leaves.

A task is made first and refuses a set that cannot be scored; what the images are compared with comes after it, and
the images come last, so that no model runs in vain.

Source: Radford et al. 2021, arXiv:2103.00020, section 3.1.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipcov_assets.core.suite import CLASSIFICATION, IMAGE_TO_TEXT, TEXT_TO_IMAGE
from clipcov_assets.core.zero_shot import cosines

CELLS_PER_BLOCK = 2**22  # cosines at a time: 16 MiB, however large a set is


@dataclass(frozen=True, eq=False)
class Predictions:
    """Aligned columns, one row an image, or a caption that looks for its image.

    Attributes:
        task: `classification`, `image_to_text` or `text_to_image`.
        key: (n) Of the image; of a caption, followed by # and its number among those of the image.
        label: (n,) True class; in retrieval the number of the image.
        predicted: (n,) Class with the highest cosine; in retrieval the image, or the image of the caption.
        rank_of_label: (n,) What comes ahead of the true one; 0 is a hit.

    Raises:
        ValueError: The columns differ in length.
    """

    task: str
    key: tuple[str, ...]
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    rank_of_label: NDArray[np.int64]

    def __post_init__(self) -> None:
        lengths = [len(self.key), len(self.label), len(self.predicted), len(self.rank_of_label)]
        if len(set(lengths)) > 1:
            raise ValueError(f"{self.task}: {lengths} keys, labels, predictions and ranks; every row needs one of each")


@dataclass(frozen=True, eq=False)
class Classification:
    """Images to be given one of K classes.

    Attributes:
        name: Of the evaluation set.
        keys: (n) Of the images.
        label: (n,) True classes.
        n_classes: K.

    Raises:
        ValueError: No image, or a label that has no class name; the message names the set and the image.
    """

    name: str
    keys: tuple[str, ...]
    label: NDArray[np.int64]
    n_classes: int

    def __post_init__(self) -> None:
        _refuse_empty(self.name, self.keys)
        outside = np.flatnonzero((self.label < 0) | (self.label >= self.n_classes))
        if outside.size:
            row = int(outside[0])
            raise ValueError(
                f"evaluation set {self.name!r}: image {self.keys[row]} has label {int(self.label[row])}, but the "
                f"prompts name {self.n_classes} classes"
            )

    def predictions(self, images: Iterable[NDArray[np.float32]], classes: NDArray[np.float32]) -> tuple[Predictions]:
        """Classify unit rows of images (b, d), batch by batch, among unit rows of classes (K, d).

        Ties go to the smaller class; classes of equal rows tie exactly.
        """
        # A product may round equal columns differently at its edges: each distinct one is computed once.
        distinct, places = np.unique(classes, axis=0, return_inverse=True)
        columns, start = [], 0
        for rows in images:
            similarity = cosines(rows, distinct)[:, places]
            label = self.label[start : start + len(rows)]
            columns.append((similarity.argmax(axis=1), rank_of_label(similarity, label)))
            start += len(rows)
        return (Predictions(CLASSIFICATION, self.keys, self.label, *_joined(columns)),)


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Images that look for their captions, and captions that look for their image.

    Attributes:
        name: Of the evaluation set.
        keys: (n) Of the images.
        counts: (n,) Captions of each image.

    Raises:
        ValueError: No image, or one without a caption; the message names the set and the image.
    """

    name: str
    keys: tuple[str, ...]
    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        _refuse_empty(self.name, self.keys)
        without = np.flatnonzero(self.counts == 0)
        if without.size:
            raise ValueError(
                f"evaluation set {self.name!r}: image {self.keys[int(without[0])]} has no caption; give it one or "
                "remove it"
            )

    def predictions(
        self, images: Iterable[NDArray[np.float32]], captions: NDArray[np.float32]
    ) -> tuple[Predictions, Predictions]:
        """Rank captions for each image, and images for each caption; ties go to the smaller number.

        An image is as good as its best caption: it counts for recall at k where one of its own is among the first k.

        Args:
            images: Unit rows (b, d) of all n images, batch by batch.
            captions: Unit rows (m, d) of all captions, those of the first image first.

        Returns:
            The task image_to_text with n rows, and text_to_image with m.
        """
        rows = np.concatenate(list(images))
        image = np.arange(len(self.keys))
        image_of_caption = np.repeat(image, self.counts)

        def best_own(places: NDArray[np.int64], similarity: NDArray[np.float32]) -> NDArray[np.int64]:
            is_own = image_of_caption == places[:, None]
            best: NDArray[np.int64] = np.where(is_own, similarity, -np.inf).argmax(axis=1)
            return best

        caption, caption_rank = _ranked(rows, captions, best_own)
        found, image_rank = _ranked(captions, rows, lambda places, similarity: image_of_caption[places])
        names = tuple(
            f"{key}#{number}" for key, count in zip(self.keys, self.counts, strict=True) for number in range(count)
        )
        return (
            Predictions(IMAGE_TO_TEXT, self.keys, image, image_of_caption[caption], caption_rank),
            Predictions(TEXT_TO_IMAGE, names, image_of_caption, found, image_rank),
        )


def rank_of_label(similarity: NDArray[np.floating], label: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the columns ahead of the true one in similarities (n, K); ties go to the smaller column.

    Rank 0 is a hit, and holds exactly where the true column is the prediction.
    """
    own = np.take_along_axis(similarity, label[:, None], axis=1)
    tied_before = (similarity == own) & (np.arange(similarity.shape[1]) < label[:, None])
    ahead: NDArray[np.int64] = ((similarity > own) | tied_before).sum(axis=1)
    return ahead


def _ranked(
    queries: NDArray[np.float32],
    candidates: NDArray[np.float32],
    label_of: Callable[[NDArray[np.int64], NDArray[np.float32]], NDArray[np.int64]],
) -> list[NDArray[np.int64]]:
    """Return the first candidate of each query, and the rank of the true one, which `label_of` finds, in blocks."""
    size = max(1, CELLS_PER_BLOCK // len(candidates))
    columns = []
    for start in range(0, len(queries), size):
        places = np.arange(start, min(start + size, len(queries)))
        similarity = cosines(queries[places], candidates)
        columns.append((similarity.argmax(axis=1), rank_of_label(similarity, label_of(places, similarity))))
    return _joined(columns)


def _joined(columns: list[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> list[NDArray[np.int64]]:
    return [np.concatenate(parts) for parts in zip(*columns, strict=True)]


def _refuse_empty(name: str, keys: tuple[str, ...]) -> None:
    if not keys:
        raise ValueError(f"evaluation set {name!r} holds no image; an evaluation needs at least one")
