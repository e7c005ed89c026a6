"""The road with everything at addresses, in a store that fails now and then: results are those of directories."""

import json
from pathlib import Path

import dagster as dg
import pytest
from mlflow.tracking import MlflowClient
from pyarrow import fs

from clipcov_assets.demo import road
from resources.clip_encoder import ClipEncoder
from resources.compute import Compute
from resources.crawl_catalog import CrawlCatalog
from resources.evaluation_suite import EvaluationSuite
from resources.export_shelf import ExportShelf
from resources.lance_store import LanceStore
from resources.mirror import Address
from resources.staging import Staging
from tests.deliveries import deliver, evaluation_set, image
from tests.object_store import BUCKET, ObjectStore, Proxy, object_store
from tests.world import Machine

CRAWL, PARTITION = "crawl-1", "crawl-1|f50"
EVERY = 7  # requests, one of which fails
RANKED = ("clipcov", "random")
# Savepoints come often, so that they are really kept.
COMPUTE = Compute(device="cpu", batch_size=16, savepoint_samples=32)
STEPS = [
    *[(step.assets, step.partition) for step in road(CRAWL)][:3],
    *[(step.assets, step.partition) for step in road(CRAWL) if step.assets == ("clipcov_class_ranking",)],
    (tuple(f"{method}_ranking" for method in RANKED), CRAWL),
    (("clipcov_subset", "clipcov_checkpoint", "clipcov_scorecard"), PARTITION),
    (("clipcov_export",), PARTITION),
]


def make_inputs(home: Path) -> None:
    deliver(home / "crawls" / CRAWL, range(60), spoiled={7: image(7)[:50]})
    evaluation_set(home / "eval/colours", range(200, 216))


def carry(home: Path, **changed: dg.ConfigurableResource) -> Machine:
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions("crawl", [CRAWL])
    machine = Machine(home, instance, compute=COMPUTE, **changed)
    config = {"clipcov_export": {"formats": ["parquet", "webdataset"]}}
    for assets, partition in STEPS:
        wanted = {name: values for name, values in config.items() if name in assets}
        machine.materialize(*assets, partition=partition, config=wanted)
    return machine


def at_addresses(store: ObjectStore, home: Path) -> dict[str, dg.ConfigurableResource]:
    return {
        "catalog": CrawlCatalog(directory=store.at("crawls")),
        "suite": EvaluationSuite(directory=store.at("eval"), cache=str(home / "evaluation")),
        "store": LanceStore(uri=store.at("lance")),
        "staging": Staging(directory=str(home / "staging"), pieces_at=store.at("pieces")),
        "encoder": ClipEncoder(directory=store.at("checkpoints"), cache=str(home / "cached")),
        "exports": ExportShelf(directory=store.at("exports"), staging=str(home / "exporting")),
    }


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    home = tmp_path_factory.mktemp("here")
    make_inputs(home)
    return carry(home)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    home = tmp_path_factory.mktemp("store")
    with (
        object_store(home / "log") as store,
        Proxy(store.endpoint) as proxy,
        pytest.MonkeyPatch.context() as environment,
    ):
        store.use(environment, AWS_ENDPOINT_URL=proxy.endpoint)
        make_inputs(home)
        for folder in ("crawls", "eval"):
            target, _ = fs.FileSystem.from_uri(store.at(folder))
            source = fs.LocalFileSystem()
            fs.copy_files(str(home / folder), f"{BUCKET}/{folder}", source, target)
        proxy.every, proxy.store = EVERY, store
        yield proxy


@pytest.fixture(scope="module")
def there(proxy, tmp_path_factory):
    home = tmp_path_factory.mktemp("there")
    return carry(home, **at_addresses(proxy.store, home))


def test_results_are_those_of_a_directory_though_requests_fail(here, there, proxy):
    for assets, partition in STEPS:
        for asset in assets:
            assert there.data_version(asset, partition) == here.data_version(asset, partition), asset
    assert proxy.failed > 50


def test_tables_are_those_of_a_directory(here, there):
    assert there.store.tables() == here.store.tables()
    for asset, partition in (("raw_pairs", CRAWL), ("clipcov_ranking", CRAWL), ("clipcov_scores", PARTITION)):
        assert there.store.read(asset, partition).equals(here.store.read(asset, partition)), asset


def test_all_that_is_kept_lies_in_the_bucket(there, proxy):
    for folder in ("checkpoints", "pieces", "exports", "lance", "evaluation", "crawls", "eval"):
        kept = [path for path in (there.home / folder).rglob("*") if path.is_file()]
        assert bool(kept) == (folder == "evaluation"), folder  # copies of sets, to read them
    put = {one.split("/")[2] for one in proxy.passed if one.startswith("PUT")}
    assert {"checkpoints", "pieces", "exports", "lance"} <= put


def test_states_of_trainings_lie_in_the_bucket_until_the_training_ends(there, proxy):
    assert any(one.startswith("PUT /pool/pieces/clipcov_checkpoint.crawl-1.f50/") for one in proxy.passed)
    assert any(".state" in one for one in proxy.passed)
    assert there.resources["staging"].names() == []


def test_weights_are_recorded_by_their_address_and_not_uploaded_to_mlflow_once_more(there):
    (training,) = there.store.read("clipcov_trainings", PARTITION).to_pylist()
    assert training["weights"] == "s3://pool/checkpoints/clipcov_checkpoint/crawl-1/f50/seed-0/weights.pt"
    assert there.metadata("clipcov_checkpoint", PARTITION)["weights"] == training["weights"].rsplit("/", 2)[0]
    client = MlflowClient(there.resources["tracker"].tracking_uri)
    assert client.get_run(training["mlflow_run_id"]).data.params["weights"] == training["weights"]
    assert [one.path for one in client.list_artifacts(training["mlflow_run_id"])] == ["scorecard"]


def test_an_export_is_shown_by_its_address(here, there, proxy):
    assert there.metadata("clipcov_export", PARTITION)["path/parquet"] == (
        "s3://pool/exports/clipcov_subset/crawl-1/f50/parquet"
    )
    place = Address.at("s3://pool/exports/clipcov_subset/crawl-1/f50/webdataset")
    local = here.home / "exports/clipcov_subset/crawl-1/f50/webdataset"
    assert {str(name) for name in place.files()} == {path.name for path in local.iterdir()}
    manifests = [json.loads(text) for text in (place.read("manifest.json"), (local / "manifest.json").read_text())]
    assert manifests[0] == manifests[1]


def test_materializing_again_gives_the_same_bytes(there):
    for asset, partition in (("clipcov_subset", PARTITION), ("clipcov_export", PARTITION)):
        before = there.data_version(asset, partition)
        config = {"clipcov_export": {"formats": ["parquet", "webdataset"]}} if asset == "clipcov_export" else None
        there.materialize(asset, partition=partition, config=config)
        assert there.data_version(asset, partition) == before
