import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest

from clipcov_assets.ingest.delivery import DeliveryError, DeliveryOptions, Place, Reason, content_uid
from clipcov_assets.ingest.img2dataset import IMG2DATASET, WEBDATASET

DEMO = Path(__file__).parents[2] / "data" / "demo" / "crawls"


@pytest.fixture
def read_all(make: SimpleNamespace):
    def read_all(directory: Path, **options: str) -> list[SimpleNamespace]:
        assert IMG2DATASET.obstacle(directory) is None
        return [make.read(shard) for shard in IMG2DATASET.shards(directory, DeliveryOptions(**options))]

    return read_all


def reasons(shard: SimpleNamespace) -> list[tuple[str | None, str | None, Reason]]:
    return [(fault.place.key, fault.uid, fault.reason) for fault in shard.faults]


def row(key: str, *, uid: str | None = None, status: str = "success") -> dict[str, str | None]:
    return {"key": key, "status": status, "uid": uid}


def test_the_demo_is_read_without_a_fault(read_all) -> None:
    shards = [shard for crawl in ("crawl-1", "crawl-2") for shard in read_all(DEMO / crawl)]
    assert sum(len(shard.pairs) for shard in shards) == 1799
    assert not any(shard.faults or shard.remarks for shard in shards)


def test_a_pair_leaves_as_it_came(tmp_path: Path, make: SimpleNamespace, read_all) -> None:
    members = make.pair("00000000", uid="abc", caption=" two  dogs\n")
    make.shard(tmp_path, members, successes=1)
    (pair,) = read_all(tmp_path)[0].pairs
    assert (pair.uid, pair.caption, pair.image) == ("abc", " two  dogs\n", members[0][1])
    assert pair.place == Place("00000.tar", "00000000")


def test_shards_come_in_the_order_of_their_names_and_travel_to_other_processes(
    tmp_path: Path, make: SimpleNamespace
) -> None:
    for name in ("00010", "00002"):
        make.shard(tmp_path, make.pair(name), successes=1, name=name)
    (tmp_path / "._00002.tar").touch()  # macOS leaves such files; hidden ones are passed over
    assert IMG2DATASET.obstacle(tmp_path) is None
    shards = IMG2DATASET.shards(tmp_path, DeliveryOptions())
    assert [shard.name for shard in shards] == ["00002", "00010"]
    assert [shard.size for shard in shards] == [10_240, 10_240]
    assert pickle.loads(pickle.dumps(shards)) == shards


def test_pairs_are_read_one_at_a_time(tmp_path: Path, make: SimpleNamespace) -> None:
    tar = make.shard(tmp_path, [*make.pair("0"), *make.pair("1")], successes=2)
    outcomes = IMG2DATASET.shards(tmp_path, DeliveryOptions())[0].read().outcomes
    assert next(outcomes).place.key == "0"
    tar.write_bytes(tar.read_bytes().replace(b"caption 1", b"caption 9"))
    assert next(outcomes).caption == "caption 9"


def test_a_uid_comes_from_the_metadata_else_from_the_table_else_from_the_content(
    tmp_path: Path, make: SimpleNamespace, read_all
) -> None:
    first, second, third = make.pair("0", uid="json"), make.pair("1")[:2], make.pair("2")
    rows = [row("0", uid="table 0"), row("1", uid="table 1"), row("2")]
    make.shard(tmp_path, [*first, *second, *third], successes=3, rows=rows)
    (shard,) = read_all(tmp_path)
    content = content_uid(third[0][1], third[1][1].decode())
    assert [pair.uid for pair in shard.pairs] == ["json", "table 1", content]
    assert shard.remarks == [
        "00000.tar: 1 uids differ between json and table, json's is kept; first: 0",
        "00000.tar: 1 uids are made of image and caption, there is none in json or table; first: 2",
    ]


def test_the_same_content_has_the_same_uid_under_another_key(tmp_path: Path, make: SimpleNamespace, read_all) -> None:
    make.shard(tmp_path / "a", make.pair("0", caption="dog"), successes=1)
    make.shard(tmp_path / "b", make.pair("7", caption="dog"), successes=1)
    assert read_all(tmp_path / "a")[0].pairs[0].uid == read_all(tmp_path / "b")[0].pairs[0].uid


def test_a_uid_delivered_twice_leaves_twice(tmp_path: Path, make: SimpleNamespace, read_all) -> None:
    make.shard(tmp_path, [*make.pair("0", uid="same"), *make.pair("1", uid="same")], successes=2)
    assert [pair.uid for pair in read_all(tmp_path)[0].pairs] == ["same", "same"]


