import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipcov_assets.ingest.delivery import Delivery, Fault, Pair, Place, Reason, ShardContents
from clipcov_assets.jobs.ingest import Census, first_places, stage_delivery
from clipcov_assets.jobs.workers import in_workers
from resources.pieces import Pieces


@dataclass(frozen=True)
class Told:
    """A shard whose outcomes are told: (uid, caption, width of its embeddings) is a pair, a reason is a fault."""

    name: str
    told: tuple
    log: Path | None = None
    edition: str = ""

    @property
    def size(self):
        return len(self.told)

    def fingerprint(self):
        return repr((self.told, self.edition))

    def read(self):
        if self.log is not None:
            self.log.open("a").write(f"{self.name}\n")
        return ShardContents(len(self.told), self._outcomes(), ["nothing to remark"])

    def _outcomes(self):
        for row, one in enumerate(self.told):
            place = Place(f"{self.name}.csv", None, row)
            if isinstance(one, Reason):
                yield Fault(place, None, one, "as told")
            elif isinstance(one, BaseException):
                raise one
            else:
                uid, caption, width = one
                embeddings = (np.eye(1, width, dtype=np.float16)[0],) * 2 if width else None
                yield Pair(place, uid, caption, None if width else b"image", embeddings)


def pairs(*uids, width=0):
    return tuple((uid, f"caption of {uid}", width) for uid in uids)


def staged(folder, *shards, workers=1, seen=lambda shard, one: None):
    pieces = Pieces(folder)
    delivery = Delivery(Path("nowhere"), "told", shards)
    return pieces, stage_delivery(delivery, pieces, workers=workers, on_shard=seen)


def stored(census):
    return [uid for batch in census.pairs(["uid"]) for uid in batch["uid"].to_pylist()]


OUTCOMES = st.one_of(
    st.tuples(st.sampled_from("abcde"), st.sampled_from(["cat", "dog"]), st.just(0)), st.sampled_from(list(Reason))
)


@settings(deadline=None)
@given(st.lists(st.lists(OUTCOMES, max_size=6), max_size=5))
def test_every_pair_is_stored_or_known_or_quarantined(shards):
    with tempfile.TemporaryDirectory() as folder:
        told = [Told(f"{number}", tuple(outcomes)) for number, outcomes in enumerate(shards)]
        census = Census(*staged(Path(folder), *told))
        faults = [fault for batch in census.faults() for fault in batch.to_pylist()]
        uids = stored(census)

        all_outcomes = [outcome for outcomes in shards for outcome in outcomes]
        delivered = [outcome[:2] for outcome in all_outcomes if isinstance(outcome, tuple)]
        assert census.promised == len(all_outcomes) == census.stored + census.known + sum(census.reasons.values())
        assert uids == list(dict.fromkeys(uid for uid, _ in delivered))
        first = {}
        conflicts = [one for one in delivered if first.setdefault(one[0], one) != one]
        assert census.known == len(delivered) - len(uids) - len(conflicts)
        told_faults = Counter(outcome.value for outcome in all_outcomes if isinstance(outcome, Reason))
        assert Counter(fault["reason"] for fault in faults) == census.reasons
        assert census.reasons == told_faults + Counter({"uid_conflict": len(conflicts)})


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcdefgh")))
def test_the_first_place_of_a_value_is_where_it_comes_first(values):
    found = first_places(pa.array(values, pa.large_string()))
    assert found.tolist() == [values.index(value) for value in values]


def test_a_shard_that_was_read_is_not_read_again(tmp_path):
    log, folder = tmp_path / "log", tmp_path / "pieces"
    folder.mkdir()
    first, second = Told("0", pairs("a"), log), Told("1", pairs("b"), log)
    staged(folder, first)
    _, again = staged(folder, first, second)
    assert [one.found for one in again] == [True, False]
    assert log.read_text().split() == ["0", "1"]


