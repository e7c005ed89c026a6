import time
from datetime import datetime, timedelta
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from resources.lance_store import Forgotten, LanceStore


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


def texts_of(store):
    """The type of the text that each way of reading a table gives."""
    stored, columns = store.rows("pool", "crawl-1"), ["uid", "value"]
    read = [
        store.read("pool", "crawl-1"),
        store.find("pool", "crawl-1", "uid", ["u1"], columns),
        store.stream("pool", "crawl-1", columns, batch_size=2).read_all(),
        stored.slice(0, 2, columns),
        stored.take(np.array([1, 0]), columns),
        stored.take(np.empty(0, np.int64), columns),
    ]
    return {table.schema.field("uid").type for table in read}


def stored_texts(store):
    return lancedb.connect(store.uri).open_table("pool.crawl-1").schema.field("uid").type


def test_text_is_stored_with_offsets_of_32_bits_and_leaves_with_64(store):
    store.write("pool", "crawl-1", rows(1, 2, 3))
    assert (stored_texts(store), texts_of(store)) == (pa.string(), {pa.large_string()})
    wide = store.read("pool", "crawl-1")
    store.write("pool", "crawl-1", wide.to_reader())
    assert (stored_texts(store), texts_of(store)) == (pa.string(), {pa.large_string()})
    store.write("pool", "crawl-1", wide, metadata={"proxy_sha256": "abc"})
    assert (stored_texts(store), texts_of(store)) == (pa.string(), {pa.large_string()})
    assert store.read("pool", "crawl-1").equals(wide)
    assert store.metadata("pool", "crawl-1") == {"proxy_sha256": "abc"}


def test_a_table_that_another_version_stored_is_read_beside_a_new_one(store):
    store.write("pool", "crawl-1", rows(1, 2))
    lancedb.connect(store.uri).create_table("pool.crawl-2", rows(3), mode="overwrite")
    both = pa.concat_tables([store.read("pool", crawl) for crawl in ("crawl-1", "crawl-2")])
    assert both["value"].to_pylist() == [1, 2, 3]


def test_a_table_is_written_in_pieces_and_read_whole(store, monkeypatch):
    monkeypatch.setattr("resources.lance_store.ROWS_WRITTEN", 3)
    assert store.write("pool", "crawl-1", rows(*range(10))).row_count == 10
    assert store.read("pool", "crawl-1")["value"].to_pylist() == list(range(10))


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


def test_rows_are_found_by_their_text(store):
    first = store.write("pool", "crawl-1", rows(*range(1000)))
    found = store.find("pool", "crawl-1", "uid", ["u7", "u990", "nobody"], ["value", "uid"])
    assert found.to_pylist() == [{"value": 7, "uid": "u7"}, {"value": 990, "uid": "u990"}]
    store.write("pool", "crawl-1", rows(1))
    assert len(store.find("pool", "crawl-1", "uid", ["u7"], ["uid"])) == 0
    assert len(store.find("pool", "crawl-1", "uid", ["u7"], ["uid"], version=first.version)) == 1
    assert len(store.find("pool", "crawl-1", "uid", [], ["uid"])) == 0


@pytest.mark.parametrize("text", ["o'clock", "x' OR '1' = '1", "back\\slash", '"', "%", "ü 猫", "a''b", "new\nline"])
def test_text_that_is_looked_for_is_never_acted_on(store, text):
    store.write("pool", "crawl-1", pa.table({"uid": [text, "other"]}))
    assert store.find("pool", "crawl-1", "uid", [text], ["uid"])["uid"].to_pylist() == [text]
    store.write("pool", "crawl-1", pa.table({"uid": ["other", "one more"]}))
    assert len(store.find("pool", "crawl-1", "uid", [text], ["uid"])) == 0


def test_a_column_to_look_in_that_is_not_there_is_named(store):
    store.write("pool", "crawl-1", rows(1))
    with pytest.raises(ValueError, match=r"pool\.crawl-1 has no column name"):
        store.find("pool", "crawl-1", "name", ["u1"], ["uid"])


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


