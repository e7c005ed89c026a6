"""What Dagster keeps of a pool: what people read, and no more for the hundredth crawl than for the twentieth."""

import dagster as dg
import pytest

from clipcov_assets.assets.pool import CRAWL_ASSETS, SHOWN_CRAWLS, pool
from clipcov_assets.pool_tables import pooled_crawls
from clipcov_assets.tables import PROXY_SHA256
from resources.lance_store import LanceStore
from tests.ranked_pool import write_crawl

CRAWLS = [f"crawl-{number}" for number in range(1, SHOWN_CRAWLS + 6)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = LanceStore(uri=str(tmp_path_factory.mktemp("lance")))
    for number, crawl in enumerate(CRAWLS):
        write_crawl(store, crawl, range(number, number + 3))
        store.write("latent_classes", crawl, store.read("latent_classes", crawl), {PROXY_SHA256: "one proxy"})
    return store


@pytest.fixture
def materialize(store):
    """A function that makes the pool of a crawl and returns its materialization's metadata."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("crawl", CRAWLS)
        for crawl in CRAWLS:
            for asset in CRAWL_ASSETS:
                version = {"dagster/data_version": f"{asset} of {crawl}"}
                instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=crawl, tags=version))

        def run(crawl, ok=True):
            return dg.materialize(
                [pool], partition_key=crawl, instance=instance, resources={"store": store}, raise_on_error=ok
            )

        yield run


def metadata(result):
    (found,) = result.asset_materializations_for_node("pool")
    return found.metadata


def test_dagster_keeps_the_newest_crawls_and_the_table_all_of_them(materialize, store):
    found = metadata(materialize(CRAWLS[-1]))
    assert found["crawls"].value == len(CRAWLS)
    assert [row.data["crawl"] for row in found["composition"].records] == CRAWLS[: -SHOWN_CRAWLS - 1 : -1]
    assert [(row.data["asset"], row.data["partition"]) for row in found["provenance"].records] == [
        (asset, CRAWLS[-1]) for asset in CRAWL_ASSETS
    ]
    recorded = pooled_crawls(store, CRAWLS[-1], version=found["lance_version"].value)
    assert [one.crawl for one in recorded] == CRAWLS
    assert recorded[0].data_versions == {asset: f"{asset} of crawl-1" for asset in CRAWL_ASSETS}


def test_crawls_that_are_not_ready_are_named_the_newest_first(materialize, store, monkeypatch):
    ready, opened = {CRAWLS[0], CRAWLS[-1]}, LanceStore.rows

    def rows(self, asset, partition, **version):
        if partition not in ready:
            raise KeyError(partition)
        return opened(self, asset, partition, **version)

    monkeypatch.setattr(LanceStore, "rows", rows)
    named = metadata(materialize(CRAWLS[-1]))["left_out"].value
    assert named.startswith(f"{CRAWLS[-2]}, {CRAWLS[-3]}, ")
    assert named.endswith(f"and {len(CRAWLS) - 2 - SHOWN_CRAWLS} more")


def test_embeddings_of_two_proxies_are_not_mixed(materialize, store):
    rows = store.read("latent_classes", "crawl-2")
    store.write("latent_classes", "crawl-2", rows, {PROXY_SHA256: "another proxy"})
    result = materialize("crawl-3", ok=False)
    store.write("latent_classes", "crawl-2", rows, {PROXY_SHA256: "one proxy"})
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "crawl-1 by one proxy, crawl-2 by another prox" in failure.step_failure_data.user_failure_data.description


@pytest.mark.parametrize(("passed", "held", "left_out"), [(False, 2, "crawl-2"), (True, 3, "none")])
def test_a_crawl_of_which_a_check_failed_is_left_out(store, passed, held, left_out):
    crawls = CRAWLS[:3]
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("crawl", crawls)
        for crawl in crawls:
            for asset in CRAWL_ASSETS:
                instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=crawl))
        found = dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("raw_pairs"),
            check_name="few_quarantined",
            passed=passed,
            metadata={},
            partition="crawl-2",
        )
        instance.report_runless_asset_event(found)
        made = metadata(dg.materialize([pool], partition_key="crawl-3", instance=instance, resources={"store": store}))
    assert (made["crawls"].value, made["left_out"].value) == (held, left_out)
