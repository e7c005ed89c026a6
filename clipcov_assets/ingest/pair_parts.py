"""The parts of a pair (caption, image, metadata): raw bytes or text enter, something usable leaves.

A part that cannot be used raises `RejectedPartError`; readers of formats turn it into a `Fault`.
"""

import io
import json
import re
import unicodedata
from typing import Any

from PIL import Image

from clipcov_assets.ingest.delivery import Reason

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MOST_PIXELS = 89_478_485  # where Pillow begins to warn of a decompression bomb: 256 MiB as RGB
LONGEST_CAPTION = 64 * 2**10  # bytes as UTF-8
LONGEST_UID = 128

# Pillow has no exception of its own for a text chunk or a colour profile that unpacks to too much.
_TEXT_BOMBS = ("Decompressed data too large", "Too much memory used in text")
# Separators, control and format characters (zero-width ones among them), and halves of surrogate pairs.
_INVISIBLE_CATEGORIES = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf", "Cs"})
# Letters, symbols and marks that show nothing on their own: joiner, Hangul fillers, blank Braille, selectors.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u2800\u3164\uffa0") | {chr(code) for code in range(0xFE00, 0xFE10)}


class RejectedPartError(Exception):
    """One part of one pair is unusable."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def read_caption(content: bytes | None) -> str:
    """Return a caption out of a text file, exactly as delivered.

    Raises:
        RejectedPartError: It is not UTF-8, or whatever `check_caption` raises.
    """
    if content is None:
        return check_caption(None)
    if len(content) > LONGEST_CAPTION:
        raise _too_long(len(content))
    try:
        return check_caption(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RejectedPartError(Reason.CAPTION_UNDECODABLE, f"not UTF-8 at byte {error.start}") from error


def check_caption(text: str | None) -> str:
    """Return a caption exactly as delivered; markup and control characters are no faults.

    Raises:
        RejectedPartError: It is missing, above `LONGEST_CAPTION`, without a visible character, or holds half of a
            surrogate pair, which is not Unicode text.
    """
    if text is None:
        raise RejectedPartError(Reason.CAPTION_MISSING, "no caption")
    try:
        n_bytes = len(text) if text.isascii() else len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        detail = f"half of a surrogate pair at character {error.start}"
        raise RejectedPartError(Reason.CAPTION_UNDECODABLE, detail) from error
    if n_bytes > LONGEST_CAPTION:
        raise _too_long(n_bytes)
    if not any(map(_is_visible, text)):
        raise RejectedPartError(Reason.CAPTION_EMPTY, f"{len(text)} characters, none visible")
    return text


def check_image(content: bytes | None) -> bytes:
    """Return the encoded image unchanged, after decoding all of its first frame once.

    Raises:
        RejectedPartError: It is missing, empty, too large when decoded, or does not decode to RGB.
    """
    if content is None:
        raise RejectedPartError(Reason.IMAGE_MISSING, "no image")
    if not content:
        raise RejectedPartError(Reason.IMAGE_EMPTY, "zero bytes")
    try:
        # Pillow looks at the declared size before it allocates, and so does the line after.
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise RejectedPartError(Reason.IMAGE_TOO_LARGE, f"{image.width} x {image.height} pixels")
            image.draft(None, (1, 1))  # of a JPEG all is read, but less computed: the same errors in less time
            image.load()
            if image.mode not in ("RGB", "RGBA"):  # from these two the way to RGB cannot fail
                image.convert("RGB")
    except RejectedPartError:
        raise
    except Exception as error:  # decoders of foreign bytes raise whatever they like
        bomb = isinstance(error, Image.DecompressionBombError) or str(error).startswith(_TEXT_BOMBS)
        reason = Reason.IMAGE_TOO_LARGE if bomb else Reason.IMAGE_CORRUPT
        # Where in memory the image lay would make equal faults differ.
        words = re.sub(r" <_io\.BytesIO object at 0x\w+>", "", str(error))
        raise RejectedPartError(reason, f"{type(error).__name__}: {words}"[:200]) from error
    return content


def read_metadata(content: bytes | None) -> dict[str, Any]:
    """Return the fields of a pair's JSON metadata, none without metadata; a field "uid" is checked, "" is none.

    Raises:
        RejectedPartError: The metadata is no JSON object, or its uid is not short printable text.
    """
    if content is None:
        return {}
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RejectedPartError(Reason.METADATA_INVALID, f"no JSON: {error}"[:200]) from error
    if not isinstance(fields, dict):
        raise RejectedPartError(Reason.METADATA_INVALID, "JSON, but no object")
    uid = fields.get("uid")
    if uid not in (None, "") and not is_uid(uid):
        raise RejectedPartError(Reason.METADATA_INVALID, "uid is not short printable text")
    return fields


def is_uid(value: object) -> bool:
    """Whether a delivered value can name a pair: 1 to `LONGEST_UID` printable characters, not blank."""
    return isinstance(value, str) and 0 < len(value.strip()) <= LONGEST_UID and value.isprintable()


def _too_long(n_bytes: int) -> RejectedPartError:
    return RejectedPartError(Reason.CAPTION_TOO_LONG, f"{n_bytes} bytes, {LONGEST_CAPTION} are the most")


def _is_visible(character: str) -> bool:
    return unicodedata.category(character) not in _INVISIBLE_CATEGORIES and character not in _INVISIBLE
