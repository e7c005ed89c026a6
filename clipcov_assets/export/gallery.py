"""Pairs as a person sees them: encoded images and captions enter, thumbnails and a Markdown table of them leave."""

import base64
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass

SIDE = 64
LONGEST_CAPTION = 120
NOT_DELIVERED, NOT_DECODABLE = "not delivered", "not decodable"


@dataclass(frozen=True)
class Thumbnail:
    """A small copy of an image, or why there is none.

    Attributes:
        address: A data URI that holds the copy; empty where there is none.
        words: What to show in its place.
    """

    address: str
    words: str = ""


def thumbnail(image: bytes | None, side: int) -> Thumbnail:
    """Make a small copy of an encoded image, as the models see it: RGB, without transparency.

    Args:
        image: As delivered, None where the delivery brought no image.
        side: Most pixels of width and height.
    """
    from PIL import Image

    if image is None:
        return Thumbnail("", NOT_DELIVERED)
    try:
        with Image.open(io.BytesIO(image)) as opened:
            opened.draft(None, (2 * side, 2 * side))  # of a large JPEG less is computed
            small = opened.convert("RGB")
        small.thumbnail((side, side))
    except Exception:  # decoders of foreign bytes raise whatever they like
        return Thumbnail("", NOT_DECODABLE)
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=60)
    return Thumbnail(f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}")


def gallery_markdown(pairs: Iterable[tuple[bytes | None, str]]) -> str:
    """Lay out pairs (image bytes if any, caption) as a table with one row a pair; captions are shown as plain text."""
    rows = [f"| {_picture(image)} | {_plain(caption)} |" for image, caption in pairs]
    return "\n".join(["| image | caption |", "|---|---|", *rows])


def _picture(image: bytes | None) -> str:
    small = thumbnail(image, SIDE)  # Dagster keeps metadata in its event log
    return f"![]({small.address})" if small.address else small.words


def _plain(caption: str) -> str:
    """The caption on one line, with everything escaped that Markdown or HTML would act on."""
    line = " ".join(caption.split())[:LONGEST_CAPTION]
    return re.sub(r"([^\w\s]|_)", lambda sign: f"&#{ord(sign[0])};", line)
