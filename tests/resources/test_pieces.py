import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from resources.pieces import FullDiskError, InUseError, Pieces, disk_of, only_one
from resources.staging import Staging

SCHEMA = pa.schema({"number": pa.int64()})
WAITS_WITH_THE_LOCK = """
import sys, time
from pathlib import Path
from resources.pieces import only_one
with only_one(Path(sys.argv[1]), "raw_pairs of crawl-1"):
    print("held", flush=True)
    time.sleep(60)
"""


def reader(*batches):
    return pa.RecordBatchReader.from_batches(
        SCHEMA, (pa.RecordBatch.from_pydict({"number": batch}, schema=SCHEMA) for batch in batches)
    )


def numbers(pieces, key, table="rows"):
    return [batch["number"].to_pylist() for batch in pieces.batches(key, table)]


def test_a_piece_is_read_as_it_was_added(tmp_path):
    pieces = Pieces(tmp_path)
    pieces.add("a", {"rows": reader([1, 2], [3]), "faults": reader()})
    assert "a" in pieces
    assert numbers(pieces, "a") == [[1, 2], [3]]
    assert numbers(pieces, "a", "faults") == []


def test_a_piece_whose_making_fails_is_not_there_and_can_be_made_again(tmp_path):
    pieces = Pieces(tmp_path)

    def broken():
        yield pa.RecordBatch.from_pydict({"number": [1]}, schema=SCHEMA)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        pieces.add("a", {"rows": pa.RecordBatchReader.from_batches(SCHEMA, broken())})
    assert "a" not in pieces
    pieces.add("a", {"rows": reader([2])})
    assert numbers(pieces, "a") == [[2]]


def test_what_is_not_kept_goes_also_if_it_is_half_done(tmp_path):
    pieces = Pieces(tmp_path)
    for key in ("a", "b"):
        pieces.add(key, {"rows": reader([1])})
    (tmp_path / "c.unfinished").mkdir()
    pieces.keep({"b"})
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_staged_pieces_stay_after_an_error_and_go_after_success(tmp_path):
    staging = Staging(directory=str(tmp_path))
    with pytest.raises(KeyError), staging.pieces("raw_pairs", "crawl-1|f20") as pieces:
        pieces.add("a", {"rows": reader([1])})
        raise KeyError
    with staging.pieces("raw_pairs", "crawl-1|f20") as pieces:
        assert "a" in pieces
    with staging.pieces("raw_pairs", "crawl-1|f20") as pieces:
        assert "a" not in pieces


def test_a_second_run_is_refused_until_the_first_one_ends_even_by_kill(tmp_path):
    lock = tmp_path / "deep" / "raw_pairs.lock"
    with subprocess.Popen(
        [sys.executable, "-c", WAITS_WITH_THE_LOCK, lock], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        refused = pytest.raises(InUseError, match=rf"raw_pairs of crawl-1 \(process {holder.pid}, since 20")
        with refused, only_one(lock, "raw_pairs of crawl-1"):
            pass
        os.kill(holder.pid, signal.SIGKILL)
    with only_one(lock, "raw_pairs of crawl-1"):
        pass


def test_a_full_disk_is_said_once_and_clearly(tmp_path):
    with pytest.raises(FullDiskError, match="is full: free some room and run again"), disk_of(tmp_path):
        Path("/dev/full").write_bytes(b"x")
    with pytest.raises(FullDiskError), disk_of(tmp_path):
        raise RuntimeError("lance error: LanceError(IO): No space left on device (os error 28)")
    with pytest.raises(PermissionError), disk_of(tmp_path):
        raise PermissionError("not yours")
