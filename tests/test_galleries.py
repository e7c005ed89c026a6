import numpy as np
import pyarrow as pa
import pytest

from clipcov_assets.core.set_algebra import Combination
from clipcov_assets.export.gallery_page import gallery_page
from clipcov_assets.galleries import SHOWN_CLASSES, SHOWN_FAULTS, SHOWN_PAIRS, gallery_name, gallery_of, main
from clipcov_assets.pool_tables import pooled_crawls_metadata
from clipcov_assets.tables import POOL, QUARANTINE, RANKING, ranking_schema
from resources.lance_store import LanceStore
from tests.ranked_pool import known
from tests.subsets import raw_pair, write_crawl, write_subset

PARTITION = "crawl-2|f20"
PAIRS, PICKED = 60, 30


def write_ranking(store: LanceStore, method: str, uids: list[str], **reasons: list[str | None]) -> None:
    """Store a ranking and the subset of its first picks."""
    rows = {"uid": uids, "rank": range(len(uids)), "gain": np.linspace(1, 0, len(uids), dtype=np.float32)}
    table = pa.table({**rows, **reasons}).cast(ranking_schema(reasons))
    store.write(f"{method}_ranking", "crawl-2", table)
    store.write(f"{method}_subset", PARTITION, table.select(RANKING.names).slice(0, PICKED))


def write_names(store: LanceStore, crawl: str, names: list[str]) -> None:
    store.write("class_embeddings", crawl, pa.table({"latent_class": range(len(names)), "name": names}))


def write_faults(store: LanceStore, crawl: str, reasons: list[str]) -> None:
    rows = [{"file": "0.tar", "key": str(place), "reason": reason} for place, reason in enumerate(reasons)]
    store.write("quarantine", crawl, pa.Table.from_pylist(rows, schema=QUARANTINE))


@pytest.fixture
def uids() -> list[str]:
    return [raw_pair(seed)["uid"] for seed in range(PAIRS)]


@pytest.fixture
def store(tmp_path, uids) -> LanceStore:
    """Two crawls of 30 pairs in three classes; clipcov picks by uid, random backwards, semdedup and full by uid."""
    rows = [raw_pair(seed) for seed in range(PAIRS)]
    rows[1] = raw_pair(1, image=None)
    rows[2] = raw_pair(2, image=b"no image")
    store = write_subset(tmp_path, {"crawl-1": rows[:30], "crawl-2": rows[30:]}, [])
    write_names(store, "crawl-2", ["cat", "dog", "<b>cow</b>"])
    write_faults(store, "crawl-2", [])
    write_ranking(store, "clipcov", uids)
    write_ranking(store, "random", uids[::-1])
    write_ranking(store, "semdedup", uids, partner=[None, *uids[:-1]])
    store.write("full_subset", "crawl-2|f100", pa.table({"uid": uids, "rank": range(PAIRS), "gain": [0.0] * PAIRS}))
    return store


def ranks(shown):
    return [one.rank for one in shown]


def test_a_gallery_shows_both_sides_of_the_cut(store):
    (cut,) = gallery_of(store, "clipcov_subset", PARTITION).whole.cuts
    assert ranks(cut.first) == list(range(SHOWN_PAIRS))
    assert ranks(cut.last) == list(range(PICKED - SHOWN_PAIRS, PICKED))
    assert ranks(cut.rejected) == list(range(PICKED, PICKED + SHOWN_PAIRS))
    assert (cut.pairs, cut.picked, cut.shared) == (PAIRS, PICKED, None)


def test_each_class_is_cut_on_its_own(store):
    classes = {section.name: section.cuts[0] for section in gallery_of(store, "clipcov_subset", PARTITION).classes}
    assert set(classes) == {"cat", "dog", "<b>cow</b>"}
    dogs = classes["dog"]  # every third pair
    assert ranks(dogs.first) == [1, 4, 7, 10, 13, 16]
    assert ranks(dogs.last) == [19, 22, 25, 28]
    assert ranks(dogs.rejected) == [31, 34, 37, 40, 43, 46]
    assert (dogs.pairs, dogs.picked) == (20, 10)


