"""Why a pair is in a subset or not, as text for a terminal and as one HTML page that needs nothing beside it.

What is known of a pair enters as plain data: an `Explanation` where the pool holds it, a `CombinedExplanation` where
the subsets of two methods are combined, an `Absence` where only a crawl holds it. Captions, names and uids are shown
as they are and never acted on; images are made small.
"""

import html
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from clipcov_assets.export.gallery import thumbnail
from clipcov_assets.export.html_page import html_page
from clipcov_assets.export.standings import ABSENT, percent, printable

LONGEST_CAPTION, LONGEST_LINE = 2_000, 100  # characters of the pair's own caption, and of one in a list
LARGE, SMALL = 320, 112  # pixels of the pair's own picture, and of one in a list

TERM_WORDS = {
    "class": "similarity to its class, less what the picks before it have covered",
    "self": "agreement of its own image and caption",
    "label": "closeness of its caption to the name of its class",
    "class_reg": "correction for the size of its class",
    "inter": "similarity to the other classes, which counts against it",
}

PAGE_STYLE = """
img { min-width: 0; padding: 0; }
.pair { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }
.pair > .picture { flex: 0 0 auto; width: 15rem; max-width: 100%; }
.pair > div { flex: 1 1 22rem; min-width: 0; }
.picture { display: block; object-fit: contain; aspect-ratio: 1; border: 1px solid var(--line); }
span.picture { display: grid; place-items: center; border-radius: 6px; color: var(--soft); font-size: .86rem; }
blockquote { margin: 0 0 1rem; font-size: 1.15rem; overflow-wrap: anywhere; }
.verdicts { display: flex; flex-wrap: wrap; gap: .5rem; padding: 0; margin: 0 0 1rem; list-style: none; }
.verdicts li { border: 1px solid var(--line); border-radius: 99px; padding: .1rem .8rem; color: var(--soft); }
.verdicts li.in { background: var(--mark); border-color: var(--accent); color: var(--ink); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.25rem; margin: 0; font-size: .92rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
tr.total td { border-top: 1px solid var(--line); font-weight: 600; }
.terms td:nth-child(2) { text-align: left; white-space: normal; min-width: 16rem; color: var(--soft); }
.bar { position: relative; width: 12rem; height: .8rem; }
.bar::before { content: ""; position: absolute; left: 50%; top: -.2rem; bottom: -.2rem;
  border-left: 1px solid var(--line); }
.bar i { position: absolute; top: 0; bottom: 0; background: var(--accent); border-radius: 2px; }
.bar i.less { background: var(--soft); }
.picks { display: flex; flex-wrap: wrap; gap: 1rem; }
.picks figure { width: 8.5rem; }
.picks figcaption { margin: .3rem 0 0; font-size: .8rem; line-height: 1.35; overflow-wrap: anywhere; }
.picks figcaption b { color: var(--ink); }
.picks figcaption span { display: block; }
form { display: flex; flex-wrap: wrap; gap: .75rem 1.25rem; align-items: end; }
label { display: grid; gap: .2rem; color: var(--soft); font-size: .86rem; }
label:first-child { flex: 1 1 20rem; }
input, select, button { font: inherit; font-size: 1rem; padding: .35rem .6rem; color: var(--ink);
  background: var(--page); border: 1px solid var(--line); border-radius: 6px; }
button { background: var(--accent); border-color: var(--accent); color: var(--card); cursor: pointer; }
"""


@dataclass(frozen=True)
class ShownPair:
    """A pair as a person knows it; `image` is None where the delivery brought embeddings only."""

    uid: str
    caption: str
    image: bytes | None


@dataclass(frozen=True)
class OtherPair:
    """Another pair that bears on this one.

    Attributes:
        pair: Which.
        rank: 0 for the first pick.
        similarity: Of both pairs.
        measure: What that is: "similarity", the sum of both cosines of one's image and the other's caption, or
            "cosine", that of both images.
    """

    pair: ShownPair
    rank: int
    similarity: float
    measure: str = "similarity"


