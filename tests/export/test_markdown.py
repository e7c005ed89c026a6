from collections.abc import Callable

import polars as pl

from clipcov_assets.export.charts import PICTURES, pictures
from clipcov_assets.export.comparison_tables import ComparisonTables
from clipcov_assets.export.markdown import comparison_markdown, pictures_markdown
from tests.comparisons import build_tables


def test_every_table_is_there(tables: ComparisonTables) -> None:
    text = comparison_markdown(tables, "crawl-1")
    assert (
        "| method | fraction | pairs | birds (200 images) | pets (200 images) |\n| --- | --- | --- | --- | --- |\n"
        in text
    )
    assert "| clipcov | 10 % | 100 | **45.0** \\[42.5, 47.5\\] | **45.0** \\[42.5, 47.5\\] |" in text
    assert "| full | 100 % | 1,000 |" in text
    assert "| clipcov | smallest at 90 % | 10 % (100 pairs) | 10 % (100 pairs) |" in text
    assert "| clipcov | mean over sizes | 37.5 (75 %) | 37.5 (75 %) |" in text
    assert "| random | smallest at 90 % | none | none |" in text
    assert "| clipcov | 5 % | 50 | 60 % (50 %) | 60 % (50 %) |" in text
    assert "| clipcov | 5 % | 50 | 1 | 500 (10 epochs) | 10 % |" in text


def test_names_are_escaped(build: Callable[..., pl.DataFrame]) -> None:
    names = ("a|b", "<img src=x>", "method")
    text = comparison_markdown(build_tables(build({("full", 1.0): 0.5}, evaluation_sets=names)), "crawl-1")
    assert "a\\|b" in text and "&lt;img src=x&gt;" in text and "<img" not in text


def test_pictures_stand_in_the_text_with_their_captions(tables: ComparisonTables) -> None:
    text = pictures_markdown(pictures(tables, "crawl-1"))
    assert text.count("](data:image/png;base64,") == len(PICTURES)
    assert all(picture.caption in text and f"### {picture.title}" in text for picture in PICTURES.values())