def test_a_version_is_there_until_it_is_cleaned_up(store):
    first = store.write("pool", "crawl-1", rows(1))
    second = store.write("pool", "crawl-1", rows(2))
    assert [store.has_version("pool", "crawl-1", one) for one in (first.version, second.version, 9)] == [
        True,
        True,
        False,
    ]
    lancedb.connect(store.uri).open_table(first.name).optimize(cleanup_older_than=timedelta(milliseconds=5))
    assert not store.has_version("pool", "crawl-1", first.version)
    assert store.has_version("pool", "crawl-1", second.version)
    assert not store.has_version("pool", "crawl-2", 1)


@pytest.fixture
def four_versions(store, monkeypatch):
    """A table that was replaced three times, some moments apart."""
    monkeypatch.setattr("resources.lance_store.ONE_MOMENT", timedelta(milliseconds=200))
    for value in range(1, 5):
        time.sleep(0.3)
        store.write("pool", "crawl-1", rows(*range(value * 1000)))
    return store


def versions(store):
    return [one for one in range(1, 6) if store.has_version("pool", "crawl-1", one)]


def test_versions_that_were_replaced_are_forgotten_and_their_room_is_free(four_versions):
    before = sum(file.stat().st_size for file in Path(four_versions.uri).rglob("*") if file.is_file())
    assert four_versions.forget("pool.crawl-1", timedelta(0), dry_run=True).versions == 3
    assert versions(four_versions) == [1, 2, 3, 4]
    forgotten = four_versions.forget("pool.crawl-1", timedelta(0))
    after = sum(file.stat().st_size for file in Path(four_versions.uri).rglob("*") if file.is_file())
    assert (forgotten.versions, versions(four_versions)) == (3, [4])
    assert before - after == pytest.approx(forgotten.bytes, rel=0.1)
    assert forgotten.bytes > 0
    assert four_versions.version("pool", "crawl-1") == 4
    assert four_versions.row_count("pool", "crawl-1") == 4000


def test_a_version_that_is_kept_can_be_read_and_so_can_those_after_it(four_versions):
    assert four_versions.forget("pool.crawl-1", timedelta(0), keep=[2]).versions == 1
    assert versions(four_versions) == [2, 3, 4]
    assert len(four_versions.read("pool", "crawl-1", version=2)) == 2000


def test_a_version_stays_until_it_was_replaced_long_enough_ago(four_versions):
    # The first version is old enough, but until a moment ago it was the present one.
    (first, second, *_) = [
        one["timestamp"] for one in lancedb.connect(four_versions.uri).open_table("pool.crawl-1").list_versions()
    ]
    between = datetime.now() - first - (second - first) / 2
    assert four_versions.forget("pool.crawl-1", between) == Forgotten(0, 0)
    assert four_versions.forget("pool.crawl-1", timedelta(days=30)) == Forgotten(0, 0)
    assert versions(four_versions) == [1, 2, 3, 4]


def test_a_version_with_a_tag_stays(four_versions):
    table = lancedb.connect(four_versions.uri).open_table("pool.crawl-1")
    table.tags.create("published", 3)
    assert four_versions.forget("pool.crawl-1", timedelta(0)).versions == 2
    assert versions(four_versions) == [3, 4]
    assert set(table.tags.list()) == {"published"}


def test_versions_that_cannot_be_told_apart_in_time_are_not_forgotten(four_versions, monkeypatch):
    # As if LanceDB counted back from a tenth of a second after the version to keep was written.
    monkeypatch.setattr("resources.lance_store.ONE_MOMENT", timedelta(milliseconds=-200))
    with pytest.raises(RuntimeError, match="tagged version"):
        four_versions.forget("pool.crawl-1", timedelta(0), keep=[3])
    assert versions(four_versions) == [1, 2, 3, 4]


def test_versions_of_one_moment_stay_together(store):
    for value in (1, 2, 3):
        store.write("pool", "crawl-1", rows(value))
    assert store.forget("pool.crawl-1", timedelta(0)) == Forgotten(0, 0)


def test_a_version_tells_what_its_writer_said(store):
    first = store.write("pool", "crawl-1", rows(1), {"proxy": "old"})
    store.write("pool", "crawl-1", rows(1), {"proxy": "new"})
    assert store.metadata("pool", "crawl-1")["proxy"] == "new"
    assert store.metadata("pool", "crawl-1", version=first.version)["proxy"] == "old"
    assert store.rows("pool", "crawl-1").version == first.version + 1
