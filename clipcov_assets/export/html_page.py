"""The frame of every HTML page: a head that lets nothing run and nothing be loaded, and the style that all share."""

import html

from clipcov_assets.export.standings import printable

LONGEST_TITLE = 400
# Nothing that a caption, a name or an image brings along can run or call home, wherever the page is kept.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
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


def html_page(title: str, style: str, body: str) -> str:
    """Write a page that needs nothing beside it.

    Args:
        title: Any text.
        style: CSS of its own, after the one that all pages share.
        body: HTML, whose pictures are `data:` addresses.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{html.escape(printable(title, LONGEST_TITLE))}</title>\n<style>{STYLE}{style}</style></head>\n"
        f"<body>\n{body}</body></html>\n"
    )