def test_members_need_not_stand_together(tmp_path: Path, make: SimpleNamespace, read_all) -> None:
    first, second = make.pair("0", uid="a"), make.pair("1", uid="b")
    members = [part for parts in zip(first, second, strict=True) for part in parts]
    make.shard(tmp_path, members, successes=2)
    (shard,) = read_all(tmp_path)
    assert [(pair.uid, pair.caption) for pair in shard.pairs] == [("a", "caption 0"), ("b", "caption 1")]


def test_of_a_key_used_twice_the_first_is_kept(tmp_path: Path, make: SimpleNamespace, read_all) -> None:
    members = [*make.pair("0", uid="a", caption="one"), *make.pair("0", uid="b", caption="two")]
    make.shard(tmp_path, members, successes=2, rows=[row("0", uid="a"), row("0", uid="b")])
    (shard,) = read_all(tmp_path)
    assert [pair.caption for pair in shard.pairs] == ["one"]
    assert reasons(shard) == [("0", "b", Reason.DUPLICATE_KEY)]


def test_an_image_is_never_paired_with_the_caption_of_another_use_of_its_key(
    tmp_path: Path, make: SimpleNamespace, read_all
) -> None:
    members = [*make.pair("0", caption="no image of its own")[1:], *make.pair("0", caption="whole")]
    make.shard(tmp_path, members, successes=2)
    (shard,) = read_all(tmp_path)
    assert not shard.pairs
    assert [fault.reason for fault in shard.faults] == [Reason.DUPLICATE_KEY] * 2


def test_failed_downloads_were_never_promised(tmp_path: Path, make: SimpleNamespace, read_all) -> None:
    rows = [row("0"), row("1", status="failed_to_download")]
    make.shard(tmp_path, make.pair("0"), successes=1, rows=rows)
    assert read_all(tmp_path)[0].promised == 1


def test_pairs_that_nobody_promised_are_kept_and_counted(tmp_path: Path, make: SimpleNamespace, read_all) -> None:
    make.shard(tmp_path, [*make.pair("0"), *make.pair("1")], successes=1, rows=[row("0")])
    (shard,) = read_all(tmp_path)
    assert (shard.promised, len(shard.pairs)) == (2, 2)


def test_an_empty_shard_is_a_shard(tmp_path: Path, make: SimpleNamespace, read_all) -> None:
    make.shard(tmp_path, [], successes=0)
    (shard,) = read_all(tmp_path)
    assert (shard.promised, shard.remarks) == (0, [])


def test_a_hostile_key_is_only_a_label(tmp_path: Path, make: SimpleNamespace, read_all) -> None:
    make.shard(tmp_path / "in", make.pair("../../out\x1b[2J\n"), successes=1)
    (pair,) = read_all(tmp_path / "in")[0].pairs
    assert pair.place.key.isprintable()
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("name", ["00000.tar", "00000.parquet", "00000_stats.json"])
def test_a_change_in_any_file_changes_the_fingerprint(tmp_path: Path, make: SimpleNamespace, name: str) -> None:
    make.shard(tmp_path, make.pair("0"), successes=1, rows=[row("0")])
    (shard,) = IMG2DATASET.shards(tmp_path, DeliveryOptions())
    before = shard.fingerprint()
    assert shard.fingerprint() == before
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + b"\0")
    changed = shard.fingerprint()
    (tmp_path / name).unlink()
    assert len({before, changed, shard.fingerprint()}) == 3


def test_where_captions_come_from_is_part_of_the_fingerprint(tmp_path: Path, make: SimpleNamespace) -> None:
    make.shard(tmp_path, make.pair("0"), successes=1)
    fingerprints = {
        IMG2DATASET.shards(tmp_path, DeliveryOptions(caption=caption))[0].fingerprint()
        for caption in (None, "txt", "json")
    }
    assert len(fingerprints) == 2


def with_two_captions(make: SimpleNamespace, key: str, in_txt: str, in_json: object) -> list[tuple[str, bytes]]:
    image, _, _ = make.pair(key, colour=int(key))
    return [image, (f"{key}.txt", in_txt.encode()), (f"{key}.json", json.dumps({"caption": in_json}).encode())]


def test_of_two_captions_the_txt_counts_and_the_disagreement_is_told(
    tmp_path: Path, make: SimpleNamespace, read_all
) -> None:
    members = [
        *with_two_captions(make, "0", "same\n", "same"),
        *with_two_captions(make, "1", "txt", "json"),
        *with_two_captions(make, "2", "txt", "json"),
    ]
    make.shard(tmp_path, members, successes=3)
    (shard,) = read_all(tmp_path)
    assert [pair.caption for pair in shard.pairs] == ["same\n", "txt", "txt"]
    assert "00000.tar: 2 captions differ between txt and json, txt is kept; first: 1" in shard.remarks


