import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipcov_assets.ingest.delivery import DeliveryError, Reason, ShardContents, content_uid
from clipcov_assets.ingest.img2dataset import is_complete, read_delivery

DEMO = Path(__file__).parents[2] / "data" / "demo"


def read_all(directory: Path) -> list[ShardContents]:
    shards = list(read_delivery(directory))
    for shard in shards:
        assert shard.expected == len(shard.pairs) + len(shard.faults)
    return shards


def reasons(shard: ShardContents) -> list[tuple[str, str | None, Reason]]:
    return [(fault.source, fault.uid, fault.reason) for fault in shard.faults]


def row(key: str, *, uid: str | None = None, status: str = "success") -> dict[str, str | None]:
    return {"key": key, "status": status, "uid": uid}


def test_the_demo_is_read_without_a_fault() -> None:
    shards = [shard for crawl in ("crawl-1", "crawl-2") for shard in read_all(DEMO / crawl)]
    assert sum(len(shard.pairs) for shard in shards) == 1799
    assert not any(shard.faults for shard in shards)


def test_a_pair_leaves_as_it_came(tmp_path: Path, make: SimpleNamespace) -> None:
    members = make.pair("00000000", uid="abc", caption=" two  dogs\n")
    write = make.shard(tmp_path, members, successes=1)
    (shard,) = read_all(tmp_path)
    (pair,) = shard.pairs
    assert (shard.name, write.name) == ("00000", "00000.tar")
    assert (pair.uid, pair.caption, pair.image) == ("abc", " two  dogs\n", members[0][1])
    assert pair.source == "00000.tar:00000000"


def test_a_uid_comes_from_the_metadata_else_from_the_table_else_from_the_content(
    tmp_path: Path, make: SimpleNamespace
) -> None:
    first, second, third = make.pair("0", uid="json"), make.pair("1")[:2], make.pair("2")
    rows = [row("0", uid="table 0"), row("1", uid="table 1"), row("2")]
    make.shard(tmp_path, [*first, *second, *third], successes=3, rows=rows)
    (shard,) = read_all(tmp_path)
    content = content_uid(third[0][1], third[1][1].decode())
    assert [pair.uid for pair in shard.pairs] == ["json", "table 1", content]


def test_the_same_content_has_the_same_uid_under_another_key(tmp_path: Path, make: SimpleNamespace) -> None:
    make.shard(tmp_path / "a", make.pair("0", caption="dog"), successes=1)
    make.shard(tmp_path / "b", make.pair("7", caption="dog"), successes=1)
    assert read_all(tmp_path / "a")[0].pairs[0].uid == read_all(tmp_path / "b")[0].pairs[0].uid


def test_a_damaged_pair_becomes_a_fault_and_the_rest_goes_on(tmp_path: Path, make: SimpleNamespace) -> None:
    damaged = [("1.png", b"no image"), ("1.txt", b"a dog"), ("1.json", b'{"uid": "u1"}')]
    make.shard(tmp_path, [*make.pair("0"), *damaged, *make.pair("2")], successes=3)
    (shard,) = read_all(tmp_path)
    assert [pair.source for pair in shard.pairs] == ["00000.tar:0", "00000.tar:2"]
    assert reasons(shard) == [("00000.tar:1", "u1", Reason.IMAGE_CORRUPT)]


def test_a_part_that_is_not_there_is_named(tmp_path: Path, make: SimpleNamespace) -> None:
    make.shard(tmp_path, [*make.pair("0")[1:], *make.pair("1")[:1]], successes=2)
    (shard,) = read_all(tmp_path)
    assert [fault.reason for fault in shard.faults] == [Reason.IMAGE_MISSING, Reason.CAPTION_MISSING]


def test_broken_metadata_is_a_fault_under_the_uid_of_the_table(tmp_path: Path, make: SimpleNamespace) -> None:
    members = [*make.pair("0")[:2], ("0.json", b"{")]
    make.shard(tmp_path, members, successes=1, rows=[row("0", uid="u0")])
    assert reasons(read_all(tmp_path)[0]) == [("00000.tar:0", "u0", Reason.METADATA_INVALID)]


def test_members_need_not_stand_together(tmp_path: Path, make: SimpleNamespace) -> None:
    first, second = make.pair("0", uid="a"), make.pair("1", uid="b")
    members = [part for parts in zip(first, second, strict=True) for part in parts]
    make.shard(tmp_path, members, successes=2)
    (shard,) = read_all(tmp_path)
    assert [(pair.uid, pair.caption) for pair in shard.pairs] == [("a", "caption 0"), ("b", "caption 1")]


