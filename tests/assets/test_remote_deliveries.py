"""A delivery in an object store on its way into the tables, as its user sees it."""

import os
import shutil

import dagster as dg
import pytest

from clipcov_assets import checks
from clipcov_assets.demo import failure_reason
from resources import mirror
from resources.crawl_catalog import CrawlCatalog
from tests import world
from tests.deliveries import deliver


@pytest.fixture
def machine(tmp_path, monkeypatch):
    (tmp_path / "bucket").mkdir()
    local = world.world
    remote = {"catalog": CrawlCatalog(directory=(tmp_path / "bucket").as_uri())}
    monkeypatch.setattr(world, "world", lambda home: local(home) | remote)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("crawl", ["crawl-1", "crawl-2"])
        yield world.Machine(tmp_path, instance)


@pytest.fixture
def delivery(machine):
    return deliver(machine.home / "bucket/crawl-1", range(20), spoiled={3: b"no image"})


def staged(machine):
    return [path for path in (machine.home / "staging").iterdir() if path.suffix != ".lock"]


def test_it_gives_the_tables_of_the_same_delivery_in_a_directory_and_its_copy_goes(machine, delivery):
    machine.materialize("raw_pairs", partition="crawl-1")
    found = machine.metadata("raw_pairs", "crawl-1")
    assert [found[f"pairs_{what}"] for what in ("in", "stored", "quarantined")] == [20, 19, 1]
    assert found["delivery"] == delivery.as_uri()
    assert found["delivered_bytes"] == (delivery / "00000.tar").stat().st_size
    assert staged(machine) == []
    rows = machine.store.read("raw_pairs", "crawl-1")
    version = machine.data_version("raw_pairs", "crawl-1")
    (machine.home / "crawls").mkdir()
    shutil.copytree(delivery, machine.home / "crawls/crawl-1")
    machine.resources["catalog"] = CrawlCatalog(directory=str(machine.home / "crawls"))
    local = dg.Definitions(assets=world.ASSETS, resources=machine.resources).resolve_implicit_global_asset_job_def()
    local.execute_in_process(
        asset_selection=[dg.AssetKey("raw_pairs")], partition_key="crawl-1", instance=machine.instance
    )
    assert machine.store.read("raw_pairs", "crawl-1").equals(rows)
    assert machine.data_version("raw_pairs", "crawl-1") == version


def test_an_incomplete_one_is_not_copied_and_the_message_names_its_address(machine, delivery):
    (delivery / "00000_stats.json").unlink()
    result = machine.materialize("raw_pairs", partition="crawl-1", ok=False)
    assert f"{delivery.as_uri()}/00000.tar is unfinished" in failure_reason(result)
    assert not (machine.home / "staging/delivery.crawl-1").exists()


def test_what_only_its_content_shows_is_found_on_the_copy_and_named_by_its_address(machine):
    folder = machine.home / "bucket/crawl-1"
    folder.mkdir()
    (folder / "list.tsv").write_text("https://e.org/1\tx\n")
    result = machine.materialize("raw_pairs", partition="crawl-1", ok=False)
    assert "img2dataset" in failure_reason(result)
    assert str(machine.home / "staging") not in failure_reason(result)


def test_a_run_goes_on_with_the_files_that_an_earlier_one_had_copied(machine, delivery, monkeypatch):
    listing = machine.resources["catalog"].listing("crawl-1")
    mirror.mirror(listing.only(lambda place: place.suffix == ".tar"), machine.home / "staging/delivery.crawl-1")
    copied, original = [], mirror._copy
    monkeypatch.setattr(
        mirror, "_copy", lambda store, info, target: copied.append(target.name) or original(store, info, target)
    )
    machine.materialize("raw_pairs", partition="crawl-1")
    assert sorted(copied) == ["00000.parquet", "00000_stats.json"]
    assert machine.metadata("raw_pairs", "crawl-1")["pairs_stored"] == 19


def test_a_withdrawn_crawl_is_not_ingested(machine, delivery):
    machine.resources["catalog"].withdraw("crawl-1", "licence revoked")
    result = machine.materialize("raw_pairs", partition="crawl-1", ok=False)
    assert "crawl-1 is withdrawn: licence revoked" in failure_reason(result)


def test_a_touched_delivery_is_a_warning_since_nothing_is_downloaded_to_compare_it(machine, delivery):
    def unchanged(crawl):
        result = machine.materialize("raw_pairs", partition=crawl)
        return machine.check(result, "deliveries_unchanged")

    deliver(machine.home / "bucket/crawl-2", range(30, 50))
    assert unchanged("crawl-1").passed
    os.utime(delivery / "00000.tar")
    evaluation = unchanged("crawl-2")
    assert not evaluation.passed
    assert evaluation.severity == dg.AssetCheckSeverity.WARN
    assert (evaluation.metadata["touched"].value, evaluation.metadata["changed"].value) == ("crawl-1", "none")
    version = machine.data_version("raw_pairs", "crawl-1")
    assert unchanged("crawl-1").passed
    assert machine.data_version("raw_pairs", "crawl-1") == version


def test_only_the_newest_deliveries_are_looked_at_and_it_says_how_many_are_not(machine, delivery, monkeypatch):
    monkeypatch.setattr(checks, "MOST_LOOKED_AT", 1)
    deliver(machine.home / "bucket/crawl-2", range(30, 50))
    machine.materialize("raw_pairs", partition="crawl-1")
    os.utime(delivery / "00000.tar")
    evaluation = machine.check(machine.materialize("raw_pairs", partition="crawl-2"), "deliveries_unchanged")
    assert evaluation.passed
    assert (evaluation.metadata["looked_at"].value, evaluation.metadata["older_and_not_looked_at"].value) == (1, 1)


def test_a_store_that_cannot_be_reached_is_a_warning_of_the_check(machine, delivery):
    machine.materialize("raw_pairs", partition="crawl-1")
    context = dg.build_asset_check_context(instance=machine.instance)
    result = checks.deliveries_unchanged(context, catalog=CrawlCatalog(directory="gopher://crawls"))
    assert not result.passed
    assert "gopher://crawls cannot be read" in result.metadata["not_reached"].value
