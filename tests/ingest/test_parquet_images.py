import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipcov_assets.ingest import parquet_rows
from clipcov_assets.ingest.delivery import DeliveryError, DeliveryOptions, Reason
from clipcov_assets.ingest.parquet_images import FORMAT

STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


@pytest.fixture
def read(make):
    def read(directory, **options):
        shards = pickle.loads(pickle.dumps(FORMAT.shards(directory, DeliveryOptions(**options))))
        return [make.read(shard) for shard in shards]

    return read


def write(path, columns, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)


def test_images_as_hugging_face_writes_them(tmp_path, read, make):
    images = pa.array([{"bytes": make.image(number), "path": f"{number}.png"} for number in range(3)], STRUCT)
    path = tmp_path / "data" / "train-00000-of-00001.parquet"
    write(path, {"image": images, "text": ["a", "b", "c"], "file_name": ["x", "y", "z"]})
    assert FORMAT.is_here(tmp_path)
    (shard,) = read(tmp_path)
    assert [(pair.caption, pair.image) for pair in shard.pairs] == [
        (caption, make.image(number)) for number, caption in enumerate("abc")
    ]
    assert (shard.pairs[2].place.file, shard.pairs[2].place.row) == ("data/train-00000-of-00001.parquet", 2)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("name", ["jpg", "something"])
def test_a_column_of_bytes_alone_is_as_good(tmp_path, read, make, kind, name):
    captions = pa.array(["a"]).dictionary_encode()
    write(tmp_path / "t.parquet", {name: pa.array([make.image()], kind), "Caption": captions, "uid": pa.array([7])})
    (pair,) = read(tmp_path)[0].pairs
    assert (pair.caption, pair.uid) == ("a", "7")


def test_of_two_columns_of_bytes_the_options_choose(tmp_path, read, make):
    columns = {"one": [make.image(1)], "two": [make.image(2)], "words": ["a"]}
    write(tmp_path / "t.parquet", columns)
    assert not FORMAT.is_here(tmp_path)
    (pair,) = read(tmp_path, image="two", caption="words")[0].pairs
    assert pair.image == make.image(2)


def test_of_several_captions_the_first_is_taken_and_it_is_said(tmp_path, read, make):
    captions = pa.array([["a", "b"], ["c"], [], None, ["", "d"]], pa.list_(pa.string()))
    write(tmp_path / "t.parquet", {"image": [make.image()] * 5, "captions": captions})
    (shard,) = read(tmp_path)
    assert [pair.caption for pair in shard.pairs] == ["a", "c"]
    assert [fault.reason for fault in shard.faults] == [
        Reason.CAPTION_MISSING,
        Reason.CAPTION_MISSING,
        Reason.CAPTION_EMPTY,
    ]
    assert "2 rows with several captions" in shard.remarks[0]


def test_a_bad_row_is_a_fault_and_the_rest_goes_on(tmp_path, read, make):
    images = pa.array(
        [None, {"bytes": None, "path": "x"}, {"bytes": b"", "path": ""}, {"bytes": b"x"}]
        + [{"bytes": make.image()}] * 3,
        STRUCT,
    )
    captions = pa.array([b"a", b"b", b"c", b"d", None, b"caf\xe9", b"g"], pa.binary()).view(pa.string())
    write(tmp_path / "t.parquet", {"image": images, "text": captions, "uid": ["u"] * 6 + ["x" * 200]})
    (shard,) = read(tmp_path)
    assert [fault.reason for fault in shard.faults] == [
        Reason.IMAGE_MISSING,
        Reason.IMAGE_MISSING,
        Reason.IMAGE_EMPTY,
        Reason.IMAGE_CORRUPT,
        Reason.CAPTION_MISSING,
        Reason.CAPTION_UNDECODABLE,
        Reason.METADATA_INVALID,
    ]


def test_a_file_cut_short_is_one_fault_and_the_others_go_on(tmp_path, read, make):
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.parquet", {"image": [make.image()], "text": [name]})
    (tmp_path / "b.parquet").write_bytes((tmp_path / "b.parquet").read_bytes()[:-9])
    (tmp_path / "d.parquet").write_bytes(b"")
    shards = read(tmp_path)
    assert [pair.caption for shard in shards for pair in shard.pairs] == ["a", "c"]
    faults = [fault for shard in shards for fault in shard.faults]
    assert [(fault.place.file, fault.reason) for fault in faults] == [
        ("b.parquet", Reason.ROW_UNREADABLE),
        ("d.parquet", Reason.ROW_UNREADABLE),
    ]


@pytest.mark.parametrize("row_group_size", [1, 7, 100, 1000])
def test_shards_are_runs_of_rows_whatever_the_row_groups(tmp_path, read, make, monkeypatch, row_group_size):
    monkeypatch.setattr(parquet_rows, "ROWS_A_RUN", 10)
    captions = [str(number) for number in range(95)]
    write(tmp_path / "t.parquet", {"image": [make.image()] * 95, "text": captions}, row_group_size=row_group_size)
    shards = read(tmp_path)
    assert len(shards) == {1: 10, 7: 7, 100: 8, 1000: 8}[row_group_size]
    pairs = [pair for shard in shards for pair in shard.pairs]
    assert [pair.caption for pair in pairs] == captions
    assert [pair.place.row for pair in pairs] == list(range(95))


def test_a_fingerprint_is_of_the_rows_of_the_shard(tmp_path, make, monkeypatch):
    monkeypatch.setattr(parquet_rows, "ROWS_A_RUN", 2)
    fingerprints = []
    for caption in ("d", "x"):
        columns = {"image": [make.image()] * 4, "text": ["a", "b", "c", caption]}
        write(tmp_path / "t.parquet", columns, row_group_size=2)
        fingerprints.append([shard.fingerprint() for shard in FORMAT.shards(tmp_path, DeliveryOptions())])
    assert fingerprints[0][0] == fingerprints[1][0] != fingerprints[0][1] != fingerprints[1][1]


def test_columns_that_are_not_there_are_named(tmp_path, make):
    write(tmp_path / "t.parquet", {"image": [make.image()], "label": ["a"]})
    with pytest.raises(DeliveryError, match=r"t\.parquet has no columns of encoded images.*image, label"):
        FORMAT.shards(tmp_path, DeliveryOptions())


def test_a_footer_that_declares_impossible_rows_is_unreadable(tmp_path, read, make):
    write(tmp_path / "a.parquet", {"image": [make.image()], "text": ["a"]})
    write(tmp_path / "b.parquet", {"image": [make.image()] * 61, "text": ["a"] * 61})
    content = (tmp_path / "b.parquet").read_bytes()
    footer = content.rindex(b"\x16\x7a", 0, -8)  # 61 as the footer writes it: make it -62
    (tmp_path / "b.parquet").write_bytes(content[:footer] + b"\x16\x7b" + content[footer + 2 :])
    faults = [fault for shard in read(tmp_path) for fault in shard.faults]
    assert [(fault.place.file, fault.reason) for fault in faults] == [("b.parquet", Reason.ROW_UNREADABLE)]
