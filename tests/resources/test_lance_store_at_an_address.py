"""Tables in a bucket: what holds for a directory holds there, and a store that fails is no empty one."""

import time
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from resources.lance_store import LanceStore, UnreachableStoreError
from tests.object_store import CREDENTIALS
from tests.resources.test_lance_store import rows

ASKED = {
    "exists": lambda store: store.exists("pool", "crawl-1"),
    "tables": lambda store: store.tables(),
    "read": lambda store: store.read("pool", "crawl-1"),
    "write": lambda store: store.write("pool", "crawl-1", rows(1)),
    "has_version": lambda store: store.has_version("pool", "crawl-1", 1),
    "forget": lambda store: store.forget("pool.crawl-1", timedelta(0)),
}


@pytest.fixture
def store(bucket):
    return LanceStore(uri=bucket.at("lance"))


def versions(store):
    return [one for one in range(1, 6) if store.has_version("pool", "crawl-1", one)]


def test_what_is_written_is_read(store):
    assert store.tables() == []
    assert not store.exists("pool", "crawl-1")
    written = store.write("pool", "crawl-1", rows(1, 2, 3), {"proxy": "abc"})
    assert (written.name, written.uri, written.row_count) == ("pool.crawl-1", f"{store.uri}/pool.crawl-1.lance", 3)
    assert store.exists("pool", "crawl-1")
    assert store.read("pool", "crawl-1", ["uid"]).to_pydict() == {"uid": ["u1", "u2", "u3"]}
    assert store.metadata("pool", "crawl-1")["proxy"] == "abc"
    assert store.find("pool", "crawl-1", "uid", ["u2"], ["value"])["value"].to_pylist() == [2]
    assert store.rows("pool", "crawl-1").take(np.array([2, 0]), ["value"])["value"].to_pylist() == [3, 1]
    assert (store.tables(), store.partitions("pool")) == (["pool.crawl-1"], ["crawl-1"])


def test_writing_again_replaces_the_rows_and_keeps_the_earlier_version(store):
    first = store.write("pool", "crawl-1", rows(1, 2))
    second = store.write("pool", "crawl-1", rows(3))
    assert second.version > first.version
    assert store.read("pool", "crawl-1")["value"].to_pylist() == [3]
    assert store.read("pool", "crawl-1", version=first.version)["value"].to_pylist() == [1, 2]
    with pytest.raises(ValueError, match=r"version 9 of table pool\.crawl-1 is gone"):
        store.read("pool", "crawl-1", version=9)


def test_more_tables_than_a_page_holds_are_listed(store):
    for number in range(12):
        store.write("subset", f"crawl-{number}", rows(number))
    assert store.partitions("subset") == sorted(f"crawl-{number}" for number in range(12))


def test_versions_that_were_replaced_are_forgotten(store, monkeypatch):
    monkeypatch.setattr("resources.lance_store.ONE_MOMENT", timedelta(milliseconds=200))
    for value in range(1, 5):
        time.sleep(0.3)
        store.write("pool", "crawl-1", rows(*range(value * 1000)))
    assert store.forget("pool.crawl-1", timedelta(0), keep=[2], dry_run=True).versions == 1
    forgotten = store.forget("pool.crawl-1", timedelta(0), keep=[2])
    assert (forgotten.versions, versions(store)) == (1, [2, 3, 4])
    assert forgotten.bytes > 0
    assert len(store.read("pool", "crawl-1", version=2)) == 2000


def test_a_missing_table_says_what_to_materialize(store):
    with pytest.raises(KeyError, match="materialize pool for partition crawl-9 first"):
        store.read("pool", "crawl-9")


def test_a_fault_of_the_rows_is_not_taken_for_one_of_the_store(store):
    def broken():
        yield rows(1).to_batches()[0]
        raise ValueError("pair 7 has no image")

    with pytest.raises(Exception, match="pair 7 has no image") as raised:
        store.write("pool", "crawl-1", pa.RecordBatchReader.from_batches(rows(1).schema, broken()))
    assert not isinstance(raised.value, UnreachableStoreError)
    assert not store.exists("pool", "crawl-1")


def test_requests_that_fail_are_sent_again(proxy, store):
    proxy.every = 3
    store.write("pool", "crawl-1", rows(*range(100_000)))
    assert store.read("pool", "crawl-1")["value"].to_pylist() == list(range(100_000))
    assert store.rows("pool", "crawl-1").slice(500, 2, ["value"])["value"].to_pylist() == [500, 501]
    assert store.tables() == ["pool.crawl-1"]
    assert proxy.failed > 5


def refused(store, asked):
    start = time.monotonic()
    with pytest.raises(UnreachableStoreError) as raised:
        ASKED[asked](store)
    assert time.monotonic() - start < 60
    said = str(raised.value)
    assert said.startswith(f"CLIPCOV_LANCE={store.uri} cannot be read or written")
    assert "AWS_ENDPOINT_URL" in said
    assert not any(secret in said for secret in CREDENTIALS.values() if secret != "us-east-1")
    return said


@pytest.mark.parametrize("asked", ASKED)
def test_a_bucket_that_is_not_there_is_not_taken_for_an_empty_one(bucket, asked):
    assert "NoSuchBucket" in refused(LanceStore(uri="s3://nobody-has-this/lance"), asked)


@pytest.mark.parametrize("asked", ["exists", "write"])
def test_missing_credentials_are_told(bucket, store, monkeypatch, asked):
    bucket.use(monkeypatch, AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None)
    assert "the credentials (such as AWS_ACCESS_KEY_ID)" in refused(store, asked)


@pytest.mark.parametrize("asked", ["tables"])
def test_an_endpoint_that_is_not_there_is_given_up(bucket, store, monkeypatch, asked):
    bucket.use(monkeypatch, AWS_ENDPOINT_URL="http://127.0.0.1:1")
    assert "Connection refused" in refused(store, asked)


def test_an_endpoint_that_never_answers_is_given_up(bucket, store, silent, monkeypatch):
    monkeypatch.setattr("resources.lance_store.ANSWER_SECONDS", 3)
    bucket.use(monkeypatch, AWS_ENDPOINT_URL=silent)
    assert "no answer within 3 seconds" in refused(store, "exists")


def test_a_store_that_fails_while_rows_are_read_is_named(proxy, store, monkeypatch):
    monkeypatch.setitem(__import__("resources.lance_store").lance_store.CLIENT, "client_max_retries", "0")
    store.write("pool", "crawl-1", rows(*range(200_000)))
    opened = store.rows("pool", "crawl-1")
    proxy.broken = "/data/"
    for read in (
        lambda: opened.slice(0, 9, ["value"]),
        lambda: opened.take(np.array([7]), ["uid"]),
        lambda: store.stream("pool", "crawl-1", ["value"], batch_size=9).read_all(),
    ):
        with pytest.raises(UnreachableStoreError, match="CLIPCOV_LANCE"):
            read()
    with pytest.raises(UnreachableStoreError, match="CLIPCOV_LANCE"):
        store.write("pool", "crawl-1", rows(1))
    proxy.broken = ""
    assert store.row_count("pool", "crawl-1") == 200_000
