import re
from collections.abc import Callable
from html.parser import HTMLParser

import polars as pl

from clipcov_assets.export.report import html_report
from clipcov_assets.tables import DIFFERENCES

NO_DIFFERENCES = pl.DataFrame(DIFFERENCES.empty_table())


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


def outline_of(page: str) -> Outline:
    outline = Outline()
    outline.feed(page)
    outline.close()
    assert not outline.open
    return outline


def test_the_page_needs_nothing_beside_it(scores: pl.DataFrame) -> None:
    outline = outline_of(html_report(scores, NO_DIFFERENCES, links={}))
    assert "script" not in outline.tags and "link" not in outline.tags
    assert all(address.startswith(("#crawl-", "data:image/png;base64,")) for address in outline.addresses)


def test_crawls_come_newest_first(build: Callable[..., pl.DataFrame]) -> None:
    accuracies = {("clipcov", 0.1): 0.4, ("full", 1.0): 0.5}
    scores = pl.concat([build(accuracies, crawl=crawl) for crawl in ("crawl-9", "crawl-10", "crawl-1")])
    page = html_report(scores, NO_DIFFERENCES, links={})
    assert re.findall("<h2>(crawl-[0-9]+)</h2>", page) == ["crawl-10", "crawl-9", "crawl-1"]
    assert outline_of(page).tags.count("img") == 3


def test_every_score_is_on_the_page(scores: pl.DataFrame) -> None:
    texts = outline_of(html_report(scores, NO_DIFFERENCES, links={})).texts
    assert {"30.0", "[27.5, 32.5]", "50.0", "70.0", "1,000", "10.0", "10 %", "100 pairs"} <= set(texts)


def test_the_best_method_of_a_size_is_bold_on_every_set(scores: pl.DataFrame) -> None:
    assert re.findall("<b>([0-9.]+)</b>", html_report(scores, NO_DIFFERENCES, links={})) == ["30.0"] * 2 + ["45.0"] * 2


def test_links_are_shown(scores: pl.DataFrame) -> None:
    page = html_report(scores, NO_DIFFERENCES, links={"Dagster & more": 'http://127.0.0.1:3000/?a="b"'})
    assert 'href="http://127.0.0.1:3000/?a=&quot;b&quot;"' in page and "Dagster &amp; more" in page


def test_names_are_escaped(build: Callable[..., pl.DataFrame]) -> None:
    attack = "<script>alert(1)</script>"
    accuracies = {("clipcov", 0.1): 0.4, ("full", 1.0): None}
    page = html_report(build(accuracies, crawl=attack, evaluation_sets=(attack, '"><img')), NO_DIFFERENCES, links={})
    outline = outline_of(page)
    assert "script" not in outline.tags and outline.tags.count("img") == 1
    assert attack in outline.texts


def test_equal_scores_give_an_equal_page(scores: pl.DataFrame) -> None:
    assert html_report(scores, NO_DIFFERENCES, links={}) == html_report(scores.reverse(), NO_DIFFERENCES, links={})
