import base64
import io
import re

import pytest
from PIL import Image

from clipcov_assets.export.gallery import NOT_DECODABLE, NOT_DELIVERED, gallery_markdown, thumbnail
from tests.deliveries import image


def test_each_pair_is_a_row_with_its_picture():
    lines = gallery_markdown([(image(1), "a cat"), (image(2), "a dog")]).splitlines()
    assert len(lines) == 4
    assert re.fullmatch(r"\| !\[\]\(data:image/webp;base64,[A-Za-z0-9+/=]+\) \| a cat \|", lines[2])


def test_large_images_become_small():
    assert len(gallery_markdown([(image(1, size=1500), "large")])) < 8000


@pytest.mark.parametrize(
    "caption", ["a | b", "<script>alert(1)</script>", "![x](http://evil)", "[x](javascript:1)", "`code`", "a\n| b |"]
)
def test_a_caption_cannot_leave_its_cell(caption):
    row = gallery_markdown([(image(1), caption)]).splitlines()[2]
    shown = row.split(") | ", 1)[1].removesuffix(" |")
    assert not re.search(r"[|<>\[\]()`*_!]", shown)


def test_words_of_any_script_stay_readable():
    assert "| ein Käse 猫 |" in gallery_markdown([(image(1), "ein Käse  猫")])


def test_a_thumbnail_keeps_the_shape_of_its_image():
    stream = io.BytesIO()
    Image.new("CMYK", (1200, 300)).save(stream, "JPEG")
    head, content = thumbnail(stream.getvalue(), 96).address.split(",")
    small = Image.open(io.BytesIO(base64.b64decode(content)))
    assert head == "data:image/webp;base64"
    assert (small.size, small.mode) == ((96, 24), "RGB")


@pytest.mark.parametrize("spoiled", [b"", b"no image", image(1)[:60]])
def test_an_image_that_does_not_decode_is_said_to_be_so(spoiled):
    assert thumbnail(spoiled, 96).words == NOT_DECODABLE
    assert f"| {NOT_DECODABLE} | a cat |" in gallery_markdown([(spoiled, "a cat")])


def test_an_absent_image_is_said_to_be_so():
    assert thumbnail(None, 96).words == NOT_DELIVERED
    assert f"| {NOT_DELIVERED} | a cat |" in gallery_markdown([(None, "a cat")])
