"""A subset as a person judges it: what it picked, what it picked last and what it just left out, class by class.

Plain data of one subset, or of two side by side, enters; an HTML page leaves that needs nothing beside it. It holds
no date and no script, and equal galleries give an equal page.
"""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from clipcov_assets.export.gallery import Thumbnail
from clipcov_assets.export.html_page import html_page
from clipcov_assets.export.standings import percent, printable

# A page lies three directories deep: galleries/<crawl>/<fraction>/.
PAIR_ADDRESS = "../../../pair"
LONGEST_CAPTION, LONGEST_NOTE, LONGEST_TITLE, LONGEST_CELL = 90, 60, 400, 200


@dataclass(frozen=True)
class Shown:
    """A pair that is shown.

    Attributes:
        uid: Of the pair.
        caption: As delivered.
        thumbnail: Of its image.
        rank: 0 for the first pick of the ranking.
        gain: Of the pick; None where there are no gains.
        note: What the method knows of the pick besides.
        held_beside: Whether the subset beside this one holds the pair.
    """

    uid: str
    caption: str
    thumbnail: Thumbnail
    rank: int
    gain: float | None
    note: str = ""
    held_beside: bool = False


@dataclass(frozen=True)
class Cut:
    """Where a subset cuts through a latent class, or through the whole pool.

    Attributes:
        pairs: Of the class in the pool.
        picked: Those of them that the subset holds.
        first: First picks.
        last: Last picks; none of them is among the first.
        rejected: What the ranking has right after the cut; None where there is no ranking.
        shared: Picks that the subset beside holds, too; None where there is none beside.
    """

    pairs: int
    picked: int
    first: tuple[Shown, ...]
    last: tuple[Shown, ...]
    rejected: tuple[Shown, ...] | None
    shared: int | None = None


@dataclass(frozen=True)
class ClassSection:
    """A latent class, or the whole pool, with one cut for each subset of the gallery."""

    name: str
    cuts: tuple[Cut, ...]


@dataclass(frozen=True)
class Subset:
    """A subset that is shown: the first `fraction` of the order in which a method picks the pool of a crawl."""

    method: str
    summary: str
    crawl: str
    fraction: float


@dataclass(frozen=True)
class Fault:
    """A pair that was set aside: its place in the delivery, its uid where one could be read, why, and what was seen."""

    place: str
    uid: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Quarantine:
    """What was set aside of a crawl: pairs by reason, and some of them."""

    crawl: str
    reasons: Mapping[str, int]
    some: tuple[Fault, ...]


@dataclass(frozen=True)
class Gallery:
    """One subset, or two side by side.

    Attributes:
        subsets: One or two.
        whole: The whole pool's cuts.
        classes: Some latent classes, in the order in which they are shown.
        all_classes: Latent classes that have pairs.
        quarantines: One for each crawl of the subsets.
    """

    subsets: tuple[Subset, ...]
    whole: ClassSection
    classes: tuple[ClassSection, ...]
    all_classes: int
    quarantines: tuple[Quarantine, ...]


