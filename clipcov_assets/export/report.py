"""The comparison of every crawl as one HTML page that needs nothing beside it.

Tables enter; a page with inline style and embedded pictures leaves. It holds no date and no path of its own, so
equal tables give an equal page.
"""

import base64
import html
from collections.abc import Collection, Iterable, Mapping, Sequence

import polars as pl

from clipcov_assets.export.charts import PICTURES, pictures
from clipcov_assets.export.comparison_tables import ComparisonTables
from clipcov_assets.export.differences import differences_in_words, explanation_of
from clipcov_assets.export.headline import headline
from clipcov_assets.export.standings import newest_first, printable, standings_of
from clipcov_assets.export.summary import Cell, Row, Table, metric_tables, summary

STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --soft: #5c6875; --line: #d9dee4; --page: #f6f7f9;
  --card: #ffffff; --accent: #0072b2; --mark: #e8f2f9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #9aa6b2; --line: #333c46;
  --page: #14181d; --card: #1c2229; --accent: #6cb8e6; --mark: #21303c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; }
h2 { font-size: 1.3rem; margin: 0 0 1rem; }
h3 { font-size: 1rem; margin: 1.75rem 0 .5rem; }
p { max-width: 48rem; margin: .5rem 0; }
a { color: var(--accent); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: .75rem 0 1.5rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1.25rem 1.5rem 1.5rem; margin: 1.5rem 0; }
img { display: block; width: 100%; min-width: 40rem; max-width: 64rem; margin: 0 auto; background: #fff;
  border-radius: 6px; padding: .5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .75rem; text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
th:first-child, td:first-child { text-align: left; padding-left: .25rem; }
thead th[colspan] { text-align: center; color: var(--ink); border-bottom: 1px solid var(--line); }
thead tr:last-child th { border-bottom: 1px solid var(--line); }
th small { font-weight: 400; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--card); }
tbody tr.first td { border-top: 1px solid var(--line); }
tbody tr.bound td { background: var(--mark); border-top: 1px solid var(--line);
  border-bottom: 1px solid var(--line); }
small { color: var(--soft); font-size: .92em; margin-left: .3em; }
figure { margin: 0; }
figcaption, .note { color: var(--soft); font-size: .92rem; max-width: 48rem; margin: .5rem 0 .75rem; }
p.lead { font-size: 1.05rem; max-width: 56rem; }
details { margin: 1.75rem 0 .5rem; }
summary { cursor: pointer; font-weight: 600; }
.soft { color: var(--soft); }
"""

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


def html_report(
    tables: ComparisonTables,
    *,
    links: Mapping[str, str],
    drawn: Mapping[str, Mapping[str, bytes]] | None = None,
    wanted: Collection[tuple[str, float]] = (),
) -> str:
    """Write the page: for each crawl, newest first, what it says in words, the pictures, all tables and differences.

    Args:
        tables: Rows of all crawls; what only some crawls have is shown for those.
        links: Text -> address, shown below the title.
        drawn: Crawl -> its pictures, name -> PNG, where they are drawn already; the others are drawn here.
        wanted: Method and fraction of every scorecard that there should be, as `headline` takes them.
    """
    crawls = newest_first(tables.scores["crawl"].unique().to_list())
    anchors = [(crawl, f"#crawl-{number}") for number, crawl in enumerate(crawls)]
    ready = drawn or {}
    sections = (
        _section(tables, crawl, ready.get(crawl) or pictures(tables, crawl), wanted, anchor=f"crawl-{number}")
        for number, crawl in enumerate(crawls)
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>ClipCov scorecards</title>\n<style>{STYLE}</style></head>\n<body>\n"
        "<h1>How small may the subset be?</h1>\n"
        '<p class="soft">Zero-shot scores of CLIP models trained on subsets of each crawl\'s pool.</p>\n'
        f"{_navigation([*links.items(), *anchors])}\n{''.join(sections)}{EXPLANATION}</body></html>\n"
    )


def _navigation(links: Sequence[tuple[str, str]]) -> str:
    items = (f'<a href="{html.escape(link)}">{_text(name)}</a>' for name, link in links)
    return f"<nav>{''.join(items)}</nav>"


def _section(
    tables: ComparisonTables,
    crawl: str,
    pngs: Mapping[str, bytes],
    wanted: Collection[tuple[str, float]],
    *,
    anchor: str,
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
    return f'<section id="{anchor}"><h2>{_text(crawl)}</h2>\n{"".join(parts)}</section>\n'


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