@dataclass(frozen=True)
class Cut:
    """One size of the method's subsets, and on which side of its cut the pair is.

    Attributes:
        fraction: Share of the pool.
        size: Pairs of the subset; None where it is not materialized, as is `last_gain`.
        last_gain: Gain of its last pick.
    """

    fraction: float
    size: int | None = None
    last_gain: float | None = None

    def holds(self, rank: int) -> bool:
        """Whether the subset holds the pair of a rank."""
        return self.size is not None and rank < self.size


@dataclass(frozen=True)
class ClassPicks:
    """What greedy had before it in the pair's latent class.

    Attributes:
        pairs: Pairs of the class in the pool.
        before: How many of them were picked before the pair.
        terms: Term of the objective -> its share of the gain; empty where the gains are not those of the objective.
        covered: What the picks before it have taken off the gain; None where the objective has no such term.
        last: The last of them, newest first.
        most_similar: The most similar of them, most similar first.
    """

    pairs: int
    before: int
    terms: Mapping[str, float]
    covered: float | None
    last: tuple[OtherPair, ...]
    most_similar: tuple[OtherPair, ...]


@dataclass(frozen=True)
class Explanation:
    """Why a method ranked a pair of the pool where it is.

    Attributes:
        pair: The pair.
        method: Selection method.
        summary: One sentence on what the method picks first.
        crawl: The pool is that as of this crawl.
        pool_pairs: Pairs of the pool.
        brought_by: Oldest crawl that holds the pair.
        place: Where it lay in the delivery.
        latent_class: Name of its class.
        clip_score: Cosine of its image and caption under the proxy.
        rank: 0 for the first pick.
        gain: What the pick added to the method's objective, or its score.
        cuts: The sizes of the method's subsets, small ones first.
        class_picks: Where the method is ClipCov or a part of it.
        partner: Where the method is SemDeDup: the pair before it whose image is most similar, if any is.
        entry: Where the method is MetaCLIP: the metadata entry that let it in, if any did.
    """

    pair: ShownPair
    method: str
    summary: str
    crawl: str
    pool_pairs: int
    brought_by: str
    place: str
    latent_class: str
    clip_score: float
    rank: int
    gain: float
    cuts: tuple[Cut, ...]
    class_picks: ClassPicks | None = None
    partner: OtherPair | None = None
    entry: str | None = None


@dataclass(frozen=True)
class CombinedCut:
    """One size of a combination's subsets, and whether it holds the pair.

    Attributes:
        fraction: Share of the pool that each of the two subsets has.
        size: Pairs of the combination; None where it is not materialized.
        held: Whether the pair is one of them.
    """

    fraction: float
    size: int | None = None
    held: bool = False


@dataclass(frozen=True)
class CombinedExplanation:
    """Why a pair is in the subsets of a combination or not: both methods' reasons.

    Attributes:
        name: Of the combination.
        summary: One sentence on what it picks.
        cuts: The sizes of its subsets, small ones first.
        first: Why its first method ranked the pair where it is.
        second: The same of the other one; the cuts of both are at the fractions of `cuts`.
    """

    name: str
    summary: str
    cuts: tuple[CombinedCut, ...]
    first: Explanation
    second: Explanation


@dataclass(frozen=True)
class SetAside:
    """A pair that a crawl put into quarantine: why, and where it lay."""

    crawl: str
    place: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Absence:
    """A pair that the pool does not hold, though a crawl knows it.

    Attributes:
        uid: The pair.
        crawl: The pool is that as of this crawl.
        set_aside: Its places in quarantine, oldest crawl first.
        withdrawn: Crawls that hold it and are selected from no more -> why.
        left_out: Crawls that hold it and that this pool was made without, oldest first.
        changed: Crawls of this pool that hold it by now and did not when the pool was made, oldest first.
        later: Crawls after this pool that hold it, oldest first.
    """

    uid: str
    crawl: str
    set_aside: tuple[SetAside, ...]
    withdrawn: Mapping[str, str]
    left_out: tuple[str, ...]
    changed: tuple[str, ...]
    later: tuple[str, ...]