GALLERY_STYLE = """
:root { --other: #b04a00; }
@media (prefers-color-scheme: dark) { :root { --other: #f0a35e; } }
body { max-width: 84rem; }
img { min-width: 0; padding: 0; border-radius: 0; }
h2 { display: flex; flex-wrap: wrap; align-items: baseline; gap: .25rem .75rem; }
h2 .soft, h3 .soft { font-size: .86rem; font-weight: 400; }
h3, h4 { margin: 0 0 .4rem; }
h4 { font-size: .8rem; font-weight: 600; color: var(--soft); }
h4 small { font-weight: 400; }
nav { gap: .3rem .9rem; font-size: .86rem; }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }
nav small { margin: 0 0 0 .35rem; font-variant-numeric: tabular-nums; }
.cuts { display: grid; gap: 1.5rem 3.25rem; }
.cuts.two { grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.cut { display: grid; gap: .25rem 1.5rem; align-content: start; }
.one .cut { grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); }
.one .tiles { grid-template-columns: repeat(3, 1fr); }
.two .tiles { grid-template-columns: repeat(6, 1fr); }
@media (max-width: 40rem) { .two .tiles { grid-template-columns: repeat(3, 1fr); } }
.tiles { display: grid; gap: .5rem; }
.tile { position: relative; min-width: 0; color: inherit; text-decoration: none; font-size: .72rem;
  line-height: 1.3; }
.tile:hover .caption { text-decoration: underline; }
.frame { display: flex; align-items: center; justify-content: center; aspect-ratio: 1; margin-bottom: .2rem;
  overflow: hidden; border: 1px solid var(--line); border-radius: 6px; background: var(--page); color: var(--soft);
  text-align: center; }
.frame img { width: 100%; height: 100%; object-fit: contain; }
.picked, .rejected { padding: .6rem .75rem; border: 1px solid transparent; border-radius: 8px; }
.picked { padding-left: 0; padding-right: 0; }
.rejected { background: var(--page); border: 1px dashed var(--line); }
.two .rejected { margin: 0 -.75rem; }
.two .picked { padding-bottom: .25rem; }
.held .frame { outline: 3px solid var(--badge); outline-offset: -2px; border-color: transparent; }
.picked { --badge: var(--accent); }
.rejected { --badge: var(--other); }
.badge { position: absolute; top: 0; right: 0; padding: 0 .4em; border-radius: 0 6px 0 6px;
  background: var(--badge); color: var(--card); font-weight: 600; }
.both { color: var(--accent); }
.other { color: var(--other); }
.caption { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; overflow: hidden;
  min-height: 2.6em; overflow-wrap: anywhere; unicode-bidi: isolate; }
.about { display: block; overflow: hidden; color: var(--soft); white-space: nowrap; text-overflow: ellipsis;
  unicode-bidi: isolate; }
.none { margin: 0; color: var(--soft); font-size: .8rem; }
.kept { position: relative; display: inline-block; width: 7rem; height: .5rem; border-radius: 3px;
  background: var(--line); }
.kept i { position: absolute; inset: 0 auto 0 0; border-radius: 3px; background: var(--accent); }
.kept b { position: absolute; top: -.15rem; bottom: -.15rem; width: 2px; background: var(--ink); }
td { max-width: 26rem; overflow: hidden; text-overflow: ellipsis; text-align: left; unicode-bidi: isolate; }
th { text-align: left; }
"""


def gallery_page(gallery: Gallery) -> str:
    """Write the page: the whole subset, its latent classes, and what of the crawl was set aside.

    Every pair leads to `../../../pair?uid=...&method=...&crawl=...`, an address relative to the page's own, and says
    its rank and its gain where the mouse rests.
    """
    sections = [gallery.whole, *gallery.classes]
    title = " beside ".join(map(_label, gallery.subsets))
    body = (
        f"{_opening(gallery, title)}{_navigation(sections)}\n"
        f"{''.join(_section(gallery, section, number) for number, section in enumerate(sections))}"
        f"{''.join(map(_quarantine, gallery.quarantines))}"
    )
    return html_page(title, GALLERY_STYLE, body)


def _opening(gallery: Gallery, title: str) -> str:
    summaries = {subset.method: subset.summary for subset in gallery.subsets}
    lines = "".join(f"<p><b>{_name(method)}</b>: {_line(text)}</p>\n" for method, text in summaries.items())
    shown, every = len(gallery.classes), gallery.all_classes
    classes = f"The {shown} largest of {every:,} latent classes" if shown < every else "All latent classes"
    marked = ""
    if len(gallery.subsets) > 1:
        marked = (
            'Picks that both hold are marked <b class="both">both</b>; what one rejects and the other holds is marked '
            '<b class="other">other</b>. '
        )
    return (
        f"<h1>{_line(title)}</h1>\n{lines}"
        f'<p class="soft">{classes}, largest first. The best of the rejected are those that the ranking has right '
        f"after the cut. {marked}A bar is the share that is kept; its tick is that of the whole pool.</p>\n"
    )


def _navigation(sections: Sequence[ClassSection]) -> str:
    links = (
        f'<a href="#section-{number}">{_name(section.name)}<small>'
        f"{' | '.join(f'{cut.picked:,}/{cut.pairs:,}' for cut in section.cuts)}</small></a>"
        for number, section in enumerate(sections)
    )
    return f"<nav>{''.join(links)}</nav>"


def _section(gallery: Gallery, section: ClassSection, number: int) -> str:
    alone = len(section.cuts) == 1
    aside = _kept(section.cuts[0], gallery.whole.cuts[0]) if alone else ""
    cuts = (
        _cut(subset, cut, "" if alone else f"<h3>{_line(_label(subset))} {_kept(cut, whole)}</h3>")
        for subset, cut, whole in zip(gallery.subsets, section.cuts, gallery.whole.cuts, strict=True)
    )
    return (
        f'<section id="section-{number}"><h2>{_name(section.name)} {aside}</h2>\n'
        f'<div class="cuts {"one" if alone else "two"}">{"".join(cuts)}</div></section>\n'
    )


