import re
from dataclasses import replace

import pytest

from clipcov_assets.export.html_page import POLICY
from clipcov_assets.export.pair_page import (
    Absence,
    ClassPicks,
    CombinedCut,
    CombinedExplanation,
    Cut,
    Explanation,
    OtherPair,
    SetAside,
    ShownPair,
    pair_page,
    pair_text,
    place_words,
)
from tests.deliveries import image
from tests.export.test_report import outline_of

ATTACK = '"><script>alert(1)</script>\x1b[31m'
TERMS = {"class": 0.25, "self": 1.2, "label": 0.3, "class_reg": -0.05, "inter": -0.2}


def other(number: int, **changes: object) -> OtherPair:
    return replace(OtherPair(ShownPair(f"pair-{number}", f"caption {number}", image(number)), number, 1.25), **changes)


PICKS = ClassPicks(80, 2, TERMS, 0.125, (other(7), other(3)), (other(3), other(7)))
EXPLAINED = Explanation(
    pair=ShownPair("pair-1", "a  red\ncat", image(1)),
    method="clipcov",
    summary="Pairs that help come first.",
    crawl="crawl-2",
    pool_pairs=1_000,
    brought_by="crawl-1",
    place="00003.tar, key 000012",
    latent_class="cats",
    clip_score=0.3,
    rank=250,
    gain=1.5,
    cuts=(Cut(0.2, 200, 1.75), Cut(0.3, 300, 1.25), Cut(0.4)),
    class_picks=PICKS,
)


def by(method: str, **changes: object) -> Explanation:
    return replace(EXPLAINED, method=method, class_picks=None, **changes)


COMBINED = CombinedExplanation(
    name="clipcov_and_semdedup",
    summary="Pairs that both pick.",
    cuts=(CombinedCut(0.2, 90, held=False), CombinedCut(0.3, 120, held=True), CombinedCut(0.4)),
    first=EXPLAINED,
    second=by("semdedup", rank=40, gain=-0.25, partner=other(9, similarity=0.25, measure="cosine")),
)


def words_of(explanation: Explanation | CombinedExplanation | Absence) -> tuple[str, str]:
    """The text, and the text of the page; runs of blanks are one."""
    page = pair_page(explanation)
    return " ".join(pair_text(explanation).split()), " ".join(" ".join(outline_of(page).texts).split())


@pytest.mark.parametrize(
    "words",
    [
        "a red cat",
        "crawl-1 (00003.tar, key 000012)",
        "Rank 250 of 1,000 by clipcov in the pool of crawl-2 (0 is the first pick), with a gain of 1.5000.",
        "2 of the 80 pairs of its latent class 'cats' came before it, which took 0.1250 off its gain.",
        "20 % 200 out 51 too late 1.7500 -0.2500",
        "30 % 300 in 49 to spare 1.2500 +0.2500",
        "40 % – not materialized – – –",
        "similarity 1.2500 caption 7",
    ],
)
def test_text_and_page_say_where_a_pair_stands_and_by_how_much(words: str) -> None:
    for found in words_of(EXPLAINED):
        assert words in found


def test_the_cut_is_right_to_the_pick() -> None:
    for rank, verdict in ((199, "in 0 to spare"), (200, "out 1 too late"), (0, "in 199 to spare")):
        assert f"20 % 200 {verdict}" in words_of(replace(EXPLAINED, rank=rank))[0]


def test_every_term_of_the_gain_is_a_line_with_a_bar() -> None:
    text, page = pair_text(EXPLAINED), pair_page(EXPLAINED)
    for name, share in TERMS.items():
        assert re.search(rf"^  {name} +{share:.4f}  \w", text, re.MULTILINE)
        assert f"<td>{share:.4f}</td>" in page
    assert re.search(r"^  gain +1\.5000$", text, re.MULTILINE)
    widths = re.findall(r'<i class="(more|less)" style="left:([0-9.]+)%;width:([0-9.]+)%">', page)
    assert widths[1] == ("more", "50.0", "50.0") and widths[4] == ("less", "41.7", "8.3")


@pytest.mark.parametrize(
    ("explanation", "words"),
    [
        (by("clip_score"), "Its CLIP score is its gain."),
        (by("c_rho", gain=0.1), "Its CLIP score is 0.3000 under the proxy and 0.2000 under the partly trained model"),
        (by("random", gain=-0.25), "Its draw, made from its uid and the seed alone, is 0.2500"),
        (by("semdedup", gain=-0.0), "No image before it in its cluster is similar"),
        (
            by("semdedup", partner=other(9, similarity=0.93, measure="cosine")),
            "Its image has a cosine of 0.9300 with that of pair pair-9",
        ),
        (by("metaclip", gain=-3.5, entry="cat"), "The entry 'cat' of its caption let it in: its draw times"),
        (by("metaclip"), "Its caption holds no entry of the metadata"),
        (by("a_new_method"), "Pairs that help come first."),
        (
            replace(EXPLAINED, class_picks=replace(PICKS, terms={}, covered=None)),
            "Gains of the released variant are scores, which are no sum of the objective's terms.",
        ),
        (
            replace(EXPLAINED, class_picks=replace(PICKS, before=0, covered=0.0, last=(), most_similar=())),
            "None of the 80 pairs of its latent class 'cats' came before it.",
        ),
    ],
)
def test_each_method_says_why_in_its_own_words(explanation: Explanation, words: str) -> None:
    for found in words_of(explanation):
        assert words in found