def place_words(file: str | None, key: str | None, row: int | None) -> str:
    """Say where a pair lies in its delivery: `00003.tar, key 000012`."""
    parts = [file, key and f"key {key}", None if row is None else f"row {row}"]
    return ", ".join(part for part in parts if part) or "unknown place"


def pair_text(explanation: Explanation | CombinedExplanation | Absence) -> str:
    """Write the explanation as lines for a terminal."""
    if isinstance(explanation, Absence):
        lines = _absence(explanation)
    elif isinstance(explanation, CombinedExplanation):
        lines = _combined_lines(explanation)
    else:
        lines = _lines(explanation)
    return "\n".join(printable(line, LONGEST_CAPTION) for line in lines)


def pair_page(
    explanation: Explanation | CombinedExplanation | Absence,
    *,
    links: Mapping[str, str] | None = None,
    address: Callable[[str], str] | None = None,
) -> str:
    """Write the page.

    Args:
        explanation: What is known of the pair.
        links: Text -> address, shown below the title.
        address: Where the page of another pair is, by its uid; None where it has none.
    """
    if isinstance(explanation, Absence):
        uid, sentences = explanation.uid, "".join(f"<p>{_safe(line)}</p>\n" for line in _absence(explanation))
        return page(f"Why not {_one_line(uid)}?", f"<section>{sentences}</section>\n", links=links)
    if isinstance(explanation, CombinedExplanation):
        return _combined_page(explanation, links)
    picks = explanation.class_picks
    parts = [
        _pair_section(explanation, [(cut.fraction, _verdict(cut, explanation.rank)) for cut in explanation.cuts]),
        _section("Where it stands", _standing_parts(explanation)),
        _section("What its gain is made of", _term_parts(explanation, picks.terms)) if picks and picks.terms else "",
        *(_cards(title, pairs, address) for title, pairs in _others(explanation).items()),
    ]
    return page("Why this pair?", "".join(parts), note=_note(explanation.method, explanation), links=links)


def _combined_page(explanation: CombinedExplanation, links: Mapping[str, str] | None) -> str:
    first, second = explanation.first, explanation.second
    standing = [f"<p>{_safe(explanation.summary)}</p>\n", _table(_combined_cut_table(explanation))]
    parts = [
        _pair_section(first, [(cut.fraction, _combined_verdict(cut)) for cut in explanation.cuts]),
        _section("Where it stands", standing),
        *(_section(f"By {one.method}", _standing_parts(one)) for one in (first, second)),
    ]
    return page("Why this pair?", "".join(parts), note=_note(explanation.name, first), links=links)


def page(title: str, body: str, *, note: str = "", links: Mapping[str, str] | None = None) -> str:
    """Write a page in the style of the report.

    Args:
        title: Any text.
        body: HTML.
        note: Any text, below the title.
        links: Text -> address, below the note.
    """
    items = "".join(f'<a href="{html.escape(link)}">{_safe(name)}</a>' for name, link in (links or {}).items())
    navigation = f"<nav>{items}</nav>\n" if items else ""
    below = f'<p class="soft">{_safe(note)}</p>\n' if note else ""
    return html_page(title, PAGE_STYLE, f"<h1>{_safe(title)}</h1>\n{below}{navigation}{body}")


def _lines(explanation: Explanation) -> list[str]:
    lines = [
        _caption(explanation.pair, LONGEST_CAPTION),
        "",
        *(f"{name:14}{value}" for name, value in _facts(explanation).items()),
        "",
        _standing(explanation),
        explanation.summary,
        *_reasons(explanation),
        "",
        *_aligned(_cut_table(explanation), left=(0, 2)),
    ]
    picks = explanation.class_picks
    if picks and picks.terms:
        rows = [*_term_rows(picks.terms), ("gain", _number(explanation.gain), "")]
        lines += ["", "What its gain is made of", *_aligned(rows, left=(0, 2))]
    for title, pairs in _others(explanation).items():
        rows = [(*_words(one), _caption(one.pair, LONGEST_LINE)) for one in pairs]
        lines += ["", title, *_aligned(rows, left=(0, 2))]
    return lines


