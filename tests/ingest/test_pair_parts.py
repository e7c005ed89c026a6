import io
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from PIL import ExifTags, Image, PngImagePlugin

from clipcov_assets.ingest.delivery import Reason, content_uid
from clipcov_assets.ingest.pair_parts import (
    LONGEST_CAPTION,
    RejectedPartError,
    check_caption,
    check_image,
    read_caption,
    read_metadata,
)


def reason_of(read: Callable[..., object], content: bytes | str | None) -> Reason:
    with pytest.raises(RejectedPartError) as rejected:
        read(content)
    assert rejected.value.detail
    return rejected.value.reason


def encoded(mode: str, format: str, *, size: tuple[int, int] = (9, 7), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content, reason",
    [
        (None, Reason.CAPTION_MISSING),
        (b"", Reason.CAPTION_EMPTY),
        (" \t\n\u3000".encode(), Reason.CAPTION_EMPTY),
        (b"\0\x1b\x7f", Reason.CAPTION_EMPTY),
        ("\ufeff\u200b\u200d\u2060\xad\u202e".encode(), Reason.CAPTION_EMPTY),
        ("\u3164\u2800\ufe0f".encode(), Reason.CAPTION_EMPTY),
        (b"caf\xe9", Reason.CAPTION_UNDECODABLE),
        ("a dog".encode("utf-16"), Reason.CAPTION_UNDECODABLE),
        (b"a" * (LONGEST_CAPTION + 1), Reason.CAPTION_TOO_LONG),
    ],
)
def test_an_unusable_caption_has_a_reason(content: bytes | None, reason: Reason) -> None:
    assert reason_of(read_caption, content) is reason


