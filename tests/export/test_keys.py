import pyarrow.parquet as pq
import webdataset

from tests.deliveries import deliver
from tests.subsets import export, raw_pair, two_crawls, write_subset


def test_the_keys_take_exactly_the_chosen_pairs_out_of_the_tars_as_they_lie(tmp_path):
    tar = deliver(tmp_path / "delivery", range(20)) / "00000.tar"
    rows = [raw_pair(seed, file="00000.tar") for seed in range(20)]
    chosen = [rows[seed]["uid"] for seed in (13, 2, 7)]
    (done,) = export(write_subset(tmp_path, {"crawl-2": rows}, chosen), tmp_path / "out", "keys")
    listed = pq.read_table(done.directory / "keys.parquet").to_pylist()
    keys = {row["key"] for row in listed if (row["crawl"], row["file"]) == ("crawl-2", "00000.tar")}
    pairs = webdataset.WebDataset(str(tar), shardshuffle=False).select(lambda pair: pair["__key__"] in keys).decode()
    assert sorted(pair["json"]["uid"] for pair in pairs) == sorted(chosen)
    assert {row["uid"]: row["rank"] for row in listed} == {uid: rank for rank, uid in enumerate(chosen)}


def test_the_list_runs_through_each_delivery_once_oldest_crawl_first(tmp_path):
    (done,) = export(two_crawls(tmp_path), tmp_path / "out", "keys")
    rows = pq.read_table(done.directory / "keys.parquet").to_pylist()
    crawls = [row["crawl"] for row in rows]
    assert crawls == ["crawl-1"] * 9 + ["crawl-2"] * 6
    first = [row["file"] for row in rows if row["crawl"] == "crawl-1"]
    assert first == sorted(first)


def test_a_pair_that_lies_in_no_tar_is_named_by_file_and_row_and_counted(tmp_path):
    rows = [raw_pair(0), raw_pair(1, file="pairs.parquet", key=None, row=7), raw_pair(2, file="a/b.jpg", key=None)]
    store = write_subset(tmp_path, {"crawl-2": rows}, [row["uid"] for row in rows])
    (done,) = export(store, tmp_path / "out", "keys")
    assert done.manifest["without_key"] == 2
    found = pq.read_table(done.directory / "keys.parquet").to_pylist()
    assert [(row["file"], row["key"], row["row"]) for row in found[1:]] == [
        ("pairs.parquet", None, 7),
        ("a/b.jpg", None, None),
    ]


def test_pairs_that_lie_elsewhere_now_give_a_new_list(tmp_path):
    for file in ("old.tar", "new.tar"):
        row = raw_pair(0, file=file)
        (done,) = export(write_subset(tmp_path, {"crawl-2": [row]}, [row["uid"]]), tmp_path / "out", "keys")
        assert not done.already_there
        assert pq.read_table(done.directory / "keys.parquet")["file"].to_pylist() == [file]
