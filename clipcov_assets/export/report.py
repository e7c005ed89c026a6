"""The comparison of a crawl as one HTML page that needs nothing beside it.

Tables enter; a page with inline style and embedded pictures leaves. It holds no date and no path of its own, so
equal tables give an equal page.
"""

import base64
import html
from collections.abc import Collection, Iterable, Mapping

import polars as pl

from clipcov_assets.export.charts import PICTURES
from clipcov_assets.export.comparison_tables import ComparisonTables
from clipcov_assets.export.differences import differences_in_words, explanation_of
from clipcov_assets.export.headline import headline
from clipcov_assets.export.html_page import html_page
from clipcov_assets.export.standings import printable, standings_of
from clipcov_assets.export.summary import Cell, Row, Table, metric_tables, summary

EXPLANATION = """
<section><h2>How to read this</h2>
<p><b>Interval.</b> The range in brackets holds 95 % of the values that come out when the images of the
evaluation set are drawn again and again with replacement. It says how much the choice of images matters;
it does not say what another training seed would give. Where several seeds were trained, values are means over them
and the number after ± is their standard deviation, which says little when there are two or three.</p>
<p><b>Main metric</b> is the one that a set is known by: acc1, or another where it is named.
<b>Chance</b> is what guessing reaches. <b>Full</b> is the checkpoint trained on the
whole pool, the level that a subset tries to keep with fewer pairs.</p>
<p><b>Bold</b> is the highest main metric among the methods at one size. Where intervals overlap, the order of two
methods may be luck; the paired comparison says more, because it looks at the same images.</p></section>
"""


def report_name(crawl: str) -> str:
    """Where the report of a crawl stands among all reports."""
    return f"comparisons/{crawl}.html"


def html_report(
    tables: ComparisonTables,
    crawl: str,
    *,
    links: Mapping[str, str],
    drawn: Mapping[str, bytes],
    wanted: Collection[tuple[str, float]] = (),
) -> str:
    """Write the page: what a crawl says in words, the pictures, all tables and differences.

    Args:
        tables: Rows of the crawl; those of others are not shown.
        crawl: Its name.
        links: Text -> address, shown below the title.
        drawn: Its pictures, name -> PNG.
        wanted: Method and fraction of every scorecard that there should be, as `headline` takes them.
    """
    body = (
        "<h1>How small may the subset be?</h1>\n"
        '<p class="soft">Zero-shot scores of CLIP models trained on subsets of the pool as of this crawl.</p>\n'
        f"{_navigation(links)}\n{_section(tables, crawl, drawn, wanted)}{EXPLANATION}"
    )
    return html_page(f"ClipCov scorecards of {crawl}", "", body)


def _navigation(links: Mapping[str, str]) -> str:
    items = (f'<a href="{html.escape(link)}">{_text(name)}</a>' for name, link in links.items())
    return f"<nav>{''.join(items)}</nav>"


def _section(
    tables: ComparisonTables,
    crawl: str,
    pngs: Mapping[str, bytes],
    wanted: Collection[tuple[str, float]],
) -> str:
    drawn = {name: _figure(name, png) for name, png in pngs.items()}
    written = {name: _table(table) for name, table in summary(tables, crawl).items()}
    metrics = _details("All metrics", map(_table, metric_tables(standings_of(tables.scores, crawl))))
    # A picture stands with the words on the same question.
    parts = [
        f'<p class="lead">{html.escape(headline(tables, crawl, wanted=wanted))}</p>\n',
        drawn.pop("accuracy_curves"),
        written.pop("scores"),
        metrics,
        *(written.pop(name, "") for name in ("groups", "sizes", "retained")),
        drawn.pop("difference_forest", ""),
        _differences(tables.differences, crawl),
        drawn.pop("cost_frontier", ""),
        *written.values(),
        *drawn.values(),
    ]
    return f"<section><h2>{_text(crawl)}</h2>\n{''.join(parts)}</section>\n"


def _figure(name: str, png: bytes) -> str:
    picture = PICTURES[name]
    return (
        f'<h3>{html.escape(picture.title)}</h3>\n<figure><div class="wide"><img alt="{html.escape(picture.title)}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}"></div>\n'
        f"<figcaption>{html.escape(picture.caption)}</figcaption></figure>\n"
    )


def _differences(differences: pl.DataFrame, crawl: str) -> str:
    sentences = differences_in_words(differences, crawl)
    items = "".join(f"<li>{html.escape(sentence)}</li>\n" for sentence in sentences)
    explanation = f'<p class="note">{html.escape(explanation_of(differences, crawl))}</p>\n'
    return _details("All paired differences in words", [f"{explanation}<ul>{items}</ul>\n"]) if sentences else ""


def _details(title: str, parts: Iterable[str]) -> str:
    """Fold away what few need."""
    content = "".join(parts)
    return f"<details><summary>{title}</summary>\n{content}</details>\n" if content else ""


def _table(table: Table) -> str:
    note = f'<p class="note">{html.escape(table.note)}</p>\n' if table.note else ""
    remarks = "".join(f'<p class="note">{html.escape(remark)}</p>\n' for remark in table.remarks)
    head, body = _row("th", Row(table.header)), "".join(_row("td", row) for row in table.rows)
    grid = f'<div class="wide"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>\n' if body else ""
    return f"<h3>{html.escape(table.title)}</h3>\n{note}{grid}{remarks}"


def _row(tag: str, row: Row) -> str:
    style = "bound" if row.bound else "first" if row.new_group else ""
    opening = f'<tr class="{style}">' if style else "<tr>"
    return f"{opening}{''.join(f'<{tag}>{_cell(cell)}</{tag}>' for cell in row.cells)}</tr>\n"


def _cell(cell: Cell) -> str:
    text = html.escape(cell.text)
    aside = f"<small>{html.escape(cell.aside)}</small>" if cell.aside else ""
    return f"<b>{text}</b>{aside}" if cell.bold else text + aside


def _text(name: str) -> str:
    return html.escape(printable(name))