def test_pairs_have_their_own_captions_and_pictures(store, uids):
    (cut,) = gallery_of(store, "clipcov_subset", PARTITION).whole.cuts
    assert [one.uid for one in cut.first] == uids[:SHOWN_PAIRS]
    assert cut.rejected[0].caption == "picture of class 2, number 30"
    assert cut.first[0].thumbnail.address != cut.first[3].thumbnail.address
    assert [one.thumbnail.words for one in cut.first[:4]] == ["", "not delivered", "not decodable", ""]


def test_the_full_pool_has_nothing_rejected(store):
    (cut,) = gallery_of(store, "full_subset", "crawl-2|f100").whole.cuts
    assert cut.rejected is None
    assert cut.first[0].gain is None


def test_of_a_combination_it_is_told_how_much_of_the_pool_and_of_every_class_it_keeps(store):
    combination = Combination("clipcov", "&", "semdedup")
    picks = store.read("clipcov_subset", PARTITION).slice(1, 4)  # one dog, one cow, one cat, one dog
    store.write(f"{combination.name}_subset", PARTITION, picks)
    with known(combination):
        gallery = gallery_of(store, f"{combination.name}_subset", PARTITION)
    (whole,) = gallery.whole.cuts
    assert (whole.pairs, whole.picked, whole.rejected) == (PAIRS, 4, None)
    kept = {section.name: (section.cuts[0].picked, section.cuts[0].pairs) for section in gallery.classes}
    assert kept == {"cat": (1, 20), "dog": (2, 20), "<b>cow</b>": (1, 20)}


def test_what_a_method_knows_of_a_pick_is_noted(store, uids):
    (cut,) = gallery_of(store, "semdedup_subset", PARTITION).whole.cuts
    assert [one.note for one in cut.first[:2]] == ["", f"partner: {uids[0]}"]
    assert cut.rejected[0].note == f"partner: {uids[PICKED - 1]}"


def test_two_subsets_stand_side_by_side_with_what_both_hold(store, uids):
    held = store.read("random_subset", PARTITION)["uid"].to_pylist()
    other = [*uids[:3], *held[3:]]
    store.write(
        "random_subset", PARTITION, store.read("random_subset", PARTITION).set_column(0, "uid", pa.array(other))
    )
    gallery = gallery_of(store, "clipcov_subset", PARTITION, beside=("random_subset", PARTITION))
    clipcov, random = gallery.whole.cuts
    assert [one.held_beside for one in clipcov.first] == [True, True, True, False, False, False]
    assert all(one.held_beside for one in clipcov.rejected)
    assert (clipcov.shared, random.shared) == (3, 3)
    assert all(len(section.cuts) == 2 for section in gallery.classes)
    assert len(gallery.quarantines) == 1


def test_two_crawls_stand_side_by_side_class_by_class(store, uids):
    rows = [raw_pair(seed) for seed in range(30)]
    pool = [{"uid": row["uid"], "crawl": "crawl-1", "latent_class": 0, "clip_score": 0.5} for row in rows]
    metadata = store.metadata("pool", "crawl-2")
    store.write("pool", "crawl-1", pa.Table.from_pylist(pool, schema=POOL), metadata={"crawls": metadata["crawls"]})
    write_names(store, "crawl-1", ["cat"])
    write_faults(store, "crawl-1", ["image_corrupt"])
    head = store.read("clipcov_ranking", "crawl-2").slice(0, 30)
    store.write("clipcov_ranking", "crawl-1", head)
    store.write("clipcov_subset", "crawl-1|f20", head.slice(0, 6))
    gallery = gallery_of(store, "clipcov_subset", "crawl-1|f20", beside=("clipcov_subset", PARTITION))
    cuts = {section.name: [cut.pairs for cut in section.cuts] for section in gallery.classes}
    assert cuts == {"cat": [30, 20], "dog": [0, 20], "<b>cow</b>": [0, 20]}
    assert [one.crawl for one in gallery.quarantines] == ["crawl-1", "crawl-2"]


