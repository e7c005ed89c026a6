import re
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest

from clipcov_assets.export.gallery import thumbnail
from clipcov_assets.export.gallery_page import (
    ClassSection,
    Cut,
    Fault,
    Gallery,
    Quarantine,
    Shown,
    Subset,
    gallery_page,
)
from clipcov_assets.export.html_page import POLICY
from tests.deliveries import image
from tests.export.test_report import outline_of

HOSTILE = '"><script>alert(1)</script><img src=x onerror="alert(2)">&\x00'


def shown(rank: int, **changes: object) -> Shown:
    pair = Shown(f"uid-{rank}", f"caption {rank}", thumbnail(image(rank), 96), rank, 1 / (1 + rank))
    return replace(pair, **changes)


def cut(**changes: object) -> Cut:
    whole = Cut(100, 20, (shown(0), shown(1)), (shown(18), shown(19)), (shown(20), shown(21)))
    return replace(whole, **changes)


def gallery(whole: Cut, *cuts: Cut) -> Gallery:
    """A gallery of one subset."""
    classes = tuple(ClassSection(f"class {number}", (one,)) for number, one in enumerate(cuts))
    subset = Subset("clipcov", "What it does.", "crawl-2", 0.2)
    return Gallery((subset,), ClassSection("The whole pool", (whole,)), classes, len(cuts), ())


def side_by_side(one: Cut, other: Cut) -> Gallery:
    subsets = (Subset("clipcov", "A.", "crawl-2", 0.2), Subset("random", "B.", "crawl-1", 0.4))
    return Gallery(subsets, ClassSection("The whole pool", (one, other)), (), 0, ())


def words(page: str) -> str:
    return " ".join(outline_of(page).texts)


def test_the_page_needs_nothing_beside_it():
    page = gallery_page(gallery(cut(), cut()))
    outline = outline_of(page)
    assert not {"script", "link", "iframe"} & set(outline.tags)
    assert all(one.startswith(("#section-", "data:image/webp;base64,", "../../../pair?")) for one in outline.addresses)
    assert POLICY in page
    assert page == gallery_page(gallery(cut(), cut()))


def test_first_last_and_rejected_pairs_stand_in_their_order():
    text = words(gallery_page(gallery(cut())))
    order = ["First picks", "caption 0", "caption 1", "Last picks", "caption 18", "Best of the rejected", "caption 20"]
    assert [text.index(one) for one in order] == sorted(text.index(one) for one in order)
    assert "20 of 100 pairs kept" in text
    assert "rank 18 to 19" in text


def test_a_pair_leads_to_its_page_and_says_rank_and_gain():
    page = gallery_page(gallery(cut(first=(shown(4, uid="a/b?c=d&e", note="entry: cat"),))))
    address = next(one for one in outline_of(page).addresses if one.startswith("../../../pair?"))
    assert parse_qs(urlsplit(address).query) == {"uid": ["a/b?c=d&e"], "method": ["clipcov"], "crawl": ["crawl-2"]}
    assert 'title="rank 4, gain 0.2\nentry: cat\nuid a/b?c=d&amp;e\ncaption 4"' in page


def test_what_the_deliverer_wrote_is_only_ever_text():
    pair = shown(0, uid=HOSTILE, caption=HOSTILE, note=HOSTILE)
    subset = Subset("clipcov", HOSTILE, HOSTILE, 0.2)
    quarantine = Quarantine(HOSTILE, {HOSTILE: 1}, (Fault(HOSTILE, HOSTILE, HOSTILE, HOSTILE),))
    section = ClassSection(HOSTILE, (cut(first=(pair,)),))
    page = gallery_page(Gallery((subset,), section, (section,), 1, (quarantine,)))
    plain = gallery_page(gallery(cut(first=(shown(0),)), cut(first=(shown(0),))))
    assert "\x00" not in page
    assert outline_of(page).tags.count("img") == outline_of(plain).tags.count("img")
    assert "script" not in outline_of(page).tags
    assert not re.search(r"<[^>]*\sonerror", re.sub(r'"[^"]*"', "", page))


def test_long_captions_and_uids_do_not_make_a_long_page():
    pair = shown(0, caption="word " * 10_000, uid="u" * 256)
    assert len(gallery_page(gallery(cut(first=(pair,))))) < len(gallery_page(gallery(cut()))) + 3_000


@pytest.mark.parametrize(("content", "said"), [(None, "not delivered"), (b"no image", "not decodable")])
def test_a_pair_without_a_picture_is_still_shown(content, said):
    text = words(gallery_page(gallery(cut(first=(shown(0, thumbnail=thumbnail(content, 96)),)))))
    assert said in text
    assert "caption 0" in text


def test_the_full_pool_has_no_rejected_and_no_gains():
    whole = cut(pairs=20, rejected=None, first=(shown(0, gain=None),), last=())
    page = gallery_page(gallery(whole))
    assert "Best of the rejected</h4>" not in page
    assert "gain" not in page


def test_a_class_of_which_nothing_is_kept_says_so():
    text = words(gallery_page(gallery(cut(), cut(pairs=5, picked=0, first=(), last=()))))
    assert "0 of 5 pairs kept" in text
    assert "First picks none Last picks none" in re.sub(r"\s+", " ", text)


def test_what_both_hold_is_marked_and_what_only_the_other_picked_is_marked_otherwise():
    one = cut(first=(shown(0, held_beside=True), shown(1)), rejected=(shown(20, held_beside=True),), shared=7)
    page = gallery_page(side_by_side(one, cut(shared=7)))
    assert re.findall(r'class="badge">(\w+)', page) == ["both", "other"]
    text = words(page)
    assert text.count("20 of 100 pairs kept, 7 in both") == 2
    assert "clipcov, crawl-2, 20 % beside random, crawl-1, 40 %" in text
    assert "method=random&amp;crawl=crawl-1" in page


def test_one_subset_alone_has_nothing_marked():
    page = gallery_page(gallery(cut()))
    assert 'class="badge"' not in page
    assert "in both" not in page


def test_the_quarantine_is_told_by_reason():
    faults = (Fault("file 0.tar, key 7", "", "image_corrupt", "UnidentifiedImageError"),)
    quarantine = Quarantine("crawl-2", {"image_corrupt": 1_200, "caption_empty": 3}, faults)
    text = words(gallery_page(replace(gallery(cut()), quarantines=(quarantine,))))
    assert "1,200 image_corrupt, 3 caption_empty" in text
    assert "file 0.tar, key 7" in text


def test_an_empty_quarantine_is_told():
    text = words(gallery_page(replace(gallery(cut()), quarantines=(Quarantine("crawl-2", {}, ()),))))
    assert "No pair of this crawl is in quarantine." in text


def test_it_is_told_when_not_all_classes_are_shown():
    assert "All latent classes" in words(gallery_page(gallery(cut(), cut())))
    assert "The 2 largest of 1,000" in words(gallery_page(replace(gallery(cut(), cut(), cut()), all_classes=1_000)))
