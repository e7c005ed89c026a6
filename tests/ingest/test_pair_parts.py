import io
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from PIL import Image, PngImagePlugin

from clipcov_assets.ingest.delivery import Reason, content_uid
from clipcov_assets.ingest.pair_parts import RejectedPartError, check_image, read_caption, read_uid


def reason_of(read: Callable[[bytes | None], object], content: bytes | None) -> Reason:
    with pytest.raises(RejectedPartError) as rejected:
        read(content)
    assert rejected.value.detail
    return rejected.value.reason


@pytest.mark.parametrize(
    "content, reason",
    [
        (None, Reason.CAPTION_MISSING),
        (b"", Reason.CAPTION_EMPTY),
        (" \t\n\u3000".encode(), Reason.CAPTION_EMPTY),
        (b"caf\xe9", Reason.CAPTION_UNDECODABLE),
    ],
)
def test_an_unusable_caption_has_a_reason(content: bytes | None, reason: Reason) -> None:
    assert reason_of(read_caption, content) is reason


@pytest.mark.parametrize("caption", [" a dog ", "<b>&amp;</b>", "a\x00b", "\u200fאבג", "very " * 9_999, "🐶"])
def test_an_odd_caption_is_kept_exactly(caption: str) -> None:
    assert read_caption(caption.encode()) == caption


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_sound_image_is_returned_unchanged(make: SimpleNamespace, format: str) -> None:
    image = make.image(format=format)
    assert check_image(image) == image


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_odd_but_valid_images_are_kept(mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (1, 1)).save(buffer, "TIFF" if mode == "CMYK" else "PNG")
    assert check_image(buffer.getvalue())


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_an_image_cut_short_is_corrupt(make: SimpleNamespace, format: str) -> None:
    image = make.image(format=format, size=(64, 64))
    assert reason_of(check_image, image[: len(image) * 2 // 3]) is Reason.IMAGE_CORRUPT


def test_other_unusable_images_have_their_own_reasons(
    make: SimpleNamespace, declared_png: Callable[[int, int], bytes]
) -> None:
    assert reason_of(check_image, None) is Reason.IMAGE_MISSING
    assert reason_of(check_image, b"") is Reason.IMAGE_EMPTY
    assert reason_of(check_image, b"<html>404</html>") is Reason.IMAGE_CORRUPT
    assert reason_of(check_image, b"%!PS-Adobe-3.0 EPSF-3.0\n") is Reason.IMAGE_CORRUPT
    assert reason_of(check_image, declared_png(60_000, 60_000)) is Reason.IMAGE_TOO_LARGE


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_size_that_only_makes_pillow_warn_is_too_large_as_well(
    declared_png: Callable[[int, int], bytes],
) -> None:
    assert reason_of(check_image, declared_png(10_000, 10_000)) is Reason.IMAGE_TOO_LARGE


def test_a_bomb_in_a_text_chunk_is_corrupt() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("bomb", "0" * 50_000_000, zip=True)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=text)
    assert reason_of(check_image, buffer.getvalue()) is Reason.IMAGE_CORRUPT


@pytest.mark.parametrize("metadata", [None, b"{}", b'{"uid": null}', b'{"width": NaN}'])
def test_metadata_without_a_uid_is_fine(metadata: bytes | None) -> None:
    assert read_uid(metadata) is None


@pytest.mark.parametrize(
    "metadata",
    [b"{", b"[]", b"\xff", b'{"uid": 7}', b'{"uid": " "}', b'{"uid": "\\ud83d"}', b"[" * 100_000]
    + [b'{"uid": "%s"}' % (b"a" * 129)],
)
def test_metadata_that_cannot_be_trusted_is_invalid(metadata: bytes | None) -> None:
    assert reason_of(read_uid, metadata) is Reason.METADATA_INVALID


def test_a_content_uid_tells_the_image_from_the_caption() -> None:
    assert content_uid(b"a", "bc") != content_uid(b"ab", "c")
    assert content_uid(b"a", "bc") == content_uid(b"a", "bc")
    assert len(content_uid(b"", "")) == 32
