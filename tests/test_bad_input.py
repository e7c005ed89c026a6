"""What a user gets wrong: each time the message names the thing and the remedy."""

import dagster as dg
import pytest

from clipcov_assets import scales
from clipcov_assets.core import METHODS
from clipcov_assets.core.clip_model import create_clip
from clipcov_assets.demo import failure_reason
from resources.compute import Compute
from tests.deliveries import deliver
from tests.world import Machine


@pytest.fixture
def machine(tmp_path):
    (tmp_path / "crawls").mkdir()
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("crawl", ["crawl-1", "crawl-2", "..secret"])
        yield Machine(tmp_path, instance)


def reason(machine, *assets, partition=None):
    """What a person reads when these assets fail."""
    result = machine.materialize(*assets, partition=partition, ok=False)
    assert not result.success
    return failure_reason(result)


def test_a_crawl_that_was_not_delivered(machine):
    deliver(machine.home / "crawls/crawl-2", range(4))
    assert "no folder named 'crawl-1'" in reason(machine, "raw_pairs", partition="crawl-1")


def test_a_crawl_name_that_could_leave_the_directory(machine):
    assert "crawl name '..secret' is not allowed" in reason(machine, "raw_pairs", partition="..secret")


def test_a_delivery_that_has_not_finished(machine):
    folder = deliver(machine.home / "crawls/crawl-1", range(4))
    (folder / "00000_stats.json").unlink()
    assert "00000_stats.json" in reason(machine, "raw_pairs", partition="crawl-1")


def test_a_delivery_in_which_no_pair_is_sound(machine):
    spoiled = dict.fromkeys(range(4), b"no image")
    deliver(machine.home / "crawls/crawl-1", range(4), spoiled=spoiled)
    assert "every one of its 4 pairs was quarantined" in reason(machine, "raw_pairs", partition="crawl-1")


def test_a_truncated_tar_keeps_its_head_and_counts_the_rest(machine):
    folder = deliver(machine.home / "crawls/crawl-1", range(20))
    tar = folder / "00000.tar"
    tar.write_bytes(tar.read_bytes()[: int(0.85 * tar.stat().st_size)])
    machine.materialize("raw_pairs", partition="crawl-1")
    stored, lost = (
        machine.store.row_count("raw_pairs", "crawl-1"),
        machine.store.row_count("quarantine", "crawl-1"),
    )
    assert 0 < stored < 20
    assert stored + lost == 20


def test_an_embedding_before_there_are_pairs(machine):
    deliver(machine.home / "crawls/crawl-1", range(20))
    assert "materialize raw_pairs first" in reason(machine, "proxy_checkpoint")


def test_a_pool_of_two_proxies(machine):
    deliver(machine.home / "crawls/crawl-1", range(20))
    deliver(machine.home / "crawls/crawl-2", range(20, 40))
    for crawl in ("crawl-1", "crawl-2"):
        machine.materialize("raw_pairs", partition=crawl)
    machine.materialize("proxy_checkpoint")
    for crawl in ("crawl-1", "crawl-2"):
        machine.materialize("embeddings", "latent_classes", partition=crawl)
    rows = machine.store.read("latent_classes", "crawl-1")
    machine.store.write("latent_classes", "crawl-1", rows, metadata={"proxy_sha256": "another"})
    said = reason(machine, "pool", partition="crawl-2")
    assert "a pool cannot mix embeddings of two proxies: crawl-1 by another, crawl-2 by" in said


def test_embeddings_of_a_proxy_that_was_replaced(machine):
    deliver(machine.home / "crawls/crawl-1", range(20))
    machine.materialize("raw_pairs", partition="crawl-1")
    machine.materialize("proxy_checkpoint")
    machine.materialize("embeddings", partition="crawl-1")
    encoder = machine.resources["encoder"]
    encoder.save(create_clip("demo", seed=9), "proxy_checkpoint")
    said = reason(machine, "latent_classes", partition="crawl-1")
    assert "crawl-1 was embedded by proxy" in said
    assert "materialize embeddings of crawl-1 first" in said


def test_a_proxy_of_another_architecture(machine):
    deliver(machine.home / "crawls/crawl-1", range(20))
    machine.materialize("raw_pairs", partition="crawl-1")
    machine.materialize("proxy_checkpoint")
    path = machine.resources["encoder"].path("proxy_checkpoint")
    with pytest.raises(ValueError, match="cannot build 'ViT-S-32-alt'"):
        machine.resources["encoder"].load("ViT-S-32-alt", path)


def test_a_checkpoint_that_is_not_there(machine):
    with pytest.raises(FileNotFoundError, match="no checkpoint at /nowhere/weights.pt"):
        machine.resources["encoder"].load("demo", "/nowhere/weights.pt")


def test_no_evaluation_set(machine):
    from clipcov_assets.ingest.evaluation_set import find_evaluation_sets

    (machine.home / "eval").mkdir()
    with pytest.raises(ValueError, match="no evaluation set in .*CLIP_benchmark"):
        find_evaluation_sets(machine.home / "eval")


def test_an_unknown_method():
    with pytest.raises(ValueError, match="unknown selection method 'clipcof': choose one of clipcov"):
        METHODS["clipcof"]


def test_an_unknown_scale():
    with pytest.raises(ValueError, match="unknown scale 'huge': set CLIPCOV_SCALE to one of tiny, demo"):
        scales.scale("huge")


def test_an_unknown_fraction_or_crawl(machine):
    for partition in ("crawl-1|f99", "crawl-9|f50"):
        with pytest.raises(dg.DagsterError, match=partition.split("|")["f99" in partition]):
            machine.materialize("random_subset", partition=partition)


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="compute.device is 'cuda' but torch sees no CUDA device"):
        Compute(device="cuda").settled()