def _combined_lines(explanation: CombinedExplanation) -> list[str]:
    first, second = explanation.first, explanation.second
    lines = [
        _caption(first.pair, LONGEST_CAPTION),
        "",
        *(f"{name:14}{value}" for name, value in _facts(first).items()),
        "",
        f"{explanation.name}: {explanation.summary}",
        "",
        *_aligned(_combined_cut_table(explanation), left=(0, 2, 3, 4)),
    ]
    for one in (first, second):
        lines += ["", f"By {one.method}", _standing(one), one.summary, *_reasons(one)]
        lines += ["", *_aligned(_cut_table(one), left=(0, 2))]
    return lines


def _absence(absence: Absence) -> list[str]:
    """What is known of a pair that the pool lacks, in sentences."""
    lines = [f"Pair {_one_line(absence.uid)} is not in the pool of {absence.crawl}."]
    for one in absence.set_aside:
        detail = f": {one.detail}" if one.detail else ""
        lines.append(f"{one.crawl} put it into quarantine ({one.place}) because of {one.reason}{detail}.")
    for crawl, reason in absence.withdrawn.items():
        lines.append(f"{crawl} holds it, but was withdrawn: {reason}.")
    for crawl in absence.left_out:
        lines.append(
            f"{crawl} holds it, but was left out of this pool: it was not ready when the pool was made, or a check of "
            f"it failed. Look at its checks, then materialize pool for {absence.crawl} again."
        )
    for crawl in absence.changed:
        lines.append(
            f"{crawl} holds it, but did not when this pool was made: materialize pool for {absence.crawl} again."
        )
    if absence.later:
        lines.append(f"{absence.later[0]} brought it, after this pool: ask for the pool of {absence.later[0]}.")
    return lines


def _facts(explanation: Explanation) -> dict[str, str]:
    return {
        "uid": printable(explanation.pair.uid, LONGEST_CAPTION),
        "brought by": _one_line(f"{explanation.brought_by} ({explanation.place})"),
        "latent class": _one_line(explanation.latent_class),
        "CLIP score": _number(explanation.clip_score),
    }


def _standing(explanation: Explanation) -> str:
    return (
        f"Rank {explanation.rank:,} of {explanation.pool_pairs:,} by {explanation.method} in the pool of "
        f"{explanation.crawl} (0 is the first pick), with a gain of {_number(explanation.gain)}."
    )


def _reasons(explanation: Explanation) -> list[str]:
    """Why the pair is ranked where it is, in sentences of the method's own."""
    gain, score = explanation.gain, explanation.clip_score
    if explanation.class_picks:
        return _class_reasons(explanation.class_picks, explanation.latent_class)
    words = {
        "clip_score": "Its CLIP score is its gain.",
        "c_rho": f"Its CLIP score is {_number(score)} under the proxy and {_number(score - gain)} under the partly "
        "trained model; the difference is its gain.",
        "random": f"Its draw, made from its uid and the seed alone, is {_number(-gain)}; small draws come first.",
        "semdedup": _duplicate_words(explanation.partner),
        "metaclip": _entry_words(explanation.entry, gain),
    }
    return [words[explanation.method]] if explanation.method in words else []


def _class_reasons(picks: ClassPicks, name: str) -> list[str]:
    count = f"{picks.before:,}" if picks.before else "None"
    line = f"{count} of the {picks.pairs:,} pairs of its latent class {_one_line(name)!r} came before it"
    if picks.before and picks.covered is not None:
        taken = f"took {_number(picks.covered)} off" if picks.covered >= 0 else f"added {_number(-picks.covered)} to"
        line += f", which {taken} its gain"
    if picks.terms:
        return [f"{line}."]
    return [f"{line}.", "Gains of the released variant are scores, which are no sum of the objective's terms."]


