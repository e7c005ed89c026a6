import numpy as np
import pyarrow as pa
import pytest

from resources.lance_store import LanceStore


@pytest.fixture
def store(tmp_path):
    return LanceStore(uri=str(tmp_path / "lance"))


def rows(*values):
    return pa.table({"uid": [f"u{value}" for value in values], "value": list(values)})


def test_what_is_written_is_read(store):
    written = store.write("pool", "crawl-1", rows(1, 2, 3))
    assert (written.name, written.row_count) == ("pool.crawl-1", 3)
    assert store.read("pool", "crawl-1").to_pydict() == {"uid": ["u1", "u2", "u3"], "value": [1, 2, 3]}
    assert store.read("pool", "crawl-1", ["uid"]).to_pydict() == {"uid": ["u1", "u2", "u3"]}


def test_writing_again_replaces_the_rows_and_keeps_the_earlier_version(store):
    first = store.write("pool", "crawl-1", rows(1, 2))
    second = store.write("pool", "crawl-1", rows(3))
    assert store.row_count("pool", "crawl-1") == 1
    assert store.version("pool", "crawl-1") == second.version > first.version
    assert store.read("pool", "crawl-1", ["value"], version=first.version)["value"].to_pylist() == [1, 2]


def test_partitions_of_two_dimensions_have_their_own_tables(store):
    store.write("random_subset", "crawl-1|f10", rows(1))
    store.write("random_subset", "crawl-1|f30", rows(1, 2))
    assert store.row_count("random_subset", "crawl-1|f10") == 1


def test_a_stream_of_batches_is_written_with_metadata(store):
    batches = rows(1, 2, 3, 4).to_batches(max_chunksize=2)
    reader = pa.RecordBatchReader.from_batches(batches[0].schema, iter(batches))
    store.write("embeddings", "crawl-1", reader, metadata={"proxy_sha256": "abc"})
    assert store.metadata("embeddings", "crawl-1")["proxy_sha256"] == "abc"
    assert [len(batch) for batch in store.stream("embeddings", "crawl-1", ["uid"], batch_size=3)] == [3, 1]


def test_an_empty_table_can_be_written(store):
    assert store.write("quarantine", "crawl-1", rows().cast(rows(1).schema)).row_count == 0
    assert store.read("quarantine", "crawl-1").num_rows == 0


def test_an_interrupted_write_leaves_the_earlier_rows(store):
    store.write("pool", "crawl-1", rows(1, 2))

    def broken():
        yield rows(3).to_batches()[0]
        raise OSError("the disk is full")

    with pytest.raises(Exception, match="the disk is full"):
        store.write("pool", "crawl-1", pa.RecordBatchReader.from_batches(rows(3).schema, broken()))
    assert store.read("pool", "crawl-1")["value"].to_pylist() == [1, 2]


def test_a_missing_table_says_what_to_materialize(store):
    assert not store.exists("pool", "crawl-9")
    with pytest.raises(KeyError, match="materialize pool for partition crawl-9 first"):
        store.read("pool", "crawl-9")


def test_a_version_that_is_gone_is_named(store):
    store.write("pool", "crawl-1", rows(1))
    with pytest.raises(ValueError, match=r"version 7 of table pool\.crawl-1 is gone"):
        store.read("pool", "crawl-1", version=7)


def test_some_rows_are_read_by_their_place(store):
    store.write("pool", "crawl-1", rows(*range(1000)))
    stored = store.rows("pool", "crawl-1")
    assert len(stored) == 1000
    assert stored.slice(990, 4, ["value"])["value"].to_pylist() == [990, 991, 992, 993]
    places = np.random.default_rng(0).integers(0, 1000, 300)
    assert stored.take(places, ["value"])["value"].to_pylist() == places.tolist()
    assert stored.slice(3, 0, ["uid"]).num_rows == stored.take(places[:0], ["uid"]).num_rows == 0


def test_rows_that_are_not_there_are_not_left_out_in_silence(store):
    store.write("pool", "crawl-1", rows(1, 2))
    stored = store.rows("pool", "crawl-1")
    for read in (lambda: stored.slice(1, 2, ["uid"]), lambda: stored.take(np.array([0, 5]), ["uid"])):
        with pytest.raises(ValueError, match=r"pool\.crawl-1 has 1 of 2 wanted rows"):
            read()


def test_a_table_of_another_version_of_the_project_is_named(store):
    store.write("pool", "crawl-1", rows(1))
    message = r"pool\.crawl-1 has no column latent_class: another version of this project wrote it"
    with pytest.raises(ValueError, match=message):
        store.read("pool", "crawl-1", ["uid", "latent_class"])
    with pytest.raises(ValueError, match=message):
        store.rows("pool", "crawl-1").take(np.array([0]), ["latent_class"])