def test_of_a_uid_delivered_twice_the_first_is_kept_across_shards(tmp_path: Path, make: SimpleNamespace) -> None:
    make.shard(tmp_path, make.pair("0", uid="same", caption="one"), successes=1)
    make.shard(tmp_path, make.pair("1", uid="same", caption="two"), successes=1, name="00001")
    first, second = read_all(tmp_path)
    assert [pair.caption for pair in first.pairs] == ["one"]
    assert reasons(second) == [("00001.tar:1", "same", Reason.DUPLICATE_UID)]
    assert "00000" in second.faults[0].detail


def test_of_a_key_used_twice_the_first_is_kept(tmp_path: Path, make: SimpleNamespace) -> None:
    members = [*make.pair("0", uid="a", caption="one"), *make.pair("0", uid="b", caption="two")]
    make.shard(tmp_path, members, successes=2, rows=[row("0", uid="a"), row("0", uid="b")])
    (shard,) = read_all(tmp_path)
    assert [pair.caption for pair in shard.pairs] == ["one"]
    assert reasons(shard) == [("00000.tar:0", "b", Reason.DUPLICATE_KEY)]


def test_an_image_is_never_paired_with_the_caption_of_another_use_of_its_key(
    tmp_path: Path, make: SimpleNamespace
) -> None:
    members = [*make.pair("0", caption="no image of its own")[1:], *make.pair("0", caption="whole")]
    make.shard(tmp_path, members, successes=2)
    (shard,) = read_all(tmp_path)
    assert not shard.pairs
    assert [fault.reason for fault in shard.faults] == [Reason.DUPLICATE_KEY] * 2


def test_pairs_behind_the_end_of_a_truncated_tar_are_named_by_the_table(tmp_path: Path, make: SimpleNamespace) -> None:
    members = [member for number in range(4) for member in make.pair(str(number))]
    content = make.tar(members)[: 2 * 3 * 1024]  # a header and a block for each of six members
    make.shard(tmp_path, content, successes=4, rows=[row(str(number), uid=f"u{number}") for number in range(4)])
    (shard,) = read_all(tmp_path)
    assert [pair.uid for pair in shard.pairs] == ["u0", "u1"]
    lost = Reason.LOST_IN_TAR
    assert reasons(shard) == [("00000.tar:2", "u2", lost), ("00000.tar:3", "u3", lost)]


def test_without_a_table_lost_pairs_are_counted_by_the_statistics(tmp_path: Path, make: SimpleNamespace) -> None:
    make.shard(tmp_path, make.pair("0"), successes=3)
    (shard,) = read_all(tmp_path)
    assert reasons(shard) == [("00000.tar", None, Reason.LOST_IN_TAR)] * 2


def test_a_damaged_header_costs_one_pair(tmp_path: Path, make: SimpleNamespace) -> None:
    content = bytearray(make.tar([member for number in range(3) for member in make.pair(str(number))]))
    content[3 * 1024] ^= 0xFF  # the name in the header of the second pair's image
    make.shard(tmp_path, bytes(content), successes=3)
    (shard,) = read_all(tmp_path)
    assert [pair.source for pair in shard.pairs] == ["00000.tar:0", "00000.tar:2"]
    assert reasons(shard) == [("00000.tar:1", None, Reason.IMAGE_MISSING)]


def test_failed_downloads_were_never_promised(tmp_path: Path, make: SimpleNamespace) -> None:
    rows = [row("0"), row("1", status="failed_to_download")]
    make.shard(tmp_path, make.pair("0"), successes=1, rows=rows)
    assert read_all(tmp_path)[0].expected == 1


def test_pairs_that_nobody_promised_are_kept_and_counted(tmp_path: Path, make: SimpleNamespace) -> None:
    make.shard(tmp_path, [*make.pair("0"), *make.pair("1")], successes=1, rows=[row("0")])
    assert (read_all(tmp_path)[0].expected, len(read_all(tmp_path)[0].pairs)) == (2, 2)


def test_an_empty_shard_is_a_shard(tmp_path: Path, make: SimpleNamespace) -> None:
    make.shard(tmp_path, [], successes=0)
    assert read_all(tmp_path)[0].expected == 0


def test_a_hostile_key_is_only_a_label(tmp_path: Path, make: SimpleNamespace) -> None:
    make.shard(tmp_path / "in", make.pair("../../out\x1b[2J\n"), successes=1)
    (pair,) = read_all(tmp_path / "in")[0].pairs
    assert pair.source.isprintable()
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_no_statistics_no_ingest(tmp_path: Path, make: SimpleNamespace) -> None:
    make.shard(tmp_path, make.pair("0"), successes=1)
    assert is_complete(tmp_path)
    (tmp_path / "00000_stats.json").unlink()
    assert not is_complete(tmp_path)
    with pytest.raises(DeliveryError, match=r"00000\.tar is unfinished.*run img2dataset again"):
        read_delivery(tmp_path)


