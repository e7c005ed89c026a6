"""The parts of a pair (caption, image, metadata): raw bytes enter, something usable leaves.

A part that cannot be used raises `RejectedPartError`; readers of formats turn it into a `Fault`.
"""

import io
import json

from PIL import Image

from clipcov_assets.ingest.delivery import Reason

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MOST_PIXELS = 89_478_485  # where Pillow begins to warn of a decompression bomb: 256 MiB as RGB
LONGEST_UID = 128


class RejectedPartError(Exception):
    """One part of one pair is unusable."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def read_caption(content: bytes | None) -> str:
    """Return the caption exactly as delivered.

    Raises:
        RejectedPartError: It is missing, blank, or not UTF-8.
    """
    if content is None:
        raise RejectedPartError(Reason.CAPTION_MISSING, "no txt member")
    try:
        caption = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RejectedPartError(Reason.CAPTION_UNDECODABLE, f"not UTF-8 at byte {error.start}") from error
    if not caption.strip():
        raise RejectedPartError(Reason.CAPTION_EMPTY, f"{len(content)} bytes, none visible")
    return caption


def check_image(content: bytes | None) -> bytes:
    """Return the encoded image unchanged, after decoding all of it once.

    Raises:
        RejectedPartError: It is missing, empty, too large when decoded, or does not decode to RGB.
    """
    if content is None:
        raise RejectedPartError(Reason.IMAGE_MISSING, "no readable jpg, png or webp member")
    if not content:
        raise RejectedPartError(Reason.IMAGE_EMPTY, "zero bytes")
    try:
        # Pillow looks at the declared size before it allocates, and so does the line after.
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            too_large = image.width * image.height > MOST_PIXELS
            if not too_large:
                image.convert("RGB")
    except Image.DecompressionBombError as error:
        raise RejectedPartError(Reason.IMAGE_TOO_LARGE, str(error)) from error
    except Exception as error:  # decoders of foreign bytes raise whatever they like
        detail = f"{type(error).__name__}: {error}"
        raise RejectedPartError(Reason.IMAGE_CORRUPT, detail[:200]) from error
    if too_large:
        raise RejectedPartError(Reason.IMAGE_TOO_LARGE, f"{image.width} x {image.height} pixels")
    return content


def read_uid(metadata: bytes | None) -> str | None:
    """Return the uid in a pair's JSON metadata, None if there is none.

    Raises:
        RejectedPartError: The metadata is no JSON object, or its uid is not short printable text.
    """
    if metadata is None:
        return None
    try:
        fields = json.loads(metadata)
    except (ValueError, RecursionError) as error:
        raise RejectedPartError(Reason.METADATA_INVALID, f"no JSON: {error}"[:200]) from error
    if not isinstance(fields, dict):
        raise RejectedPartError(Reason.METADATA_INVALID, "JSON, but no object")
    uid = fields.get("uid")
    if uid is not None and not is_uid(uid):
        raise RejectedPartError(Reason.METADATA_INVALID, "uid is not short printable text")
    return uid


def is_uid(value: object) -> bool:
    """Whether a delivered value can name a pair: 1 to `LONGEST_UID` printable characters, not blank."""
    return isinstance(value, str) and 0 < len(value.strip()) <= LONGEST_UID and value.isprintable()
