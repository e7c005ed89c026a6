import io
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from clipcov_assets.core.clip_model import ClipModel, weights_sha256
from clipcov_assets.core.encoding import (
    encode_captions,
    encode_images,
    image_rows,
    image_size,
    normalized,
    preparation,
    text_rows,
    upright_rgb,
)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def noise(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    count = size[0] * size[1] * len(mode)
    return Image.frombytes(mode, size, np.random.default_rng(0).bytes(count))


def seen(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        return upright_rgb(image)


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


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(64, 64), (301, 97), (40, 333), (1, 1)])
def test_pixels_are_bit_for_bit_those_of_open_clip(
    tiny_clip: ClipModel, size: tuple[int, int], resize_mode: str
) -> None:
    theirs = image_transform_v2(PreprocessCfg(size=(24, 24), resize_mode=resize_mode), is_train=False)
    clip = replace(tiny_clip, preprocess=theirs)
    for mode, kind in (("RGB", "PNG"), ("RGB", "JPEG"), ("L", "PNG")):
        data = encoded(noise(size, mode), kind)
        with Image.open(io.BytesIO(data)) as image:
            assert torch.equal(normalized(clip, preparation(clip).pixels([("uid", data)]))[0], theirs(image))


def test_decoded_images_stack_to_the_model_s_size(tiny_clip: ClipModel, pictures: list[bytes]) -> None:
    pixels = preparation(tiny_clip).pixels([("", data) for data in pictures])
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (6, 3, *image_size(tiny_clip))
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(normalized(tiny_clip, pixels)[2], tiny_clip.preprocess(Image.open(io.BytesIO(pictures[2]))))


def test_sixteen_bits_are_scaled_and_not_cut_off() -> None:
    ramp = np.linspace(0, 65_535, 16 * 16).reshape(16, 16).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        shown = np.asarray(seen(encoded(Image.fromarray(ramp), kind)))
        np.testing.assert_allclose(shown[..., 0], ramp / 257, atol=0.5)


def test_printing_colours_become_screen_colours() -> None:
    cyan = np.asarray(seen(encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG")))
    np.testing.assert_allclose(cyan[4, 4], (0, 255, 255), atol=3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_their_exif_says(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = seen(encoded(Image.fromarray(CORNERS), "PNG", exif=exif))
    turned = [
        CORNERS,
        CORNERS[:, ::-1],
        CORNERS[::-1, ::-1],
        CORNERS[::-1],
        CORNERS.swapaxes(0, 1),
        np.rot90(CORNERS, -1),
        CORNERS[::-1, ::-1].swapaxes(0, 1),
        np.rot90(CORNERS),
    ]
    assert np.array_equal(np.asarray(shown), turned[orientation - 1])


CORNERS = np.random.default_rng(1).integers(0, 256, (2, 3, 3), np.uint8)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_block_turns_nothing() -> None:
    whole = Image.fromarray(CORNERS)
    for block in (b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff"):
        assert seen(encoded(whole, "PNG", exif=block)).size == whole.size


def test_transparent_parts_are_white_and_no_hidden_colour_shows() -> None:
    image = np.zeros((4, 4, 4), np.uint8)
    image[0] = (255, 0, 0, 255)
    image[1] = (255, 0, 0, 0)
    whole = Image.fromarray(image)
    palette = whole.convert("RGB").quantize(4)
    colours = np.asarray(palette)
    for data in (encoded(whole, "PNG"), encoded(whole, "WEBP", lossless=True)):
        shown = np.asarray(seen(data))
        assert shown[0].tolist() == [[255, 0, 0]] * 4
        assert shown[1:].min() == 255
    shown = np.asarray(seen(encoded(palette, "PNG", transparency=int(colours[3, 0]))))
    assert shown[0].tolist() == [[255, 0, 0]] * 4
    assert shown[3].min() == 255


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, lossless=True)
        assert np.asarray(seen(data))[0, 0].tolist() == [255, 0, 0]


def test_a_preparation_can_be_sent_to_another_process(tiny_clip: ClipModel, pictures: list[bytes]) -> None:
    here = preparation(tiny_clip)
    there = pickle.loads(pickle.dumps(here))
    named = [("a", data) for data in pictures]
    assert torch.equal(there.pixels(named), here.pixels(named))
    assert torch.equal(there.tokens([("a", "a red dog")]), here.tokens([("a", "a red dog")]))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_gives_nearly_the_same_unit_rows(tiny_clip: ClipModel, precision: str) -> None:
    prepare = preparation(tiny_clip)
    pixels = prepare.pixels([("", encoded(noise((20, 20 + row)), "PNG")) for row in range(5)])
    tokens = prepare.tokens([("", text) for text in ("a dog", "an old house")])
    for encode, batch in ((image_rows, pixels), (text_rows, tokens)):
        exact, rounded = (encode(tiny_clip, batch, device="cpu", precision=one) for one in ("float32", precision))
        assert rounded.dtype == torch.float32
        assert not torch.equal(rounded, exact)
        assert torch.linalg.vector_norm(rounded, dim=1) == pytest.approx(1, abs=1e-6)
        assert (rounded * exact).sum(dim=1).min() > 0.999


def test_a_batch_too_large_for_the_memory_is_halved(tiny_clip: ClipModel, pictures: list[bytes]) -> None:
    pixels = preparation(tiny_clip).pixels([("", data) for data in pictures])
    whole = image_rows(tiny_clip, pixels, device="cpu")
    encode, tried = tiny_clip.model.encode_image, []

    def with_little_memory(part: torch.Tensor) -> torch.Tensor:
        tried.append(len(part))
        if len(part) > 2:
            raise torch.OutOfMemoryError
        return encode(part)

    tiny_clip.model.encode_image = with_little_memory
    torch.testing.assert_close(image_rows(tiny_clip, pixels, device="cpu"), whole)
    assert tried == [6, 3, 2, 1, 3, 2, 1]
    tiny_clip.model.encode_image = lambda part: with_little_memory(part.repeat(9, 1, 1, 1))
    with pytest.raises(torch.OutOfMemoryError):
        image_rows(tiny_clip, pixels, device="cpu")


def test_a_model_that_has_embedded_can_be_trained(tiny_clip: ClipModel, pictures: list[bytes]) -> None:
    before = weights_sha256(tiny_clip.model)
    pixels = preparation(tiny_clip).pixels([("", data) for data in pictures])
    image_rows(tiny_clip, pixels, device="cpu")
    assert weights_sha256(tiny_clip.model) == before
    tiny_clip.model.encode_image(normalized(tiny_clip, pixels)).sum().backward()
    assert all(not weight.is_inference() for weight in tiny_clip.model.parameters())


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
