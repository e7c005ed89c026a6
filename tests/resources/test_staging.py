"""Pieces that several machines make lie at one place; the lock is that of the machine that asked for them."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from resources.mirror import Address, UnreadableAddressError
from resources.pieces import InUseError
from resources.staging import Staging

SCHEMA = pa.schema({"number": pa.int64()})
REPOSITORY = Path(__file__).parents[2]
ADD_FOR_EVER = """
import itertools, pickle, sys
import pyarrow as pa
pieces = pickle.loads(bytes.fromhex(sys.argv[1]))
for number in itertools.count():
    batch = pa.RecordBatch.from_pydict({"number": list(range(number, number + 200_000))})
    reader = pa.RecordBatchReader.from_batches(batch.schema, [batch])
    pieces.add(f"piece-{number}", {"rows": reader, "faults": pa.RecordBatchReader.from_batches(batch.schema, [batch])})
    print(number, flush=True)
"""


def reader(*batches):
    return pa.RecordBatchReader.from_batches(
        SCHEMA, (pa.RecordBatch.from_pydict({"number": batch}, schema=SCHEMA) for batch in batches)
    )


def numbers(pieces, key, table="rows"):
    return [batch["number"].to_pylist() for batch in pieces.batches(key, table)]


@pytest.fixture(params=["here", "directory", "file address", "bucket"])
def staging(request, tmp_path):
    shared = tmp_path / "shared/pieces"
    places = {"here": lambda: "", "directory": lambda: str(shared), "file address": shared.as_uri}
    at = places[request.param]() if request.param in places else request.getfixturevalue("bucket").at("pieces")
    return Staging(directory=str(tmp_path / "staging"), pieces_at=at)


@pytest.fixture
def in_bucket(bucket, tmp_path):
    return Staging(directory=str(tmp_path / "staging"), pieces_at=bucket.at("pieces"))


def test_a_piece_is_read_as_it_was_added_wherever_it_lies(staging):
    with staging.pieces("embeddings", "crawl-1", shared=True) as pieces:
        pieces.add("a", {"rows": reader([1, 2], [3]), "faults": reader()})
        assert "a" in pieces
        assert "b" not in pieces
        assert numbers(pieces, "a") == [[1, 2], [3]]
        assert numbers(pieces, "a", "faults") == []


def test_pieces_stay_after_an_error_and_go_after_success(staging):
    with pytest.raises(KeyError), staging.pieces("embeddings", "crawl-1", shared=True) as pieces:
        pieces.add("a", {"rows": reader([1])})
        raise KeyError
    assert staging.names() == ["embeddings.crawl-1"]
    with staging.pieces("embeddings", "crawl-1", shared=True) as pieces:
        assert "a" in pieces
    assert staging.names() == []
    with staging.pieces("embeddings", "crawl-1", shared=True) as pieces:
        assert "a" not in pieces


def test_a_piece_whose_making_fails_is_not_there_and_can_be_made_again(staging):
    def broken():
        yield pa.RecordBatch.from_pydict({"number": [1]}, schema=SCHEMA)
        raise ValueError("no more")

    with staging.pieces("embeddings", "crawl-1", shared=True) as pieces:
        tables = {"faults": reader([7]), "rows": pa.RecordBatchReader.from_batches(SCHEMA, broken())}
        with pytest.raises(ValueError, match="no more"):
            pieces.add("a", tables)
        assert "a" not in pieces
        pieces.add("a", {"rows": reader([2])})
        assert numbers(pieces, "a") == [[2]]


def test_what_is_not_kept_goes_also_if_it_is_half_done(staging):
    with staging.pieces("embeddings", "crawl-1", shared=True) as pieces:
        for key in "abc":
            pieces.add(key, {"rows": reader([1])})
        Address.at(pieces.place).write("d.unfinished/rows.arrow", b"half")
        assert pieces.finished("abd") == {"a", "b"}
        pieces.keep({"b", "nobody"})
        assert [key for key in "abcd" if key in pieces] == ["b"]
        assert pieces.finished("abcd") == {"b"}
        assert {place.parts[0] for place in Address.at(pieces.place).files()} == {"b"}


def test_several_processes_add_and_read_the_pieces_of_one_partition(in_bucket):
    with in_bucket.pieces("embeddings", "crawl-1", shared=True) as pieces:
        copies = [pickle.loads(pickle.dumps(pieces)) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda one: copies[one].add(f"{one}", {"rows": reader([one])}), range(4)))
        assert [numbers(pieces, f"{one}") for one in range(4)] == [[[one]] for one in range(4)]


def test_what_a_killed_process_was_adding_is_not_there(in_bucket):
    with in_bucket.pieces("embeddings", "crawl-1", shared=True) as pieces:
        command = [sys.executable, "-c", ADD_FOR_EVER, pickle.dumps(pieces).hex()]
        with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(5):
                last = int(process.stdout.readline())
            process.kill()
        there = [number for number in range(last + 20) if f"piece-{number}" in pieces]
        assert there[: last + 1] == list(range(last + 1))
        for number in there:
            for table in ("rows", "faults"):
                assert sum(map(len, numbers(pieces, f"piece-{number}", table))) == 200_000


def test_pieces_that_are_not_shared_stay_on_this_machine(in_bucket, tmp_path):
    with in_bucket.pieces("raw_pairs", "crawl-1") as pieces:
        pieces.add("a", {"rows": reader([1])})
        assert pieces.place == str(tmp_path / "staging/raw_pairs.crawl-1")
        assert Address.at(in_bucket.pieces_at).names() == []


def test_a_second_run_of_this_machine_is_refused(staging):
    with (
        staging.pieces("embeddings", "crawl-1", shared=True),
        pytest.raises(InUseError),
        staging.pieces("embeddings", "crawl-1", shared=True),
    ):
        pass


def test_work_that_nobody_goes_on_with_is_weighed_and_removed(staging):
    with pytest.raises(KeyError), staging.pieces("embeddings", "crawl-9", shared=True) as pieces:
        pieces.add("a", {"rows": reader(list(range(1000)))})
        raise KeyError
    assert staging.remove("embeddings.crawl-9", dry_run=True) > 8000
    assert staging.names() == ["embeddings.crawl-9"]
    assert staging.remove("embeddings.crawl-9") > 8000
    assert staging.names() == []


def test_requests_that_fail_lose_no_piece(proxy, in_bucket):
    proxy.every = 3
    with in_bucket.pieces("embeddings", "crawl-1", shared=True) as pieces:
        for key in "abc":
            pieces.add(key, {"rows": reader([1, 2])})
        assert [numbers(pieces, key) for key in "abc"] == [[[1, 2]]] * 3
    assert proxy.failed > 3


def test_a_bucket_that_is_not_there_is_named(bucket, tmp_path):
    staging = Staging(directory=str(tmp_path), pieces_at="s3://nobody-has-this/pieces")
    with (
        pytest.raises(UnreadableAddressError, match="CLIPCOV_PIECES=s3://nobody-has-this/pieces"),
        staging.pieces("embeddings", "crawl-1", shared=True) as pieces,
    ):
        "a" in pieces  # noqa: B015
