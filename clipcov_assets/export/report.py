"""The comparison of every crawl as one HTML page that needs nothing beside it.

A table of scores enters; a page with inline style and embedded pictures leaves. It holds no date and no
path of its own, so equal scores give an equal page.
"""

import base64
import html
from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from clipcov_assets.core.metrics import Estimate
from clipcov_assets.export.charts import accuracy_curves
from clipcov_assets.export.differences import EXPLANATION as EXPLANATION_OF_DIFFERENCES
from clipcov_assets.export.differences import differences_in_words
from clipcov_assets.export.standings import (
    ABSENT,
    Standing,
    Standings,
    newest_first,
    percent,
    printable,
    show,
    smallest_fraction_reaching,
    standings_of,
)

METRICS = {"acc1": "acc1", "acc5": "acc5", "mean_per_class_recall": "per-class recall"}

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
tbody tr.first td { border-top: 1px solid var(--line); }
tbody tr.bound td { background: var(--mark); border-top: 1px solid var(--line);
  border-bottom: 1px solid var(--line); }
small { color: var(--soft); font-size: .92em; margin-left: .3em; }
.soft { color: var(--soft); }
"""

EXPLANATION = """
<section><h2>How to read this</h2>
<p><b>Interval.</b> The range in brackets holds 95 % of the values that come out when the images of the
evaluation set are drawn again and again with replacement. It says how much the choice of images matters;
it does not say what another training seed would give.</p>
<p><b>Chance</b> is what guessing among the classes reaches. <b>Full</b> is the checkpoint trained on the
whole pool, the level that a subset tries to keep with fewer pairs.</p>
<p><b>Bold</b> is the highest acc1 among the methods at one size. Where intervals overlap, the order of two
methods may be luck.</p></section>
"""


def html_report(scores: pl.DataFrame, differences: pl.DataFrame, *, links: Mapping[str, str]) -> str:
    """Write the page: for each crawl, newest first, the curves, all scores, what is real, the smallest good fractions.

    Args:
        scores: One row a (crawl, method, fraction, evaluation_set, metric).
        differences: One row a (crawl, fraction, method, other, evaluation_set).
        links: Text -> address, shown below the title.
    """
    crawls = newest_first(scores["crawl"].unique().to_list())
    anchors = [(crawl, f"#crawl-{number}") for number, crawl in enumerate(crawls)]
    sections = (_section(scores, differences, crawl, anchor=f"crawl-{number}") for number, crawl in enumerate(crawls))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>ClipCov scorecards</title>\n<style>{STYLE}</style></head>\n<body>\n"
        "<h1>How small may the subset be?</h1>\n"
        '<p class="soft">Zero-shot accuracy of CLIP models trained on subsets of each crawl\'s pool.</p>\n'
        f"{_navigation([*links.items(), *anchors])}\n{''.join(sections)}{EXPLANATION}</body></html>\n"
    )


def _navigation(links: Sequence[tuple[str, str]]) -> str:
    items = (f'<a href="{html.escape(link)}">{_text(name)}</a>' for name, link in links)
    return f"<nav>{''.join(items)}</nav>"


def _section(scores: pl.DataFrame, differences: pl.DataFrame, crawl: str, *, anchor: str) -> str:
    standings = standings_of(scores, crawl)
    picture = base64.b64encode(accuracy_curves(scores, crawl)).decode()
    return (
        f'<section id="{anchor}"><h2>{_text(crawl)}</h2>\n'
        '<div class="wide"><img alt="acc1 against fraction, one line a method" '
        f'src="data:image/png;base64,{picture}"></div>\n'
        f"<h3>Smallest fraction that reaches 90 % of the full pool's acc1</h3>\n"
        f'<div class="wide">{_smallest_table(standings, smallest_fraction_reaching(scores, crawl))}</div>\n'
        "<h3>Scores in per cent</h3>\n"
        f'<div class="wide">{_score_table(standings)}</div>\n{_differences(differences, crawl)}</section>\n'
    )


def _differences(differences: pl.DataFrame, crawl: str) -> str:
    sentences = differences_in_words(differences, crawl)
    if not sentences:
        return ""
    items = "".join(f"<li>{html.escape(sentence)}</li>\n" for sentence in sentences)
    return f"<h3>Which differences are real</h3>\n<p>{html.escape(EXPLANATION_OF_DIFFERENCES)}</p>\n<ul>{items}</ul>"


def _smallest_table(standings: Standings, smallest: pl.DataFrame) -> str:
    reached = {(method, name): (fraction, pairs) for method, name, fraction, pairs in smallest.iter_rows()}
    head = _row("th", ["method", *map(_text, standings.images)])
    body = (
        _row("td", [_text(method), *(_reached(*reached[method, name]) for name in standings.images)])
        for method in standings.methods
    )
    return f"<table><thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"


def _reached(fraction: float | None, pairs: int | None) -> str:
    if fraction is None:
        return '<span class="soft">none</span>'
    return f"{percent(fraction)}<small>{pairs:,} pairs</small>"


def _score_table(standings: Standings) -> str:
    sets = "".join(
        f'<th colspan="{len(METRICS)}">{_text(name)}<small>{images:,} images</small></th>'
        for name, images in standings.images.items()
    )
    metrics = [label for _ in standings.images for label in METRICS.values()]
    head = f'<tr><th colspan="3"></th>{sets}</tr>{_row("th", ["method", "fraction", "pairs", *metrics])}'
    return f"<table><thead>{head}</thead><tbody>{''.join(_score_rows(standings))}</tbody></table>"


def _score_rows(standings: Standings) -> Iterator[str]:
    chances = [standings.chance.get((name, metric)) for name in standings.images for metric in METRICS]
    levels = [ABSENT if chance is None else f"{100 * chance:.1f}" for chance in chances]
    yield _row("td", ["chance", "", "", *levels], style="bound")
    before = 0.0
    for row in standings.rows:
        yield _row("td", _cells(standings, row), style="first" if row.fraction > before > 0 else "")
        before = row.fraction
    if standings.full:
        yield _row("td", _cells(standings, standings.full), style="bound")


def _cells(standings: Standings, row: Standing) -> list[str]:
    cells = [_text(row.method), percent(row.fraction), f"{row.pairs:,}"]
    for name in standings.images:
        for metric in METRICS:
            estimate = row.estimates.get((name, metric))
            cells.append(_estimate(estimate, best=metric == "acc1" and _is_best(standings, row, name)))
    return cells


def _is_best(standings: Standings, row: Standing, evaluation_set: str) -> bool:
    rivals = [other for other in standings.rows if other.fraction == row.fraction]
    found = [other.estimates.get((evaluation_set, "acc1")) for other in rivals]
    own = row.estimates.get((evaluation_set, "acc1"))
    return own is not None and len(rivals) > 1 and own.value == max(one.value for one in found if one)


def _estimate(estimate: Estimate | None, *, best: bool) -> str:
    value, _, interval = show(estimate).strip().partition(" ")
    return f"<b>{value}</b><small>{interval}</small>" if best else f"{value}<small>{interval}</small>"


def _row(tag: str, cells: list[str], *, style: str = "") -> str:
    """Join cells of ready HTML."""
    opening = f'<tr class="{style}">' if style else "<tr>"
    return f"{opening}{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>\n"


def _text(name: str) -> str:
    return html.escape(printable(name))