def _duplicate_words(partner: OtherPair | None) -> str:
    if partner is None:
        return "No image before it in its cluster is similar to its own."
    return (
        f"Its image has a cosine of {_number(partner.similarity)} with that of pair {_one_line(partner.pair.uid)}, "
        "the most similar one before it in its cluster."
    )


def _entry_words(entry: str | None, gain: float) -> str:
    if entry is None:
        return "Its caption holds no entry of the metadata; such pairs come last."
    return (
        f"The entry {_one_line(entry)!r} of its caption let it in: its draw times the captions that hold the entry is "
        f"{_number(-gain)}, and small products come first."
    )


def _cut_table(explanation: Explanation) -> list[tuple[str, ...]]:
    head = (
        "subset",
        "pairs",
        "the pair is",
        "picks from the cut",
        "gain of its last pick",
        "gain of the pair less that",
    )
    return [head, *(_cut_row(cut, explanation) for cut in explanation.cuts)]


def _cut_row(cut: Cut, explanation: Explanation) -> tuple[str, ...]:
    if cut.size is None or cut.last_gain is None:
        return (percent(cut.fraction), ABSENT, "not materialized", ABSENT, ABSENT, ABSENT)
    return (
        percent(cut.fraction),
        f"{cut.size:,}",
        _verdict(cut, explanation.rank),
        _distance(cut.size, explanation.rank),
        _number(cut.last_gain),
        f"{'+' if explanation.gain >= cut.last_gain else ''}{_number(explanation.gain - cut.last_gain)}",
    )


def _verdict(cut: Cut, rank: int) -> str:
    if cut.size is None:
        return "not materialized"
    return "in" if cut.holds(rank) else "out"


def _combined_verdict(cut: CombinedCut) -> str:
    if cut.size is None:
        return "not materialized"
    return "in" if cut.held else "out"


def _combined_cut_table(explanation: CombinedExplanation) -> list[tuple[str, ...]]:
    """The sizes of a combination, and on which side of both methods' cuts the pair is."""
    first, second = explanation.first, explanation.second
    rows = (
        (
            percent(cut.fraction),
            ABSENT if cut.size is None else f"{cut.size:,}",
            _combined_verdict(cut),
            _verdict(ours, first.rank),
            _verdict(theirs, second.rank),
        )
        for cut, ours, theirs in zip(explanation.cuts, first.cuts, second.cuts, strict=True)
    )
    return [("subset", "pairs", "the pair is", f"by {first.method}", f"by {second.method}"), *rows]


def _distance(size: int, rank: int) -> str:
    if rank >= size:
        return f"{rank - size + 1:,} too late"
    return f"{size - 1 - rank:,} to spare"


def _term_rows(terms: Mapping[str, float]) -> list[tuple[str, str, str]]:
    return [(name, _number(share), TERM_WORDS[name]) for name, share in terms.items()]


def _others(explanation: Explanation) -> dict[str, Sequence[OtherPair]]:
    """Title -> other pairs that bear on this one; titles without pairs are left out."""
    picks, partner = explanation.class_picks, explanation.partner
    found: dict[str, Sequence[OtherPair]] = {
        "Before it in its class, most similar first": picks.most_similar if picks else (),
        "Before it in its class, newest first": picks.last if picks else (),
        "Whose image is most like its own": (partner,) if partner else (),
    }
    return {title: pairs for title, pairs in found.items() if pairs}


def _words(other: OtherPair) -> tuple[str, str]:
    return f"rank {other.rank:,}", f"{other.measure} {_number(other.similarity)}"


def _number(value: float) -> str:
    """Write a number with four digits after the point; a small one so that it does not look like 0."""
    return f"{value:.1e}" if 0 < abs(value) < 0.00005 else f"{value + 0.0:,.4f}"  # and -0 as 0


def _caption(pair: ShownPair, longest: int) -> str:
    return printable(" ".join(pair.caption.split()), longest)


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()), LONGEST_LINE)