def test_a_page_is_bounded_however_many_classes_there_are(tmp_path):
    rows = [raw_pair(seed) for seed in range(4 * SHOWN_CLASSES)]
    store = LanceStore(uri=str(tmp_path / "lance"))
    pooled = write_crawl(store, "crawl-2", rows)
    classes = np.minimum(np.arange(len(rows)), 2 * SHOWN_CLASSES)  # the last one is the largest
    table = [
        {"uid": row["uid"], "crawl": "crawl-2", "latent_class": k, "clip_score": 0.5}
        for row, k in zip(rows, classes.tolist(), strict=True)
    ]
    store.write("pool", "crawl-2", pa.Table.from_pylist(table, schema=POOL), metadata=pooled_crawls_metadata([pooled]))
    write_names(store, "crawl-2", [f"class {k}" for k in range(2 * SHOWN_CLASSES + 1)])
    write_faults(store, "crawl-2", [])
    write_ranking(store, "clipcov", [row["uid"] for row in rows])
    gallery = gallery_of(store, "clipcov_subset", PARTITION)
    assert len(gallery.classes) == SHOWN_CLASSES
    assert gallery.classes[0].name == f"class {2 * SHOWN_CLASSES}"
    assert gallery.all_classes == 2 * SHOWN_CLASSES + 1
    beside = gallery_of(store, "clipcov_subset", PARTITION, beside=("clipcov_subset", PARTITION))
    assert len(beside.classes) == SHOWN_CLASSES // 2


def test_some_quarantined_pairs_of_every_reason_are_shown(store):
    write_faults(store, "crawl-2", ["image_corrupt"] * 50 + ["caption_empty"])
    (quarantine,) = gallery_of(store, "clipcov_subset", PARTITION).quarantines
    assert dict(quarantine.reasons) == {"image_corrupt": 50, "caption_empty": 1}
    assert [one.reason for one in quarantine.some] == ["image_corrupt"] * SHOWN_FAULTS + ["caption_empty"]
    assert quarantine.some[-1].place == "file 0.tar, key 50"


def test_a_ranking_that_was_made_again_shows_nothing_picked_as_rejected(store, uids):
    picked = set(uids[:PICKED])
    again = pa.table({"uid": uids[::-1], "rank": range(PAIRS), "gain": [0.0] * PAIRS}).cast(RANKING)
    store.write("clipcov_ranking", "crawl-2", again)
    (cut,) = gallery_of(store, "clipcov_subset", PARTITION).whole.cuts
    assert not picked.intersection(one.uid for one in cut.rejected)


def test_names_lie_by_crawl_and_fraction():
    assert gallery_name("clipcov_subset", PARTITION) == "galleries/crawl-2/f20/clipcov_subset.html"
    beside = gallery_name("clipcov_subset", PARTITION, beside=("random_subset", "crawl-1|f02p5"))
    assert beside == "galleries/crawl-2/f20/clipcov_subset_beside_random_subset-crawl-1-f02p5.html"


@pytest.mark.parametrize(
    ("asset", "partition", "said"),
    [
        ("../../x_subset", PARTITION, "no subset is called"),
        ("clipcov", PARTITION, "no subset is called"),
        ("clipcov_subset", "../..|f20", "is not allowed"),
        ("clipcov_subset", "crawl-2|../f20", "no crawl and fraction"),
        ("clipcov_subset", "crawl-2", "no crawl and fraction"),
    ],
)
def test_no_name_leaves_the_shelf(asset, partition, said):
    with pytest.raises(ValueError, match=said):
        gallery_name(asset, partition)
    with pytest.raises(ValueError, match=said):
        gallery_name("clipcov_subset", PARTITION, beside=(asset, partition))


def test_what_is_not_materialized_is_named(store):
    with pytest.raises(KeyError, match="materialize clipcov_ranking for partition crawl-3 first"):
        store.write("clipcov_subset", "crawl-3|f20", store.read("clipcov_subset", PARTITION))
        gallery_of(store, "clipcov_subset", "crawl-3|f20")


@pytest.fixture
def command(store, tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPCOV_LANCE", store.uri)
    return lambda *arguments: main([*arguments, "--to", str(tmp_path / "page.html")])


def test_the_command_writes_the_page(store, command, tmp_path, capsys):
    assert command("clipcov_subset", PARTITION, "--beside", "random_subset", PARTITION) == 0
    page = tmp_path / "page.html"
    assert capsys.readouterr().out == f"{page}\n"
    shown = gallery_of(store, "clipcov_subset", PARTITION, beside=("random_subset", PARTITION))
    assert page.read_text() == gallery_page(shown)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("cat_subset", PARTITION), "choose from clipcov_subset"),
        (("clipcov_subset", "crawl-2"), "write it as"),
        (("clipcov_subset", "crawl-9|f20"), "materialize clipcov_subset"),
    ],
)
def test_a_mistake_is_answered_in_one_line(command, capsys, arguments, said):
    assert command(*arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line
