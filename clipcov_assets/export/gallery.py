"""Pairs as a person sees them: encoded images and captions enter, a Markdown table of thumbnails leaves."""

import base64
import io
import re
from collections.abc import Iterable

SIDE = 64
LONGEST_CAPTION = 120


def gallery_markdown(pairs: Iterable[tuple[bytes | None, str]]) -> str:
    """Lay out pairs (image bytes if any, caption) as a table with one row a pair; captions are shown as plain text."""
    rows = [f"| {_picture(image)} | {_plain(caption)} |" for image, caption in pairs]
    return "\n".join(["| image | caption |", "|---|---|", *rows])


def _picture(image: bytes | None) -> str:
    return "not delivered" if image is None else f"![]({_thumbnail(image)})"


def _thumbnail(image: bytes) -> str:
    """A small copy of the image as an address that holds it: Dagster keeps metadata in its event log."""
    from PIL import Image

    with Image.open(io.BytesIO(image)) as opened:
        small = opened.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _plain(caption: str) -> str:
    """The caption on one line, with everything escaped that Markdown or HTML would act on."""
    line = " ".join(caption.split())[:LONGEST_CAPTION]
    return re.sub(r"([^\w\s]|_)", lambda sign: f"&#{ord(sign[0])};", line)
