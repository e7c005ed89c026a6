import os
import pickle

import pytest

from clipcov_assets.ingest import image_folder
from clipcov_assets.ingest.delivery import DeliveryError, DeliveryOptions, Reason
from clipcov_assets.ingest.image_folder import FORMAT


@pytest.fixture
def put(tmp_path, make):
    def put(name, *, caption="a dog", image=True):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if image:
            path.write_bytes(make.image(len(name)))
        if caption is not None:
            path.with_suffix(".txt").write_text(caption)
        return path

    return put


@pytest.fixture
def read(tmp_path, make):
    def read():
        shards = pickle.loads(pickle.dumps(FORMAT.shards(tmp_path, DeliveryOptions())))
        assert len({shard.name for shard in shards}) == len(shards)
        return [outcome for shard in shards for outcome in make.read(shard).outcomes]

    return read


def places(outcomes):
    return [(outcome.place.file, getattr(outcome, "reason", None)) for outcome in outcomes]


def test_an_image_and_the_text_beside_it_are_a_pair_at_any_depth(tmp_path, put, read):
    for name in ("a.png", "b/c.JPG", "b/d/e.f.webp"):
        put(name, caption=f"caption of {name}")
    assert FORMAT.is_here(tmp_path)
    pairs = read()
    assert places(pairs) == [("a.png", None), ("b/c.JPG", None), ("b/d/e.f.webp", None)]
    assert [pair.caption for pair in pairs] == [f"caption of {pair.place.file}" for pair in pairs]


def test_what_stands_alone_is_a_fault(put, read):
    put("a.png")
    put("b.png", caption=None)
    put("c.png", image=False)
    assert places(read()) == [("a.png", None), ("b.png", Reason.CAPTION_MISSING), ("c.txt", Reason.IMAGE_MISSING)]


def test_a_second_image_of_the_same_name_is_a_duplicate(put, read, make):
    put("a.jpg").with_suffix(".png").write_bytes(make.image())
    put("a.b.png")
    put("a-b.png")
    outcomes = [("a.b.png", None), ("a.jpg", None), ("a.png", Reason.DUPLICATE_KEY), ("a-b.png", None)]
    assert sorted(places(read())) == sorted(outcomes)


def test_rubbish_and_hidden_files_are_passed_over(tmp_path, put, read):
    put("a.png")
    for name in (".DS_Store", "._a.png", "Thumbs.db", "__MACOSX/a.png", ".cache/b.png", "notes.md"):
        put(name, caption=None)
    assert places(read()) == [("a.png", None)]


def test_the_metadata_of_img2dataset_name_the_pair(tmp_path, put, read):
    put("0/a.png").with_suffix(".json").write_text('{"uid": "u1", "width": 3}')
    put("0/b.png").with_suffix(".json").write_text("{")
    (tmp_path / "0" / "alone.json").write_text("{}")
    outcomes = read()
    assert outcomes[0].uid == "u1"
    assert places(outcomes) == [("0/a.png", None), ("0/b.png", Reason.METADATA_INVALID)]


def test_links_and_devices_are_not_followed_out(tmp_path, put, read, make):
    outside = tmp_path.parent / f"{tmp_path.name}-outside.png"
    outside.write_bytes(make.image())
    put("a.png")
    for name in ("b.png", "c.png", "d.png"):
        put(name, image=False)
    (tmp_path / "b.png").symlink_to(outside)
    os.mkfifo(tmp_path / "c.png")
    (tmp_path / "d.png").symlink_to("a.png")
    put("e.png", caption=None)
    (tmp_path / "e.txt").symlink_to(outside)
    reasons = [None, Reason.IMAGE_OUTSIDE, Reason.IMAGE_MISSING, None, Reason.CAPTION_MISSING]
    assert [reason for _, reason in places(read())] == reasons
    assert [shard.fingerprint() for shard in FORMAT.shards(tmp_path, DeliveryOptions())]


def test_captions_are_judged_as_everywhere(tmp_path, put, read):
    put("a.png", caption=" ")
    put("b.png", caption="x" * 70_000)
    put("c.png").with_suffix(".txt").write_bytes(b"caf\xe9")
    reasons = [Reason.CAPTION_EMPTY, Reason.CAPTION_TOO_LONG, Reason.CAPTION_UNDECODABLE]
    assert [reason for _, reason in places(read())] == reasons


def test_shards_are_some_pairs_in_order_with_a_fingerprint_of_their_own(tmp_path, put, monkeypatch, make):
    monkeypatch.setattr(image_folder, "STEMS_A_SHARD", 2)
    for number in range(5):
        put(f"0/{number}.png")
    shards = FORMAT.shards(tmp_path, DeliveryOptions())
    assert [make.read(shard).promised for shard in shards] == [2, 2, 1]
    before = [shard.fingerprint() for shard in shards]
    (tmp_path / "0" / "2.txt").write_text("another")
    after = [shard.fingerprint() for shard in FORMAT.shards(tmp_path, DeliveryOptions())]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]


def test_images_without_any_text_are_no_delivery(tmp_path, put):
    put("a.png", caption=None)
    put("b.png", image=False)
    (tmp_path / "nothing").mkdir()
    assert not FORMAT.is_here(tmp_path)
    with pytest.raises(DeliveryError, match="no image with a .txt beside it"):
        FORMAT.shards(tmp_path / "nothing", DeliveryOptions())
