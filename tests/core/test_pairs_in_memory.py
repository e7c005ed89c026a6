import io

import numpy as np
import pytest
import torch
from PIL import Image

from clipcov_assets.core.clip_model import ClipModel
from clipcov_assets.core.encoding import normalized, tokenize
from clipcov_assets.core.pairs_in_memory import PairsInMemory


def test_a_batch_is_what_the_model_takes(tiny_clip: ClipModel, pictures: list[bytes], captions: list[str]) -> None:
    pairs = PairsInMemory.of(tiny_clip, pictures, captions)
    ((pixels, tokens),) = pairs.batches([np.array([4, 1])])
    expected = torch.stack([tiny_clip.preprocess(Image.open(io.BytesIO(pictures[row]))) for row in (4, 1)])
    assert torch.equal(normalized(tiny_clip, pixels), expected)
    assert torch.equal(tokens, tokenize(tiny_clip, [("", captions[row]) for row in (4, 1)]))


@pytest.mark.parametrize(
    ("n_images", "texts", "named"), [(2, ["a"], "2 images but 1 captions"), (2, ["a", " "], "pair 1")]
)
def test_unusable_pairs_are_named(
    tiny_clip: ClipModel, pictures: list[bytes], n_images: int, texts: list[str], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        PairsInMemory.of(tiny_clip, pictures[:n_images], texts)


def test_a_broken_image_is_named(tiny_clip: ClipModel, pictures: list[bytes], captions: list[str]) -> None:
    with pytest.raises(ValueError, match="pair 2"):
        PairsInMemory.of(tiny_clip, [*pictures[:2], b""], captions[:3])