@pytest.mark.parametrize(
    "text, reason",
    [
        (None, Reason.CAPTION_MISSING),
        ("", Reason.CAPTION_EMPTY),
        ("half a dog \ud83d", Reason.CAPTION_UNDECODABLE),
        ("é" * (LONGEST_CAPTION // 2 + 1), Reason.CAPTION_TOO_LONG),
    ],
)
def test_a_caption_that_comes_as_text_is_judged_alike(text: str | None, reason: Reason) -> None:
    assert reason_of(check_caption, text) is reason


@pytest.mark.parametrize(
    "caption",
    [" a dog ", "<b>&amp;</b>", "<script>alert(1)</script>", "a\x00b", "\x1b[2Ja", "a\u202eb", "\u200fאבג", "🐶", "."]
    + ["\ufeffa dog", "a" * LONGEST_CAPTION],
)
def test_an_odd_caption_is_kept_exactly(caption: str) -> None:
    assert read_caption(caption.encode()) == check_caption(caption) == caption


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_sound_image_is_returned_unchanged(make: SimpleNamespace, format: str) -> None:
    image = make.image(format=format)
    assert check_image(image) == image


ODD_IMAGES = {
    "1 x 1": encoded("RGB", "PNG", size=(1, 1)),
    "1 bit": encoded("1", "PNG"),
    "grey": encoded("L", "JPEG"),
    "grey with alpha": encoded("LA", "PNG"),
    "alpha": encoded("RGBA", "PNG"),
    "palette": encoded("P", "PNG"),
    "palette with transparency": encoded("P", "PNG", transparency=b"\0\x80\xff"),
    "grey with a transparent value": encoded("L", "PNG", transparency=3),
    "16 bit": encoded("I;16", "PNG"),
    "16 bit big endian": encoded("I;16B", "TIFF"),
    "32 bit": encoded("I", "TIFF"),
    "floating point": encoded("F", "TIFF"),
    "CMYK": encoded("CMYK", "JPEG"),
    "CMYK TIFF": encoded("CMYK", "TIFF"),
    "YCbCr TIFF": encoded("YCbCr", "TIFF"),
    "progressive": encoded("RGB", "JPEG", progressive=True),
    "two pictures in one": encoded("RGB", "MPO", save_all=True, append_images=[Image.new("RGB", (9, 7), "red")]),
    "lossless": encoded("RGBA", "WEBP", lossless=True),
    "bitmap": encoded("RGB", "BMP"),
} | {
    f"animated {format}": encoded("RGB", format, save_all=True, append_images=[Image.new("RGB", (9, 7), "red")])
    for format in ("GIF", "WEBP", "PNG", "TIFF")
}


@pytest.mark.parametrize("image", ODD_IMAGES.values(), ids=ODD_IMAGES.keys())
def test_odd_but_valid_images_are_kept_unchanged(image: bytes) -> None:
    assert check_image(image) is image


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotation_in_exif_is_no_fault(orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = encoded("RGB", "JPEG", exif=exif)
    assert check_image(image) is image


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_an_image_cut_short_is_corrupt(make: SimpleNamespace, format: str) -> None:
    image = make.image(format=format, size=(64, 64))
    assert reason_of(check_image, image[: len(image) * 2 // 3]) is Reason.IMAGE_CORRUPT


@pytest.mark.parametrize(
    "content",
    [b"<html>404</html>", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\0" * 4096]
    + [b'<svg xmlns="http://www.w3.org/2000/svg"/>', b"RIFF\x04\0\0\0WEBP", b"GIF89a", b"BM", b"II*\0"],
)
def test_what_is_no_image_is_corrupt(content: bytes) -> None:
    assert reason_of(check_image, content) is Reason.IMAGE_CORRUPT


def test_an_image_without_pixels_is_corrupt(declared_png: Callable[[int, int], bytes]) -> None:
    assert reason_of(check_image, declared_png(0, 0)) is Reason.IMAGE_CORRUPT


def test_a_missing_and_an_empty_image_have_their_own_reasons() -> None:
    assert reason_of(check_image, None) is Reason.IMAGE_MISSING
    assert reason_of(check_image, b"") is Reason.IMAGE_EMPTY


# From 9,460 x 9,460 on Pillow warns, from 13,378 x 13,378 on it raises.
@pytest.mark.parametrize("side", [10_000, 60_000, 2**31 - 1])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_absurd_declared_size_is_too_large(declared_png: Callable[[int, int], bytes], side: int) -> None:
    assert reason_of(check_image, declared_png(side, side)) is Reason.IMAGE_TOO_LARGE


def compressed_text() -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("bomb", "0" * 50_000_000, zip=True)
    return encoded("RGB", "PNG", pnginfo=text)


def compressed_international_text() -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("bomb", "0" * 50_000_000, zip=True)
    return encoded("RGB", "PNG", pnginfo=text)


def many_texts() -> bytes:
    text = PngImagePlugin.PngInfo()
    for number in range(70):
        text.add_text(f"bomb {number}", "0" * 2**20, zip=True)
    return encoded("RGB", "PNG", pnginfo=text)


def colour_profile() -> bytes:
    return encoded("RGB", "PNG", icc_profile=b"0" * 50_000_000)


@pytest.mark.parametrize("bomb", [compressed_text, compressed_international_text, many_texts, colour_profile])
def test_a_bomb_in_a_text_chunk_is_too_large(bomb: Callable[[], bytes]) -> None:
    assert reason_of(check_image, bomb()) is Reason.IMAGE_TOO_LARGE


@pytest.mark.parametrize("metadata", [None, b"{}", b'{"uid": null}', b'{"uid": ""}', b'{"width": NaN}'])
def test_metadata_without_a_uid_is_fine(metadata: bytes | None) -> None:
    assert not read_metadata(metadata).get("uid")


@pytest.mark.parametrize(
    "metadata",
    [b"", b"{", b"[]", b"\xff", b'{"uid": 7}', b'{"uid": " "}', b'{"uid": "\\ud83d"}', b"[" * 100_000]
    + [b'{"uid": "%s"}' % (b"a" * 129), b'{"width": 1%s}' % (b"0" * 5000)],
)
def test_metadata_that_cannot_be_trusted_is_invalid(metadata: bytes) -> None:
    assert reason_of(read_metadata, metadata) is Reason.METADATA_INVALID


def test_a_content_uid_tells_the_image_from_the_caption() -> None:
    assert content_uid(b"a", "bc") != content_uid(b"ab", "c")
    assert content_uid(b"a", "bc") == content_uid(b"a", "bc")
    assert len(content_uid(b"", "")) == 32
