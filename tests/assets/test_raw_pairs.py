"""A delivery on its way into the store, as its user sees it."""

import os
from pathlib import Path

import dagster as dg
import pytest

from clipcov_assets.demo import failure_reason
from tests.deliveries import deliver
from tests.world import Machine


@pytest.fixture
def machine(tmp_path):
    (tmp_path / "crawls").mkdir()
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("crawl", ["crawl-1", "crawl-2"])
        yield Machine(tmp_path, instance)


@pytest.fixture
def delivery(machine):
    return deliver(machine.home / "crawls/crawl-1", range(20), spoiled={3: b"no image", 4: b""})


def test_every_pair_is_accounted_for_and_every_fault_has_its_place(machine, delivery):
    deliver_again(delivery)
    machine.materialize("raw_pairs", partition="crawl-1")
    found = machine.metadata("raw_pairs", "crawl-1")
    assert [found[f"pairs_{what}"] for what in ("in", "stored", "already_known", "quarantined")] == [40, 18, 18, 4]
    assert (found["quarantined/image_corrupt"], found["quarantined/image_empty"]) == (2, 2)
    faults = machine.store.read("quarantine", "crawl-1").select(["file", "key", "row", "uid", "reason"]).to_pylist()
    assert faults[0] == {
        "file": "00000.tar",
        "key": "00000003",
        "row": None,
        "uid": f"{3:032x}",
        "reason": "image_corrupt",
    }


def deliver_again(delivery: Path) -> None:
    """The same shard once more, under another name."""
    for path in list(delivery.iterdir()):
        (delivery / path.name.replace("00000", "00001")).write_bytes(path.read_bytes())


def test_nothing_of_the_work_in_between_stays_behind(machine, delivery):
    machine.materialize("raw_pairs", partition="crawl-1")
    assert [path.suffix for path in (machine.home / "staging").iterdir()] == [".lock"]


def test_the_same_delivery_again_has_the_same_version_and_another_one_has_not(machine, delivery):
    versions = []
    for seeds in (range(20), range(20), range(21)):
        deliver(delivery, seeds)
        machine.materialize("raw_pairs", partition="crawl-1")
        versions.append(machine.data_version("raw_pairs", "crawl-1"))
    assert versions[0] == versions[1] != versions[2]


def test_a_crawl_with_many_damaged_pairs_stops_there(machine):
    deliver(machine.home / "crawls/crawl-1", range(20), spoiled=dict.fromkeys(range(5), b"no image"))
    result = machine.materialize("raw_pairs", "proxy_checkpoint", partition="crawl-1", ok=False)
    assert not result.success
    assert not machine.check(result, "few_quarantined").passed
    assert machine.store.row_count("raw_pairs", "crawl-1") == 15


def test_a_delivery_that_changed_under_its_name_is_noticed_by_its_content(machine, delivery):
    def unchanged():
        result = machine.materialize("raw_pairs", partition="crawl-2")
        return machine.check(result, "deliveries_unchanged")

    deliver(machine.home / "crawls/crawl-2", range(30, 50))
    machine.materialize("raw_pairs", partition="crawl-1")
    assert unchanged().passed
    os.utime(delivery / "00000.tar")
    assert unchanged().passed
    deliver(delivery, range(1, 21))
    evaluation = unchanged()
    assert not evaluation.passed
    assert evaluation.metadata["changed"].value == "crawl-1"


def test_a_second_run_on_the_same_crawl_is_refused(machine, delivery):
    with machine.resources["staging"].pieces("raw_pairs", "crawl-1"):
        result = machine.materialize("raw_pairs", partition="crawl-1", ok=False)
    assert "another run works on raw_pairs of crawl-1" in failure_reason(result)
    machine.materialize("raw_pairs", partition="crawl-1")