def test_a_download_in_progress_is_incomplete(tmp_path: Path, make: SimpleNamespace) -> None:
    make.shard(tmp_path, make.pair("0"), successes=1)
    (tmp_path / "_tmp").mkdir()
    assert not is_complete(tmp_path)
    with pytest.raises(DeliveryError, match="_tmp"):
        read_delivery(tmp_path)


def test_a_tar_that_is_gone_is_named(tmp_path: Path, make: SimpleNamespace) -> None:
    make.shard(tmp_path, make.pair("0"), successes=1).unlink()
    assert not is_complete(tmp_path)
    with pytest.raises(DeliveryError, match=r"00000\.tar is missing; delete 00000_stats\.json"):
        read_delivery(tmp_path)


@pytest.mark.parametrize("name", ["nowhere", "empty", "file"])
def test_what_is_no_delivery_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert not is_complete(tmp_path / name)
    with pytest.raises(DeliveryError, match=f"{name}.*(correct the path|run img2dataset)"):
        read_delivery(tmp_path / name)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"successes": -1}', '{"successes": 1e3}', '{"successes": 1' + "0" * 9 + "}"]
)
def test_statistics_that_say_nothing_sensible_are_named(tmp_path: Path, make: SimpleNamespace, content: str) -> None:
    make.shard(tmp_path, make.pair("0"), successes=1)
    (tmp_path / "00000_stats.json").write_text(content)
    with pytest.raises(DeliveryError, match=r"00000_stats\.json.*delete it and run"):
        list(read_delivery(tmp_path))


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"PAR1" + bytes(64) + b"PAR1"], ids=len)
def test_an_unreadable_table_is_named(tmp_path: Path, make: SimpleNamespace, content: bytes) -> None:
    make.shard(tmp_path, make.pair("0"), successes=1)
    (tmp_path / "00000.parquet").write_bytes(content)
    with pytest.raises(DeliveryError, match=r"00000\.parquet.*delete it to go on"):
        list(read_delivery(tmp_path))


FATES = st.sampled_from(["sound", "no image", "no caption", "zero bytes", "blank", "latin-1", "bad json", "absent"])


def delivered(make: SimpleNamespace, number: int, fate: str) -> list[tuple[str, bytes]]:
    key, colour = f"{number:08d}", number
    image, caption, metadata = make.pair(key, colour=colour, uid=f"uid {number % 5}", caption=f"pair {number}")
    parts = {
        "sound": [image, caption, metadata],
        "no image": [caption, metadata],
        "no caption": [image, metadata],
        "zero bytes": [(image[0], b""), caption, metadata],
        "blank": [image, (caption[0], b" "), metadata],
        "latin-1": [image, (caption[0], b"\xe9"), metadata],
        "bad json": [image, caption, (metadata[0], b"{")],
        "absent": [],
    }
    return parts[fate]


@settings(max_examples=60, deadline=None)
@given(
    fates=st.lists(FATES, max_size=8),
    with_table=st.booleans(),
    cut=st.none() | st.integers(0, 20_480),
    blots=st.lists(st.integers(0, 40), max_size=3),
    surplus=st.integers(-3, 3),
)
def test_every_pair_is_accounted_for_whatever_happened_to_the_tar(
    make: SimpleNamespace,
    fates: list[str],
    with_table: bool,
    cut: int | None,
    blots: list[int],
    surplus: int,
) -> None:
    members = [member for number, fate in enumerate(fates) for member in delivered(make, number, fate)]
    content = bytearray(make.tar(members)[:cut])
    for blot in blots:
        content[blot * 512 : (blot + 1) * 512] = b"\xff" * len(content[blot * 512 : (blot + 1) * 512])
    rows = [row(f"{number:08d}", uid=f"uid {number % 5}") for number in range(len(fates))]
    with tempfile.TemporaryDirectory() as directory:
        successes = max(0, len(fates) + surplus)
        make.shard(Path(directory), bytes(content), successes=successes, rows=rows if with_table else None)
        (shard,) = read_all(Path(directory))
    assert shard.expected >= max(successes, len(fates) if with_table else 0)
    assert len({pair.uid for pair in shard.pairs}) == len(shard.pairs)
    for pair in shard.pairs:  # image and caption still belong together
        number = int(pair.caption.removeprefix("pair "))
        assert pair.image == make.image(number)
        assert pair.source == f"00000.tar:{number:08d}"
