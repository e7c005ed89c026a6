import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import polars as pl

from clipcov_assets.export.charts import PICTURES, pictures
from clipcov_assets.export.comparison_tables import ComparisonTables
from clipcov_assets.export.html_page import POLICY
from clipcov_assets.export.report import html_report
from tests.comparisons import build_differences, build_tables


class Outline(HTMLParser):
    """Collects the tags, the texts and the addresses of a page, and checks that tags close in order."""

    VOID = ("meta", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def report_of(tables: ComparisonTables, crawl: str = "crawl-1", **links: str) -> str:
    return html_report(tables, crawl, links=links, drawn=pictures(tables, crawl))


def outline_of(page: str) -> Outline:
    outline = Outline()
    outline.feed(page)
    outline.close()
    assert not outline.open
    return outline


def test_the_page_needs_nothing_beside_it(tables: ComparisonTables) -> None:
    page = report_of(tables)
    outline = outline_of(page)
    assert POLICY in page and "script" not in outline.tags and "link" not in outline.tags
    assert all(address.startswith("data:image/png;base64,") for address in outline.addresses)


def test_every_picture_and_table_of_a_crawl_is_on_the_page(tables: ComparisonTables) -> None:
    outline = outline_of(report_of(tables))
    assert outline.tags.count("img") == len(PICTURES)
    headings = {*(picture.title for picture in PICTURES.values()), "Trainings", "How small may the subset be?"}
    assert headings <= set(outline.texts)


def test_a_page_shows_its_own_crawl_and_what_that_has(
    build: Callable[..., pl.DataFrame], tables: ComparisonTables
) -> None:
    older = build({("clipcov", 0.1): 0.4, ("full", 1.0): 0.5}, crawl="crawl-0")
    both = replace(tables, scores=pl.concat([tables.scores, older]))
    assert re.findall("<h2>(crawl-[0-9]+)</h2>", report_of(both, "crawl-0")) == ["crawl-0"]
    assert outline_of(report_of(both, "crawl-0")).tags.count("img") == 1
    assert report_of(both) == report_of(tables)


def test_every_score_is_on_the_page(scores: pl.DataFrame) -> None:
    texts = outline_of(report_of(build_tables(scores))).texts
    assert {"30.0", "[27.5, 32.5]", "50.0", "70.0", "1,000", "10.0", "10 %", "(100 pairs)"} <= set(texts)


def test_the_best_method_of_a_size_is_bold_on_every_set(scores: pl.DataFrame) -> None:
    assert re.findall("<b>([0-9.]+)</b>", report_of(build_tables(scores))) == ["30.0"] * 2 + ["45.0"] * 2


def test_links_are_shown(scores: pl.DataFrame) -> None:
    page = report_of(build_tables(scores), **{"Dagster & more": 'http://127.0.0.1:3000/?a="b"'})
    assert 'href="http://127.0.0.1:3000/?a=&quot;b&quot;"' in page and "Dagster &amp; more" in page


def test_names_are_escaped(build: Callable[..., pl.DataFrame]) -> None:
    attack = "<script>alert(1)</script>"
    scores = build({("clipcov", 0.1): 0.4, ("full", 1.0): None}, crawl=attack, evaluation_sets=(attack, '"><img'))
    numbers = (0.1, 0.0, 0.2, 0.5, 0.5)
    differences = build_differences((0.1, "random", attack, *numbers), crawl=attack)
    outline = outline_of(report_of(build_tables(scores, differences=differences), attack))
    assert "script" not in outline.tags and outline.tags.count("img") == 2
    assert attack in outline.texts
    assert any(text.startswith(f"10 %, {attack}: clipcov against random") for text in outline.texts)


def test_equal_tables_give_an_equal_page(tables: ComparisonTables) -> None:
    backwards = ComparisonTables(**{name: table.reverse() for name, table in vars(tables).items()})
    assert report_of(tables) == report_of(backwards)
