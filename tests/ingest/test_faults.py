"""Whatever is wrong with a shard of tars: it is read, and every pair that was promised or found is accounted for."""

import gzip
import tarfile
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipcov_assets.ingest.delivery import Reason
from clipcov_assets.ingest.img2dataset_shard import TarOfPairs


def row(key: str, *, uid: str | None = None, status: str = "success") -> dict[str, str | None]:
    return {"key": key, "status": status, "uid": uid}


def reasons(shard: SimpleNamespace) -> list[tuple[str | None, str | None, Reason]]:
    return [(fault.place.key, fault.uid, fault.reason) for fault in shard.faults]


@pytest.fixture
def read(tmp_path: Path, make: SimpleNamespace):
    """Writes a shard and reads it."""

    def read(members, *, successes: int, rows=None, **files: bytes) -> SimpleNamespace:
        tar = make.shard(tmp_path, members, successes=successes, rows=rows)
        for name, content in files.items():
            (tmp_path / {"table": "00000.parquet", "statistics": "00000_stats.json"}[name]).write_bytes(content)
        return make.read(TarOfPairs(tar))

    return read


def header(name: str, **fields: object) -> bytes:
    entry = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry.tobuf(tarfile.GNU_FORMAT)


PARTS = [
    (".png", None, Reason.IMAGE_MISSING),
    (".png", b"", Reason.IMAGE_EMPTY),
    (".png", b"no image", Reason.IMAGE_CORRUPT),
    (".txt", None, Reason.CAPTION_MISSING),
    (".txt", b"", Reason.CAPTION_EMPTY),
    (".txt", b" \n", Reason.CAPTION_EMPTY),
    (".txt", b"caf\xe9", Reason.CAPTION_UNDECODABLE),
    (".txt", b"a" * 70_000, Reason.CAPTION_TOO_LONG),
    (".json", b"", Reason.METADATA_INVALID),
    (".json", b'{"uid": ', Reason.METADATA_INVALID),
]


@pytest.mark.parametrize("suffix, content, reason", PARTS)
def test_a_damaged_part_costs_its_pair_and_no_other(
    read, make: SimpleNamespace, suffix: str, content: bytes | None, reason: Reason
) -> None:
    damaged = [
        (name, part if not name.endswith(suffix) else content)
        for name, part in make.pair("1")
        if not name.endswith(suffix) or content is not None
    ]
    rows = [row(str(number), uid=f"u{number}") for number in range(3)]
    shard = read([*make.pair("0"), *damaged, *make.pair("2")], successes=3, rows=rows)
    assert [pair.uid for pair in shard.pairs] == ["u0", "u2"]
    assert reasons(shard) == [("1", "u1", reason)]


@pytest.mark.parametrize(
    "kind, why",
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
    ],
)
def test_an_image_that_is_no_plain_file_is_missing(read, make: SimpleNamespace, kind: bytes, why: str) -> None:
    link = header("1.png", type=kind, linkname="/etc/passwd")
    content = make.tar(make.pair("0"))[: 3 * 1024] + link + make.tar(make.pair("1")[1:])
    shard = read(content, successes=2)
    assert [pair.place.key for pair in shard.pairs] == ["0"]
    (fault,) = shard.faults
    assert (fault.reason, fault.detail) == (Reason.IMAGE_MISSING, f"png: {why}")


def test_an_image_that_declares_8_gib_takes_nothing_with_it(read, make: SimpleNamespace) -> None:
    content = make.tar(make.pair("0"))[: 3 * 1024] + header("1.png", size=8 * 2**30) + make.tar(make.pair("2"))
    shard = read(content, successes=3, rows=[row(key) for key in "012"])
    assert [pair.place.key for pair in shard.pairs] == ["0", "2"]
    (fault,) = shard.faults
    assert fault.reason is Reason.IMAGE_MISSING
    assert "declares 8589934592 bytes" in fault.detail


@pytest.mark.parametrize("part, lost", [(0, Reason.IMAGE_MISSING), (1, Reason.CAPTION_MISSING)])
def test_a_damaged_header_in_the_middle_costs_one_pair_and_is_told(
    read, make: SimpleNamespace, part: int, lost: Reason
) -> None:
    content = bytearray(make.tar([member for number in range(3) for member in make.pair(str(number))]))
    content[(3 + part) * 1024] ^= 0xFF  # the name in the header of one part of the second pair
    shard = read(bytes(content), successes=3)
    assert [pair.place.key for pair in shard.pairs] == ["0", "2"]
    assert reasons(shard) == [("1", None, lost)]
    assert f"no header at byte {(3 + part) * 1024}" in shard.faults[0].detail
    assert "00000.tar: no header at byte" in shard.remarks[0]


