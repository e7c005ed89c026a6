import numpy as np
import pytest
import torch

from clipcov_assets.core.clip_model import ClipModel
from clipcov_assets.core.encoding import encode_captions, encode_images


def test_batches_hold_unit_rows_in_order(tiny_clip: ClipModel, pictures: list[bytes]) -> None:
    named = [(f"uid-{row}", data) for row, data in enumerate(pictures)]
    batches = list(encode_images(tiny_clip, iter(named), device="cpu", batch_size=4))
    (whole,) = encode_images(tiny_clip, named, device="cpu", batch_size=6)
    assert [batch.shape for batch in batches] == [(4, 8), (2, 8)]
    np.testing.assert_allclose(np.concatenate(batches), whole, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)


def test_captions_become_unit_rows(tiny_clip: ClipModel, captions: list[str]) -> None:
    (rows,) = encode_captions(tiny_clip, [("", text) for text in captions], device="cpu", batch_size=10)
    assert rows.shape == (6, 8)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_a_waiting_generator_leaves_gradients_on(tiny_clip: ClipModel, pictures: list[bytes]) -> None:
    stream = encode_images(tiny_clip, [("a", data) for data in pictures], device="cpu", batch_size=2)
    next(stream)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_a_broken_image_is_named(tiny_clip: ClipModel, pictures: list[bytes]) -> None:
    for broken in (b"no image", pictures[0][:50], b""):
        with pytest.raises(ValueError, match="uid-7"):
            list(encode_images(tiny_clip, [("uid-7", broken)], device="cpu", batch_size=1))


def test_a_blank_caption_is_named(tiny_clip: ClipModel) -> None:
    with pytest.raises(ValueError, match="uid-7"):
        list(encode_captions(tiny_clip, [("a", "cat"), ("uid-7", " ")], device="cpu", batch_size=2))


def test_a_batch_size_below_one_is_refused(tiny_clip: ClipModel) -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        list(encode_captions(tiny_clip, [("a", "cat")], device="cpu", batch_size=0))