def _aligned(rows: Sequence[tuple[str, ...]], *, left: Collection[int]) -> list[str]:
    """Rows as indented lines with columns below each other, those in `left` to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = (
        [f"{cell:{'<' if place in left else '>'}{widths[place]}}" for place, cell in enumerate(row)] for row in rows
    )
    return [f"  {'  '.join(row)}".rstrip() for row in cells]


def _note(name: str, explanation: Explanation) -> str:
    return f"{name}, the pool of {explanation.crawl}, {explanation.pool_pairs:,} pairs"


def _safe(text: str) -> str:
    return html.escape(printable(text, LONGEST_CAPTION))


def _section(title: str, parts: Iterable[str]) -> str:
    return f"<section><h2>{_safe(title)}</h2>\n{''.join(parts)}</section>\n"


def _pair_section(explanation: Explanation, verdicts: Iterable[tuple[float, str]]) -> str:
    """The pair itself, with a verdict for each fraction."""
    items = "".join(f'<li class="{verdict}">{percent(share)}: {verdict}</li>' for share, verdict in verdicts)
    facts = "".join(f"<dt>{_safe(name)}</dt><dd>{_safe(value)}</dd>" for name, value in _facts(explanation).items())
    return (
        f'<section><div class="pair">{_picture(explanation.pair, LARGE)}\n<div>'
        f"<blockquote>{html.escape(_caption(explanation.pair, LONGEST_CAPTION))}</blockquote>\n"
        f'<ul class="verdicts">{items}</ul>\n<dl>{facts}</dl></div></div></section>\n'
    )


def _standing_parts(explanation: Explanation) -> list[str]:
    sentences = [_standing(explanation), *_reasons(explanation)]
    paragraphs = f'<p>{_safe(" ".join(sentences))}</p>\n<p class="note">{_safe(explanation.summary)}</p>\n'
    return [paragraphs, _table(_cut_table(explanation))]


def _term_parts(explanation: Explanation, terms: Mapping[str, float]) -> list[str]:
    most = max(map(abs, terms.values())) or 1.0
    rows = [
        f"<tr><td>{_safe(name)}</td><td>{_safe(words)}</td><td>{_bar(terms[name] / most)}</td><td>{share}</td></tr>\n"
        for name, share, words in _term_rows(terms)
    ]
    total = f'<tr class="total"><td>gain</td><td></td><td></td><td>{_number(explanation.gain)}</td></tr>\n'
    return [_grid("", [*rows, total], kind="terms")]


def _bar(share: float) -> str:
    """A bar from the middle, to the right for what adds and to the left for what takes."""
    width = 50 * abs(share)
    left, kind = (50, "more") if share >= 0 else (50 - width, "less")
    return f'<div class="bar"><i class="{kind}" style="left:{left:.1f}%;width:{width:.1f}%"></i></div>'


def _grid(head: str, rows: Iterable[str], *, kind: str = "") -> str:
    opening = f'<table class="{kind}">' if kind else "<table>"
    return f'<div class="wide">{opening}<thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>\n'


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows of text, the first of which is the head."""
    head, *body = rows
    return _grid(_row("th", head), [_row("td", row) for row in body])


def _row(tag: str, cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{_safe(cell)}</{tag}>' for cell in cells)}</tr>\n"


def _cards(title: str, pairs: Iterable[OtherPair], address: Callable[[str], str] | None) -> str:
    return _section(title, ['<div class="picks">', *(_card(one, address) for one in pairs), "</div>\n"])


def _card(other: OtherPair, address: Callable[[str], str] | None) -> str:
    caption = html.escape(_caption(other.pair, LONGEST_LINE))
    if address is not None:
        caption = f'<a href="{html.escape(address(other.pair.uid))}">{caption}</a>'
    rank, similarity = _words(other)
    words = f"<b>{rank}</b><span>{similarity}</span>{caption}"
    return f"<figure>{_picture(other.pair, SMALL)}<figcaption>{words}</figcaption></figure>\n"


def _picture(pair: ShownPair, side: int) -> str:
    small = thumbnail(pair.image, side)
    if not small.address:
        return f'<span class="picture">{_safe(small.words)}</span>'
    return f'<img class="picture" alt="" src="{small.address}">'