def test_pairs_behind_the_end_of_a_truncated_tar_are_named_by_the_table(read, make: SimpleNamespace) -> None:
    members = [member for number in range(4) for member in make.pair(str(number))]
    content = make.tar(members)[: 2 * 3 * 1024]  # a header and a block for each of six members
    shard = read(content, successes=4, rows=[row(str(number), uid=f"u{number}") for number in range(4)])
    assert [pair.uid for pair in shard.pairs] == ["u0", "u1"]
    assert reasons(shard) == [("2", "u2", Reason.LOST_IN_TAR), ("3", "u3", Reason.LOST_IN_TAR)]
    assert "cut short" in shard.faults[0].detail


def test_without_a_table_lost_pairs_are_counted_by_the_statistics(read, make: SimpleNamespace) -> None:
    shard = read(make.pair("0"), successes=3)
    assert reasons(shard) == [(None, None, Reason.LOST_IN_TAR)] * 2
    assert "reads to its end without it" in shard.faults[0].detail


def test_concatenated_tars_are_read_whole(read, make: SimpleNamespace) -> None:
    shard = read(make.tar(make.pair("0")) + make.tar(make.pair("1")), successes=2)
    assert [pair.place.key for pair in shard.pairs] == ["0", "1"]


@pytest.mark.parametrize(
    "content, what",
    [(b"", "zero bytes"), (gzip.compress(bytes(10_240)), "gzip, no tar"), (b"<html>" * 100, "HTML or XML, no tar")],
    ids=["empty", "gzip", "html"],
)
def test_a_tar_that_is_none_loses_all_that_was_promised(read, content: bytes, what: str) -> None:
    shard = read(content, successes=2, rows=[row("0", uid="u0"), row("1")])
    assert reasons(shard) == [("0", "u0", Reason.LOST_IN_TAR), ("1", None, Reason.LOST_IN_TAR)]
    assert all(what in fault.detail for fault in shard.faults)
    assert what in shard.remarks[0]


def test_a_tar_that_cannot_be_opened_loses_all_that_was_promised(tmp_path: Path, make: SimpleNamespace) -> None:
    tar = make.shard(tmp_path, [], successes=2)
    tar.unlink()
    tar.mkdir()
    shard = make.read(TarOfPairs(tar))
    assert reasons(shard) == [(None, None, Reason.LOST_IN_TAR)] * 2
    assert "it cannot be read: Is a directory" in shard.remarks[0]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "[" * 100_000, '{"successes": -1}', '{"successes": 1e3}', '{"successes": true}']
    + ['{"successes": 1' + "0" * 9 + "}", '{"successes": 1' + "0" * 5000 + "}"],
    ids=range(9),
)
def test_statistics_that_say_nothing_sensible_are_left_out(read, make: SimpleNamespace, content: str) -> None:
    shard = read(make.pair("0", uid="a"), successes=1, rows=[row("0"), row("1")], statistics=content.encode())
    assert (shard.promised, len(shard.pairs)) == (2, 1)
    (remark,) = shard.remarks
    assert remark.startswith("00000_stats.json cannot be used")
    assert "have img2dataset write the shard again" in remark


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"PAR1" + bytes(64) + b"PAR1"], ids=len)
def test_an_unreadable_table_is_left_out(read, make: SimpleNamespace, content: bytes) -> None:
    shard = read(make.pair("0", uid="a"), successes=2, table=content)
    assert (shard.promised, len(shard.pairs)) == (2, 1)
    (remark,) = shard.remarks
    assert remark.startswith("00000.parquet cannot be used")


def parquet(**columns: object) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def test_a_truncated_table_is_left_out(read, make: SimpleNamespace) -> None:
    whole = parquet(key=["0", "1"], status=["success"] * 2)
    for end in range(0, len(whole), 97):
        assert read(make.pair("0", uid="a"), successes=1, table=whole[:end]).promised == 1


def test_a_damaged_table_never_stops_a_shard(read, make: SimpleNamespace) -> None:
    whole = parquet(key=["0", "1"], status=["success"] * 2, uid=["a", "b"])
    for at in range(4, len(whole), 41):
        damaged = whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]
        assert len(read(make.pair("0", uid="a"), successes=1, table=damaged).pairs) == 1


def test_a_table_of_something_else_is_left_out(read, make: SimpleNamespace) -> None:
    shard = read(make.pair("0", uid="a"), successes=1, table=parquet(id=[1, 2, 3]))
    assert shard.promised == 1
    assert "no column 'key'" in shard.remarks[0]


