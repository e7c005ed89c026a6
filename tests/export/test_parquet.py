import pyarrow as pa
import pyarrow.parquet as pq

from tests.subsets import ASSET, PARTITION, export, raw_pair, two_crawls, write_subset


def test_the_table_has_every_pair_in_the_order_of_the_ranks(tmp_path):
    store = two_crawls(tmp_path)
    (done,) = export(store, tmp_path / "out", "parquet")
    found = pq.read_table(done.directory / "pairs.parquet")
    subset = store.read(ASSET, PARTITION)
    assert found["uid"].to_pylist() == subset["uid"].to_pylist()
    assert found["uid"].type == found["crawl"].type == pa.string()
    assert found["rank"].to_pylist() == list(range(15))
    assert found["gain"].to_pylist() == subset["gain"].to_pylist()
    owners = dict(zip(found["uid"].to_pylist(), found["crawl"].to_pylist(), strict=True))
    assert owners[f"{17:032x}"] == "crawl-1"
    assert owners[f"{19:032x}"] == "crawl-2"
    assert set(found["latent_class"].to_pylist()) == {0, 1, 2}


def test_pairs_without_an_image_and_with_any_uid_can_leave(tmp_path):
    store = write_subset(tmp_path, {"crawl-2": [raw_pair(0, uid="a cat", image=None)]}, ["a cat"])
    (done,) = export(store, tmp_path / "out", "parquet")
    assert pq.read_table(done.directory / "pairs.parquet")["uid"].to_pylist() == ["a cat"]
