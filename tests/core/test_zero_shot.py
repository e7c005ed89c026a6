import numpy as np
import pytest
import torch

from clipcov_assets.core import zero_shot
from clipcov_assets.core.clip_model import ClipModel
from clipcov_assets.core.encoding import encode_captions
from clipcov_assets.core.prompts import Prompts
from clipcov_assets.core.zero_shot import class_embeddings, classify

CLASSES = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=np.float32)


def test_every_image_gets_its_nearest_class_and_the_margin_to_the_second() -> None:
    images = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=np.float32)
    label, margin = classify(images, CLASSES)
    assert label.tolist() == [0, 1, 2]
    np.testing.assert_allclose(margin, [1 - 0.6, 1 - 0.8, 1 - 0.8], atol=1e-6)


def test_ties_go_to_the_smaller_class_with_no_margin() -> None:
    label, margin = classify(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]))
    assert (label[0], margin[0]) == (1, 0)


def test_with_one_class_the_margin_is_the_cosine() -> None:
    label, margin = classify(np.array([[0.6, 0.8]], dtype=np.float16), np.array([[1.0, 0.0]]))
    assert label.tolist() == [0]
    np.testing.assert_allclose(margin, [0.6], atol=1e-3)


def test_blocks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).normal(size=(23, 2)).astype(np.float32)
    whole = classify(images, CLASSES)
    monkeypatch.setattr(zero_shot, "ROWS_PER_BLOCK", 5)
    for column, expected in zip(classify(images, CLASSES), whole, strict=True):
        np.testing.assert_allclose(column, expected, atol=1e-6)


def test_embeddings_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="3 wide and class embeddings 2"):
        classify(np.ones((4, 3), dtype=np.float32), CLASSES)


def test_a_row_that_is_not_finite_is_named() -> None:
    with pytest.raises(ValueError, match="row 1 is not finite"):
        classify(np.array([[1.0, 0.0], [np.nan, 0.0]]), CLASSES)


def test_one_template_gives_the_caption_s_own_embedding(tiny_clip: ClipModel) -> None:
    rows = class_embeddings(tiny_clip, Prompts(("cat", "dog"), ("a {c}",)), device="cpu")
    (captions,) = encode_captions(tiny_clip, [("0", "a cat"), ("1", "a dog")], device="cpu", batch_size=2)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, captions, atol=1e-6)


def test_weights_that_are_not_finite_are_refused(tiny_clip: ClipModel) -> None:
    with torch.no_grad():
        tiny_clip.model.text_projection.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="tiny"):
        class_embeddings(tiny_clip, Prompts(("cat",), ("{c}",)), device="cpu")
