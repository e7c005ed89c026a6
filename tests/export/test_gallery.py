import re

import pytest

from clipcov_assets.export.gallery import gallery_markdown
from tests.deliveries import image


def test_each_pair_is_a_row_with_its_picture():
    lines = gallery_markdown([(image(1), "a cat"), (image(2), "a dog")]).splitlines()
    assert len(lines) == 4
    assert re.fullmatch(r"\| !\[\]\(data:image/jpeg;base64,[A-Za-z0-9+/=]+\) \| a cat \|", lines[2])


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
