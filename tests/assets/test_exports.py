import dagster as dg
import pytest

from clipcov_assets.assets.exports import ExportConfig, export_asset
from clipcov_assets.core import METHODS
from clipcov_assets.provenance import content_version
from resources.export_shelf import ExportShelf
from tests.subsets import ASSET, PARTITION, raw_pair, two_crawls, write_subset


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("crawl", ["crawl-2"])
        yield instance


def materialize(instance, store, directory, **config):
    version = content_version(store.read(ASSET, PARTITION))
    event = dg.AssetMaterialization(ASSET, partition=PARTITION, tags={"dagster/data_version": version})
    instance.report_runless_asset_event(event)
    result = dg.materialize(
        [export_asset("clipcov")],
        partition_key=PARTITION,
        instance=instance,
        resources={"store": store, "exports": ExportShelf(directory=str(directory))},
        run_config=dg.RunConfig({"clipcov_export": ExportConfig(**config)}),
        raise_on_error=False,
    )
    if not result.success:
        (failed,) = [event for event in result.all_events if event.is_step_failure]
        raise dg.Failure(failed.step_failure_data.user_failure_data.description)
    (done,) = result.asset_materializations_for_node("clipcov_export")
    return done


def test_the_button_exports_the_formats_asked_for_and_says_where_they_are(instance, tmp_path):
    done = materialize(instance, two_crawls(tmp_path), tmp_path / "out", formats=["csv", "keys"])
    assert done.metadata["path/csv"].value == str(tmp_path / "out/clipcov_subset/crawl-2/f20/csv")
    assert (tmp_path / "out/clipcov_subset/crawl-2/f20/keys/keys.parquet").exists()
    assert (done.metadata["pairs"].value, done.metadata["files"].value) == (15, 17)
    assert [row.data["name"] for row in done.metadata["first_files"].records] == [
        "images/000000/",
        "pairs.csv",
        "keys.parquet",
    ]
    (came_from,) = done.metadata["provenance"].records
    assert (came_from.data["asset"], came_from.data["partition"]) == (ASSET, PARTITION)


def test_the_default_is_cheap_and_takes_any_subset(instance, tmp_path):
    rows = [raw_pair(seed, uid=f"cat {seed}", image=None) for seed in range(3)]
    store = write_subset(tmp_path, {"crawl-2": rows}, [row["uid"] for row in rows])
    materialize(instance, store, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*.parquet")] == ["pairs.parquet"]


def test_the_button_says_why_a_subset_cannot_leave_in_a_format(instance, tmp_path):
    store = write_subset(tmp_path, {"crawl-2": [raw_pair(0, uid="a cat")]}, ["a cat"])
    with pytest.raises(dg.Failure, match="'a cat': export the subset as parquet"):
        materialize(instance, store, tmp_path / "out", formats=["datacomp"])


def test_equal_exports_have_the_equal_version(instance, tmp_path):
    store = two_crawls(tmp_path)
    versions = {
        materialize(instance, store, tmp_path / directory, formats=["webdataset"]).tags["dagster/data_version"]
        for directory in ("one", "two", "two")
    }
    assert len(versions) == 1


def test_nothing_is_exported_unless_a_person_asks():
    for method in METHODS:
        (spec,) = export_asset(method).specs
        assert spec.automation_condition is None
        assert {dep.asset_key.to_user_string() for dep in spec.deps} == {f"{method}_subset"}