def _kept(cut: Cut, whole: Cut) -> str:
    """How much of a class is kept, in words and as a bar with a tick at the share of the whole pool."""
    shared = "" if cut.shared is None else f", {cut.shared:,} in both"
    bar = f'<i style="width:{_share(cut)}"></i><b style="left:{_share(whole)}"></b>'
    return (
        f'<span class="soft">{cut.picked:,} of {cut.pairs:,} pairs kept{shared}</span> <span class="kept">{bar}</span>'
    )


def _share(cut: Cut) -> str:
    return f"{100 * cut.picked / max(cut.pairs, 1):.1f}%"


def _cut(subset: Subset, cut: Cut, heading: str) -> str:
    last = "" if cut.picked else "none"
    parts = [
        _tiles(subset, "First picks", cut.first, absent="none"),
        _tiles(subset, "Last picks", cut.last, absent=last or "all are shown as first picks"),
    ]
    if cut.rejected is not None:
        parts.append(_tiles(subset, "Best of the rejected", cut.rejected, absent="none", kind="rejected"))
    return f'<div>{heading}<div class="cut">{"".join(parts)}</div></div>'


def _tiles(subset: Subset, title: str, shown: Sequence[Shown], *, absent: str, kind: str = "picked") -> str:
    ranks = f"<small>rank {shown[0].rank:,} to {shown[-1].rank:,}</small>" if shown else ""
    tiles = "".join(_tile(subset, one, "other" if kind == "rejected" else "both") for one in shown)
    content = f'<div class="tiles">{tiles}</div>' if tiles else f'<p class="none">{absent}</p>'
    return f'<div class="{kind}"><h4>{title}{ranks}</h4>{content}</div>\n'


def _tile(subset: Subset, shown: Shown, badge: str) -> str:
    small = shown.thumbnail
    picture = f'<img alt="" src="{html.escape(small.address)}">' if small.address else _line(small.words)
    mark = f'<span class="badge">{badge}</span>' if shown.held_beside else ""
    note = f'<span class="about">{_line(shown.note, LONGEST_NOTE)}</span>' if shown.note else ""
    return (
        f'<a class="tile{" held" if shown.held_beside else ""}" href="{_pair_address(subset, shown)}" '
        f'title="{_title(shown)}"><span class="frame">{picture}</span>{mark}'
        f'<span class="caption" dir="auto">{_line(shown.caption, LONGEST_CAPTION)}</span>{note}</a>'
    )


def _pair_address(subset: Subset, shown: Shown) -> str:
    query = urlencode({"uid": shown.uid, "method": subset.method, "crawl": subset.crawl}, quote_via=quote, safe="")
    return html.escape(f"{PAIR_ADDRESS}?{query}")


def _title(shown: Shown) -> str:
    gain = "" if shown.gain is None else f", gain {shown.gain:.4g}"
    lines = [f"rank {shown.rank:,}{gain}", shown.note, f"uid {shown.uid}", shown.caption]
    return "\n".join(_line(line, LONGEST_TITLE) for line in lines if line)


def _quarantine(quarantine: Quarantine) -> str:
    title = f"<h2>Set aside of {_name(quarantine.crawl)}</h2>"
    if not quarantine.reasons:
        return f'<section>{title}<p class="none">No pair of this crawl is in quarantine.</p></section>\n'
    counts = ", ".join(f"{count:,} {_name(reason)}" for reason, count in quarantine.reasons.items())
    header = "".join(f"<th>{name}</th>" for name in ("reason", "place", "uid", "what was seen"))
    rows = (
        "".join(f"<td>{_line(cell, LONGEST_CELL)}</td>" for cell in (one.reason, one.place, one.uid, one.detail))
        for one in quarantine.some
    )
    body = "".join(f"<tr>{row}</tr>\n" for row in rows)
    return (
        f'<section>{title}<p class="note">In quarantine: {counts}. {len(quarantine.some):,} of them:</p>\n'
        f'<div class="wide"><table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table></div></section>\n'
    )


def _label(subset: Subset) -> str:
    return f"{printable(subset.method)}, {printable(subset.crawl)}, {percent(subset.fraction)}"


def _name(name: str) -> str:
    return html.escape(printable(name))


def _line(text: str, longest: int = LONGEST_TITLE) -> str:
    """Untrusted text on one line, escaped, without control characters and of bounded length."""
    line = re.sub(r"[\x00-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", " ".join(text.split()))
    return html.escape(line if len(line) <= longest else f"{line[: longest - 1]}…")