def test_captions_can_be_taken_from_the_json(tmp_path: Path, make: SimpleNamespace, read_all) -> None:
    second, third = with_two_captions(make, "1", "", "json 1"), with_two_captions(make, "2", "txt", ["json"])
    members = [*with_two_captions(make, "0", "txt", "json 0"), second[0], second[2], *third, *make.pair("3")]
    make.shard(tmp_path, members, successes=4)
    (shard,) = read_all(tmp_path, caption="json")
    assert [pair.caption for pair in shard.pairs] == ["json 0", "json 1"]
    assert [fault.reason for fault in shard.faults] == [Reason.METADATA_INVALID, Reason.CAPTION_MISSING]


def test_a_caption_that_is_only_in_the_json_comes_with_the_remedy(
    tmp_path: Path, make: SimpleNamespace, read_all
) -> None:
    image, _, metadata = with_two_captions(make, "0", "", "a dog")
    make.shard(tmp_path, [image, metadata], successes=1)
    (fault,) = read_all(tmp_path)[0].faults
    assert fault.reason is Reason.CAPTION_MISSING
    assert 'caption = "json" in delivery.toml' in fault.detail


def test_captions_can_come_from_nowhere_else(tmp_path: Path, make: SimpleNamespace) -> None:
    make.shard(tmp_path, make.pair("0"), successes=1)
    with pytest.raises(DeliveryError, match=r'delivery\.toml: caption = "title", but tars'):
        IMG2DATASET.shards(tmp_path, DeliveryOptions(caption="title"))


def test_no_statistics_no_ingest(tmp_path: Path, make: SimpleNamespace) -> None:
    make.shard(tmp_path, make.pair("0"), successes=1)
    assert IMG2DATASET.obstacle(tmp_path) is None
    (tmp_path / "00000_stats.json").unlink()
    assert IMG2DATASET.is_here(tmp_path)
    obstacle = IMG2DATASET.obstacle(tmp_path) or ""
    assert "00000.tar is unfinished" in obstacle
    assert "run img2dataset again" in obstacle
    assert 'format = "webdataset" into delivery.toml' in obstacle


def test_a_download_in_progress_is_incomplete(tmp_path: Path, make: SimpleNamespace) -> None:
    make.shard(tmp_path, make.pair("0"), successes=1)
    (tmp_path / "_tmp").mkdir()
    assert "_tmp" in (IMG2DATASET.obstacle(tmp_path) or "")


def test_a_tar_that_is_gone_is_named(tmp_path: Path, make: SimpleNamespace) -> None:
    make.shard(tmp_path, make.pair("0"), successes=1).unlink()
    assert IMG2DATASET.is_here(tmp_path)
    assert "00000.tar is missing; delete 00000_stats.json" in (IMG2DATASET.obstacle(tmp_path) or "")


@pytest.mark.parametrize("format", [IMG2DATASET, WEBDATASET], ids=["img2dataset", "webdataset"])
@pytest.mark.parametrize(
    "name, remedy", [("nowhere", "correct the path"), ("file", "correct the path"), ("empty", "no .tar;")]
)
def test_what_is_no_delivery_is_refused_by_name(tmp_path: Path, format, name: str, remedy: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert not format.is_here(tmp_path / name)
    obstacle = format.obstacle(tmp_path / name) or ""
    assert name in obstacle
    assert remedy in obstacle


@pytest.mark.parametrize("format", [IMG2DATASET, WEBDATASET], ids=["img2dataset", "webdataset"])
def test_statistics_that_lie_elsewhere_are_an_obstacle(tmp_path: Path, make: SimpleNamespace, format) -> None:
    make.shard(tmp_path / "in", make.pair("0"), successes=1)
    assert format.obstacle(tmp_path / "in") is None
    (tmp_path / "in" / "00000_stats.json").rename(tmp_path / "out.json")
    (tmp_path / "in" / "00000_stats.json").symlink_to(tmp_path / "out.json")
    assert "00000_stats.json leads out of the folder" in (format.obstacle(tmp_path / "in") or "")


def test_plain_tars_promise_what_they_hold(tmp_path: Path, make: SimpleNamespace) -> None:
    members = [*make.pair("0", uid="a")[:2], *make.pair("1")[1:], ("2.cls", b"7"), ("2.npy", b"")]
    (tmp_path / "x.tar").write_bytes(make.tar(members))
    assert not WEBDATASET.is_here(tmp_path)
    assert WEBDATASET.obstacle(tmp_path) is None
    (shard,) = WEBDATASET.shards(tmp_path, DeliveryOptions(format="webdataset"))
    contents = make.read(shard)
    assert (contents.promised, [pair.caption for pair in contents.pairs]) == (2, ["caption 0"])
    assert reasons(contents) == [("1", None, Reason.IMAGE_MISSING)]
    assert "x.tar: 2 members belong to no pair; first: 2.cls" in contents.remarks
