import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
import webdataset
from PIL import Image

from clipcov_assets.ingest.delivery import DeliveryOptions, Pair
from tests.subsets import ASSET, PARTITION, contents, export, raw_pair, two_crawls, write_subset


def test_the_webdataset_library_reads_every_pair_as_it_was_delivered(tmp_path):
    store = two_crawls(tmp_path)
    (done,) = export(store, tmp_path / "out", "webdataset", pairs_per_shard=4)
    tars = [str(path) for path in sorted(done.directory.glob("*.tar"))]
    pairs = list(webdataset.WebDataset(tars, shardshuffle=False))
    found = {json.loads(pair["json"])["uid"]: pair for pair in pairs}
    subset = store.read(ASSET, PARTITION).to_pylist()
    assert len(pairs) == len(found) == len(subset)
    for row in subset:
        pair, expected = found[row["uid"]], raw_pair(int(row["uid"], 16))
        assert (pair["webp"], pair["txt"].decode()) == (expected["image"], expected["caption"])
        described = json.loads(pair["json"])
        assert (described["rank"], described["gain"]) == (row["rank"], row["gain"])
        assert described["key"] == pair["__key__"]
    assert all(
        isinstance(pair["webp"], Image.Image) for pair in webdataset.WebDataset(tars, shardshuffle=False).decode("pil")
    )


def test_our_own_ingest_reads_the_layout_back_with_nothing_lost(tmp_path):
    from clipcov_assets.ingest.img2dataset import IMG2DATASET

    rows = [raw_pair(seed, uid=f"cat {seed}", caption="tab\t, line\n, ä 猫 " * (1 + seed)) for seed in range(23)]
    (done,) = export(
        write_subset(tmp_path, {"crawl-2": rows}, [row["uid"] for row in rows]),
        tmp_path / "out",
        "webdataset",
        pairs_per_shard=5,
    )
    assert IMG2DATASET.is_here(done.directory)
    assert IMG2DATASET.obstacle(done.directory) is None
    shards = [shard.read() for shard in IMG2DATASET.shards(done.directory, DeliveryOptions())]
    found = [outcome for shard in shards for outcome in shard.outcomes]
    assert [shard.promised for shard in shards] == [4, 5, 4, 5, 5]
    assert [remark for shard in shards for remark in shard.remarks] == []
    assert all(isinstance(one, Pair) for one in found)
    assert {one.uid: (one.caption, one.image) for one in found} == {
        row["uid"]: (row["caption"], row["image"]) for row in rows
    }


@pytest.mark.parametrize(("pairs", "per_shard"), [(30, 4), (30, 15), (31, 7), (3, 10)])
def test_shards_are_even(tmp_path, pairs, per_shard):
    (done,) = export(two_crawls(tmp_path, pairs), tmp_path / "out", "webdataset", pairs_per_shard=per_shard)
    sizes = [json.loads(path.read_text())["successes"] for path in done.directory.glob("*_stats.json")]
    chosen = len(range(0, pairs, 2))
    assert len(sizes) == -(-chosen // per_shard)
    assert sum(sizes) == chosen
    assert max(sizes) - min(sizes) <= 1


def test_an_equal_subset_gives_equal_files_however_its_crawls_are_stored(tmp_path):
    rows = [raw_pair(seed) for seed in range(40)]
    uids = [row["uid"] for row in rows[::2]]
    first = write_subset(tmp_path / "a", {"crawl-1": rows[:20], "crawl-2": rows[20:]}, uids)
    second = write_subset(tmp_path / "b", {"crawl-2": rows[::-1]}, uids)
    (one,), (two,) = (
        export(store, tmp_path / name, "webdataset", pairs_per_shard=7)
        for store, name in ((first, "one"), (second, "two"))
    )
    found, other = (contents(done.directory) for done in (one, two))
    del found["manifest.json"], other["manifest.json"]  # it names the crawls
    assert found == other


def test_a_shard_is_a_mix_of_first_and_last_picks(tmp_path):
    rows = [raw_pair(seed, image=b"\xff\xd8\xff") for seed in range(1_000)]
    store = write_subset(tmp_path, {"crawl-2": rows}, [row["uid"] for row in rows])
    (done,) = export(store, tmp_path / "out", "webdataset", pairs_per_shard=100)
    for path in done.directory.glob("*.tar"):
        ranks = [json.loads(pair["json"])["rank"] for pair in webdataset.WebDataset(str(path), shardshuffle=False)]
        assert 350 < np.mean(ranks) < 650


def test_members_belong_to_nobody_and_are_of_no_time(tmp_path):
    (done,) = export(two_crawls(tmp_path), tmp_path / "out", "webdataset")
    with tarfile.open(done.directory / "00000.tar") as tar:
        members = tar.getmembers()
    assert {(one.mtime, one.uid, one.gid, one.uname, one.gname, one.mode) for one in members} == {
        (0, 0, 0, "", "", 0o644)
    }


def test_a_shard_is_what_the_standard_librarys_writer_makes_of_the_members(tmp_path):
    (done,) = export(two_crawls(tmp_path), tmp_path / "out", "webdataset")
    content, again = (done.directory / "00000.tar").read_bytes(), io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(content)) as tar,
        tarfile.open(fileobj=again, mode="w", format=tarfile.USTAR_FORMAT) as copy,
    ):
        for one in tar:
            member = tarfile.TarInfo(one.name)
            member.size = one.size
            copy.addfile(member, tar.extractfile(one))
    assert again.getvalue() == content


def test_the_manifest_has_the_size_and_digest_of_every_file(tmp_path):
    (done,) = export(two_crawls(tmp_path), tmp_path / "out", "webdataset", pairs_per_shard=4)
    found = contents(done.directory)
    manifest = json.loads(found.pop("manifest.json"))
    assert {one["name"]: (one["bytes"], one["sha256"]) for one in manifest["files"]} == {
        name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in found.items()
    }
    assert (manifest["asset"], manifest["partition"], manifest["pairs"]) == (ASSET, PARTITION, 15)


def test_an_image_of_a_format_that_readers_of_tars_do_not_look_for_still_reaches_them(tmp_path):
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (0, 128, 255)).save(stream, "GIF")
    row = raw_pair(0, image=stream.getvalue())
    (done,) = export(write_subset(tmp_path, {"crawl-2": [row]}, [row["uid"]]), tmp_path / "out", "webdataset")
    (pair,) = webdataset.WebDataset(str(done.directory / "00000.tar"), shardshuffle=False).decode("pil")
    assert pair["png"].size == (4, 4)