def test_a_duplicate_is_shown_with_what_it_duplicates() -> None:
    explanation = by("semdedup", partner=other(9, similarity=0.93, measure="cosine"))
    assert "rank 9 cosine 0.9300 caption 9" in words_of(explanation)[0]
    assert outline_of(pair_page(explanation)).tags.count("img") == 2


def test_the_page_needs_nothing_beside_it_and_links_only_where_there_are_pages() -> None:
    page = pair_page(EXPLAINED)
    outline = outline_of(page)
    assert POLICY in page
    assert outline.tags.count("img") == 5 and "script" not in outline.tags
    assert all(address.startswith("data:image/") for address in outline.addresses)
    linked = outline_of(pair_page(EXPLAINED, links={"All": "/"}, address=lambda uid: f'/pair?uid={uid}&x="'))
    assert {"/", '/pair?uid=pair-3&x="'} <= set(linked.addresses)


@pytest.mark.parametrize(
    "words",
    [
        "a red cat",
        "Pairs that both pick.",
        "subset pairs the pair is by clipcov by semdedup",
        "20 % 90 out out in",
        "30 % 120 in in in",
        "40 % – not materialized not materialized not materialized",
        "2 of the 80 pairs of its latent class 'cats' came before it",
        "Rank 40 of 1,000 by semdedup",
        "Its image has a cosine of 0.2500 with that of pair pair-9",
        "20 % 200 in 159 to spare",
    ],
)
def test_a_combination_says_where_both_methods_have_a_pair_and_why(words: str) -> None:
    for found in words_of(COMBINED):
        assert words in found


def test_a_picture_that_is_not_there_has_words() -> None:
    for content, words in ((None, "not delivered"), (b"no image", "not decodable")):
        assert words in outline_of(pair_page(replace(EXPLAINED, pair=ShownPair("a", "b", content)))).texts


def test_nothing_of_a_delivery_is_acted_on() -> None:
    pair = ShownPair(ATTACK, ATTACK, image(1))
    attacked = replace(
        EXPLAINED,
        pair=pair,
        crawl=ATTACK,
        brought_by=ATTACK,
        place=ATTACK,
        latent_class=ATTACK,
        method=ATTACK,
        summary=ATTACK,
        class_picks=replace(PICKS, last=(OtherPair(pair, 0, 1.0),)),
        partner=OtherPair(pair, 0, 1.0),
    )
    names = (ATTACK,)
    absence = Absence(ATTACK, ATTACK, (SetAside(ATTACK, ATTACK, ATTACK, ATTACK),), {ATTACK: ATTACK}, *[names] * 3)
    combined = CombinedExplanation(ATTACK, ATTACK, COMBINED.cuts, attacked, attacked)
    for one in (attacked, absence, combined, replace(by("metaclip"), entry=ATTACK)):
        outline = outline_of(pair_page(one, links={ATTACK: ATTACK}, address=lambda uid: f"/pair?uid={uid}"))
        assert "script" not in outline.tags
        assert "\x1b" not in pair_text(one) and "\x1b" not in " ".join(outline.texts)


def test_long_captions_are_cut() -> None:
    pair = ShownPair("a", "word " * 100_000, None)
    assert len(pair_text(replace(EXPLAINED, pair=pair, partner=OtherPair(pair, 0, 1.0)))) < 5_000


def test_a_pair_outside_the_pool_says_where_it_is() -> None:
    aside = SetAside("crawl-1", "00002.tar, key 7", "image_corrupt", "truncated")
    absence = Absence(
        "pair-1",
        "crawl-2",
        set_aside=(aside,),
        withdrawn={"crawl-5": "licence revoked"},
        left_out=("crawl-0",),
        changed=("crawl-1",),
        later=("crawl-3", "crawl-4"),
    )
    for found in words_of(absence):
        assert "Pair pair-1 is not in the pool of crawl-2." in found
        assert "crawl-1 put it into quarantine (00002.tar, key 7) because of image_corrupt: truncated." in found
        assert "crawl-5 holds it, but was withdrawn: licence revoked." in found
        assert "crawl-0 holds it, but was left out of this pool" in found
        assert "crawl-1 holds it, but did not when this pool was made: materialize pool for crawl-2 again." in found
        assert "crawl-3 brought it, after this pool: ask for the pool of crawl-3." in found


def test_small_numbers_do_not_look_like_nothing() -> None:
    found = pair_text(replace(EXPLAINED, gain=2e-7, cuts=(Cut(0.2, 200, 0.0),)))
    assert "with a gain of 2.0e-07" in found and "+2.0e-07" in found
    assert "-0.0000" not in pair_text(by("random", gain=-0.0))


def test_a_place_is_said_with_what_there_is() -> None:
    assert place_words("a.tar", "12", None) == "a.tar, key 12"
    assert place_words("a.parquet", None, 0) == "a.parquet, row 0"
    assert place_words(None, None, None) == "unknown place"