def test_a_table_of_absurd_length_is_not_read(read, make: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipcov_assets.ingest.img2dataset_promise.MOST_PAIRS", 2)
    shard = read(make.pair("0", uid="a"), successes=1, table=parquet(key=["0", "1", "2"]))
    assert "3 rows, 2 are the most" in shard.remarks[0]


def test_other_columns_and_types_are_read(read, make: SimpleNamespace) -> None:
    table = parquet(key=[7, 8], uid=[1, 2], similarity=[0.5, 0.5])  # numbers have lost the zeros of their keys
    shard = read([*make.pair("00007"), *make.pair("00008", uid="b")], successes=2, table=table)
    assert (shard.promised, len(shard.pairs)) == (2, 2)
    assert shard.remarks == [
        "00000.tar: 1 uids are made of image and caption, there is none in json or table; first: 00007"
    ]


@pytest.mark.parametrize("successes, promised", [(1, 2), (3, 3)])
def test_of_statistics_and_table_the_larger_promise_counts(
    read, make: SimpleNamespace, successes: int, promised: int
) -> None:
    shard = read(make.pair("0", uid="a"), successes=successes, rows=[row("0"), row("1")])
    assert shard.promised == promised
    assert shard.remarks == [f"00000_stats.json promises {successes} pairs, 00000.parquet 2: the larger counts"]


def test_missing_statistics_and_table_leave_what_the_tar_holds(tmp_path: Path, make: SimpleNamespace) -> None:
    tar = make.shard(tmp_path, [*make.pair("0", uid="a"), *make.pair("1")[:1]], successes=2)
    (tmp_path / "00000_stats.json").unlink()
    shard = make.read(TarOfPairs(tar))
    assert (shard.promised, len(shard.pairs), shard.remarks) == (2, 1, [])


def test_hostile_names_are_read_as_keys(read, make: SimpleNamespace) -> None:
    keys = ["/etc/passwd", "../../out", "a\nb", "caf\udce9", "x" * 10_000]
    rows = [row(key) for key in keys[:3]]
    shard = read([member for key in keys for member in make.pair(key, uid="a", caption="dog")], successes=5, rows=rows)
    assert (shard.promised, len(shard.pairs)) == (5, 5)
    assert all(pair.place.key.isprintable() and len(pair.place.key) <= 200 for pair in shard.pairs)


FATES = st.sampled_from(
    ["sound", "no image", "no caption", "zero bytes", "blank", "latin-1", "bad json", "no json", "absent", "again"]
)


def delivered(make: SimpleNamespace, number: int, fate: str) -> list[tuple[str, bytes]]:
    image, caption, metadata = make.pair(
        f"{number:08d}", colour=number, uid=f"uid {number % 5}", caption=f"pair {number}"
    )
    parts = {
        "sound": [image, caption, metadata],
        "no image": [caption, metadata],
        "no caption": [image, metadata],
        "zero bytes": [(image[0], b""), caption, metadata],
        "blank": [image, (caption[0], b" "), metadata],
        "latin-1": [image, (caption[0], b"\xe9"), metadata],
        "bad json": [image, caption, (metadata[0], b"{")],
        "no json": [image, caption],
        "absent": [],
        "again": [image, caption, metadata, image, caption, metadata],
    }
    return parts[fate]


@settings(max_examples=150, deadline=None)
@given(
    fates=st.lists(FATES, max_size=8),
    order=st.randoms(use_true_random=False) | st.none(),
    with_table=st.booleans(),
    cut=st.none() | st.integers(0, 20_480),
    table_cut=st.none() | st.integers(0, 2000),
    blots=st.lists(st.integers(0, 40), max_size=3),
    surplus=st.integers(-3, 3),
)
def test_every_pair_is_accounted_for_whatever_happened_to_the_shard(
    make: SimpleNamespace, fates, order, with_table: bool, cut, table_cut, blots, surplus: int
) -> None:
    members = [member for number, fate in enumerate(fates) for member in delivered(make, number, fate)]
    if order:
        order.shuffle(members)
    content = bytearray(make.tar(members)[:cut])
    for blot in blots:
        content[blot * 512 : (blot + 1) * 512] = b"\xff" * len(content[blot * 512 : (blot + 1) * 512])
    rows = [row(f"{number:08d}", uid=f"uid {number % 5}") for number in range(len(fates))]
    successes = max(0, len(fates) + surplus)
    with tempfile.TemporaryDirectory() as directory:
        tar = make.shard(Path(directory), bytes(content), successes=successes, rows=rows if with_table else None)
        if with_table:
            tar.with_suffix(".parquet").write_bytes(tar.with_suffix(".parquet").read_bytes()[:table_cut])
        shard = make.read(TarOfPairs(tar))
        again = make.read(TarOfPairs(tar))
    assert [(type(outcome), outcome.place) for outcome in shard.outcomes] == [
        (type(outcome), outcome.place) for outcome in again.outcomes
    ]
    assert shard.promised >= max(successes, len(fates) if with_table and table_cut is None else 0)
    for pair in shard.pairs:  # image and caption still belong together
        number = int(pair.caption.removeprefix("pair "))
        assert pair.image == make.image(number)
        assert pair.place.key == f"{number:08d}"