def test_a_shard_whose_content_changed_is_read_again_and_its_old_piece_goes(tmp_path):
    staged(tmp_path, Told("0", pairs("a")), Told("1", pairs("b")))
    pieces, again = staged(tmp_path, Told("0", pairs("a")), Told("1", pairs("c")))
    assert [one.found for one in again] == [True, False]
    assert stored(Census(pieces, again)) == ["a", "c"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_shard_delivered_twice_is_known_and_not_stored_twice(tmp_path):
    census = Census(*staged(tmp_path, Told("0", pairs("a", "b")), Told("copy of 0", pairs("a", "b"))))
    assert (census.promised, census.stored, census.known, sum(census.reasons.values())) == (4, 2, 2, 0)


def test_the_order_and_the_version_do_not_depend_on_the_workers(tmp_path):
    shards = [Told(str(number), pairs(f"{number}a", f"{number}b", "x")) for number in range(6)]
    versions = []
    for workers in (1, 2, 3):
        folder = tmp_path / str(workers)
        folder.mkdir()
        census = Census(*staged(folder, *shards, workers=workers))
        assert stored(census)[:5] == ["0a", "0b", "x", "1a", "1b"]
        versions.append(census.version())
    assert len(set(versions)) == 1


@pytest.mark.parametrize(
    "other", [pairs("b", "a"), pairs("a", "c"), (("a", "another caption", 0), *pairs("b")), pairs("a", "b", width=4)]
)
def test_the_version_tells_other_pairs_apart(tmp_path, other):
    versions = set()
    for number, told in enumerate([pairs("a", "b"), other]):
        folder = tmp_path / str(number)
        folder.mkdir()
        versions.add(Census(*staged(folder, Told("0", told))).version())
    assert len(versions) == 2


def test_embeddings_that_came_with_the_pairs_are_kept_beside_them(tmp_path):
    census = Census(*staged(tmp_path, Told("0", pairs("a", "b", width=4)), Told("1", pairs("a", "c", width=4))))
    assert census.width == 4
    (first, second) = census.pairs(["uid", "image_embedding"])
    assert first["image_embedding"].to_pylist() == [[1, 0, 0, 0]] * 2
    assert second.to_pylist() == [{"uid": "c", "image_embedding": [1, 0, 0, 0]}]


def test_a_shard_without_a_sound_pair_does_not_spoil_the_embeddings_of_the_others(tmp_path):
    spoiled = Told("1", (Reason.EMBEDDING_MISSING,) * 2)
    census = Census(*staged(tmp_path, Told("0", pairs("a", width=4)), spoiled))
    assert (census.width, census.stored, census.reasons.total()) == (4, 1, 2)
    assert [len(batch) for batch in census.pairs(["image_embedding"])] == [1]


def test_embeddings_of_several_models_in_one_delivery_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"widths \[4, 8\].*delivery.toml"):
        Census(*staged(tmp_path, Told("0", pairs("a", width=4)), Told("1", pairs("b", width=8))))


def test_an_error_of_a_worker_is_the_error_of_the_run_and_finished_shards_stay(tmp_path):
    shards = [Told("0", pairs("a")), Told("1", (ValueError("shard 1 cannot be read"),)), Told("2", pairs("c"))]
    with pytest.raises(ValueError, match="shard 1 cannot be read"):
        staged(tmp_path, *shards, workers=2)
    _, again = staged(tmp_path, shards[0], shards[2])
    assert again[0].found


def die(number):
    os.kill(os.getpid(), signal.SIGKILL if number == 3 else 0)


def test_a_worker_that_dies_is_an_error_that_says_what_to_do():
    with pytest.raises(RuntimeError, match=r"a worker process died.*fewer workers"):
        list(in_workers(die, range(4), workers=2))


PARENT = """
import sys, time
from clipcov_assets.jobs.workers import in_workers
if __name__ == "__main__":
    for _ in in_workers(time.sleep, [0.01] * 2 + [3600] * 2, workers=2):
        print("working", flush=True)
"""


def test_workers_die_with_their_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "MARK": str(tmp_path)}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        assert len(marked(tmp_path)) >= 3
        parent.kill()
    deadline = time.monotonic() + 20
    while marked(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not marked(tmp_path)


def marked(mark):
    """Processes that were started with the mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"MARK={mark}".encode() in path.read_bytes():
                found.append(path)
        except OSError:
            continue
    return found
