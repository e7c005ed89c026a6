"""Zero-shot classification: prompts and image embeddings enter, classes leave.

Both the latent classes of a pool and the scorecards of a checkpoint are read off these functions.

Source: Radford et al. 2021, arXiv:2103.00020, section 3.1; Joshi et al. 2024, arXiv:2403.12267, section 4.3.
"""

from functools import partial
from typing import cast

import numpy as np
import open_clip
from numpy.typing import NDArray

from clipcov_assets.core.clip_model import ClipModel, inference
from clipcov_assets.core.prompts import Prompts, fill

ROWS_PER_BLOCK = 8192


def class_embeddings(clip: ClipModel, prompts: Prompts, *, device: str) -> NDArray[np.float32]:
    """Return (K, d) unit rows: each class is the mean of its templates' text embeddings.

    Raises:
        FloatingPointError: A row is not finite, so the weights are not usable.
    """
    with inference(clip, device=device) as model:
        columns = open_clip.build_zero_shot_classifier(
            model,
            tokenizer=clip.tokenizer,
            classnames=prompts.class_names,
            templates=[partial(fill, template) for template in prompts.templates],
            device=device,
        )
    rows = np.ascontiguousarray(columns.T.float().cpu().numpy())
    if not np.isfinite(rows).all():
        raise FloatingPointError(f"class embeddings of {clip.architecture!r} are not finite; train it again")
    return rows


def cosines(image_embeddings: NDArray[np.floating], class_embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the (n, K) cosines between unit rows of images (n, d) and of classes (K, d).

    Raises:
        ValueError: The widths differ, or an image row is not finite.
    """
    width, class_width = image_embeddings.shape[1], class_embeddings.shape[1]
    if width != class_width:
        raise ValueError(
            f"image embeddings are {width} wide and class embeddings {class_width}; make both with one proxy"
        )
    products = image_embeddings.astype(np.float32) @ class_embeddings.astype(np.float32).T
    finite = np.isfinite(products).all(axis=1)
    if not finite.all():
        raise ValueError(f"image embedding in row {int(np.argmin(finite))} is not finite; embed it again")
    return cast(NDArray[np.float32], products)


def classify(
    image_embeddings: NDArray[np.floating], class_embeddings: NDArray[np.floating]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Give every image (n, d) its nearest class (K, d); ties go to the smaller class.

    Returns:
        The class (n,), and the margin (n,): best cosine minus second best. With a single class
        there is no second, and the margin is the cosine itself.

    Raises:
        ValueError: The widths differ, or an image row is not finite.
    """
    n = len(image_embeddings)
    label, margin = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.float32)
    for start in range(0, n, ROWS_PER_BLOCK):
        block = slice(start, start + ROWS_PER_BLOCK)
        similarity = cosines(image_embeddings[block], class_embeddings)
        label[block] = similarity.argmax(axis=1)
        margin[block] = _best_minus_second(similarity)
    return label, margin


def _best_minus_second(similarity: NDArray[np.float32]) -> NDArray[np.float32]:
    if similarity.shape[1] == 1:
        return similarity[:, 0]
    top_two = np.partition(similarity, -2, axis=1)[:, -2:]
    return cast(NDArray[np.float32], top_two[:, 1] - top_two[:, 0])
