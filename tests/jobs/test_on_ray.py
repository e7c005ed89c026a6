"""Jobs on a real Ray cluster of two nodes: the same results, whatever is lost on the way."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from clipcov_assets.core.clip_model import create_clip
from clipcov_assets.demo import road
from clipcov_assets.jobs import embed, embed_crawl, rank, submit
from clipcov_assets.jobs.embed_crawl import EmbedCrawl
from clipcov_assets.jobs.job import Local, Voice, packed, unpacked
from clipcov_assets.jobs.on_ray import OnRay, check_answer
from clipcov_assets.jobs.rank import RankPool
from resources.clip_encoder import ClipEncoder
from resources.compute import Compute
from resources.lance_store import LanceStore
from resources.staging import Staging
from tests.deliveries import deliver, evaluation_set
from tests.jobs.test_embed import content, picture
from tests.ranked_pool import ranked_pool
from tests.ray_cluster import Marks, StreamedMarks, ray_cluster, wait_until, workers
from tests.world import Machine

pytestmark = pytest.mark.ray
SQUARES = {"squares": {number: number * number for number in range(8)}}
PAIRS = 320


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster() as cluster:
        yield cluster


def on_ray(cluster, said=None, **settings):
    say = [].append if said is None else said.append
    compute = Compute(device="cpu", batch_size=16, backend="ray", ray_address=cluster.address, **settings)
    return compute, OnRay(compute, Voice(say, say), address=cluster.address)


@pytest.mark.parametrize("kind", [Marks, StreamedMarks])
def test_all_parts_are_done_and_told(cluster, tmp_path, kind):
    said = []
    compute, ray = on_ray(cluster, said)
    assert kind(compute=compute, directory=str(tmp_path)).run(ray) == SQUARES
    assert said == [f"{done} of 8 parts are done" for done in range(1, 9)]


@pytest.mark.parametrize("kind", [Marks, StreamedMarks])
def test_what_a_part_raises_is_raised_here_in_its_own_words(cluster, tmp_path, kind):
    compute, ray = on_ray(cluster)
    with pytest.raises(ValueError, match=r"^row 5 is damaged: deliver it again$"):
        kind(compute=compute, directory=str(tmp_path), fails_at=5).run(ray)


@pytest.mark.parametrize(("kind", "name"), [(Marks, "ray::_part"), (StreamedMarks, "ray::MapWorker")])
def test_a_worker_that_is_killed_costs_the_part_in_flight(cluster, tmp_path, kind, name):
    compute, ray = on_ray(cluster)
    job = kind(compute=compute, directory=str(tmp_path), seconds=0.5)

    def kill():
        wait_until(lambda: len(list(tmp_path.iterdir())) >= 3)
        wait_until(lambda: workers(name))[0].send_signal(signal.SIGKILL)

    assert disturbed(job, ray, kill) == SQUARES
    done = [len(path.read_text().split()) for path in tmp_path.iterdir()]
    assert 8 < sum(done) <= 8 + 2  # what was in flight is done again, and nothing else


@pytest.mark.parametrize("kind", [Marks, StreamedMarks])
def test_a_node_that_is_lost_costs_the_parts_in_flight(cluster, tmp_path, kind):
    compute, ray = on_ray(cluster)
    job = kind(compute=compute, directory=str(tmp_path), seconds=0.5)

    def lose():
        wait_until(lambda: len(list(tmp_path.iterdir())) >= 3)
        cluster.lose_node()

    try:
        assert disturbed(job, ray, lose) == SQUARES
    finally:
        cluster.add_node()
    done = [len(path.read_text().split()) for path in tmp_path.iterdir()]
    assert 8 <= sum(done) <= 8 + 2


def disturbed(job, backend, disturb):
    """Run a job while something happens to those who do it."""
    failed = []

    def guarded():
        try:
            disturb()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    outcome = job.run(backend)
    thread.join()
    assert not failed, failed
    return outcome


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(embed, "PIECE_PAIRS", 20)
    monkeypatch.setattr(embed_crawl, "SHARD_PIECES", 1)


def embed_job(home, compute):
    store, encoder = LanceStore(uri=str(home / "lance")), ClipEncoder(directory=str(home / "checkpoints"))
    columns = {
        "uid": [f"uid-{seed}" for seed in range(PAIRS)],
        "caption": [f"a thing with number {seed}" for seed in range(PAIRS)],
        "image": pa.array([picture(seed) for seed in range(PAIRS)], pa.large_binary()),
        "content": content(range(PAIRS)),
    }
    return EmbedCrawl(
        compute=compute,
        crawl="crawl-1",
        version=store.write("raw_pairs", "crawl-1", pa.table(columns)).version,
        architecture="demo",
        weights=encoder.save(create_clip("demo", seed=0), "proxy_checkpoint").path,
        proxy="demo",
        store=store,
        staging=Staging(directory=str(home / "staging")),
        encoder=encoder,
    )


def finished(home):
    """Pieces that are there, by name, with the time at which each was added."""
    pieces = home / "staging/embeddings.crawl-1"
    return {path: path.stat().st_mtime_ns for path in pieces.glob("*") if not path.name.endswith(".unfinished")}


@pytest.mark.parametrize("loss", ["a worker", "a node"])
def test_embeddings_are_equal_to_the_last_bit_when_hands_are_lost(cluster, tmp_path, small_pieces, loss):
    quiet = embed_job(tmp_path / "quiet", Compute(device="cpu", batch_size=16)).run(Local(Voice(print, print)))
    compute, ray = on_ray(cluster)
    home, seen = tmp_path / "ray", {}

    def lose():
        seen.update(wait_until(lambda: len(finished(home)) >= 3 and finished(home)))
        if loss == "a node":
            cluster.lose_node()
        else:
            wait_until(lambda: workers("ray::MapWorker"))[0].send_signal(signal.SIGKILL)
        wait_until(lambda: len(finished(home)) > 12)
        seen["later"] = finished(home)

    try:
        made = disturbed(embed_job(home, compute), ray, lose)
    finally:
        if loss == "a node":
            cluster.add_node()
    assert made["data_version"] == quiet["data_version"]
    later = seen.pop("later")
    assert {path: later[path] for path in seen} == seen  # what was finished was not done again


@pytest.mark.parametrize("loss", ["nothing", "a worker", "a node"])
def test_a_ranking_is_equal_to_the_last_bit_whatever_is_lost(cluster, tmp_path, monkeypatch, loss):
    monkeypatch.setattr(rank, "PART_PAIRS", 8)
    store = ranked_pool(tmp_path, "semdedup")

    def job(compute):
        encoder = ClipEncoder(directory=str(tmp_path))
        names = {"crawl": "crawl-2", "method": "semdedup", "parameters": {}, "seed": 0, "shards": []}
        return RankPool(compute=compute, store=store, encoder=encoder, **names)

    expected = job(Compute(device="cpu")).run(Local(Voice(print, print)))
    said = []
    compute, ray = on_ray(cluster, said)

    def lose():
        wait_until(lambda: said)
        if loss == "a node":
            cluster.lose_node()
        elif loss == "a worker":
            for worker in workers("ray::_part") or workers("ray::IDLE"):
                worker.send_signal(signal.SIGKILL)

    try:
        made = disturbed(job(compute), ray, lose)
    finally:
        if loss == "a node":
            cluster.add_node()
    assert made["data_version"] == expected["data_version"]
    assert len(said) > 4


def carried(home, **settings):
    """Data versions of what one crawl becomes, up to the scorecard of one subset."""
    deliver(home / "crawls/crawl-1", range(60))
    evaluation_set(home / "eval/colours", range(200, 240))
    versions = {}
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("crawl", ["crawl-1"])
        machine = Machine(home, instance, compute=Compute(device="cpu", batch_size=16, **settings))
        for step in road("crawl-1"):
            if "|f" not in (step.partition or "") or step.assets[0] == "clipcov_subset":
                machine.materialize(*step.assets, partition=step.partition)
                versions |= {asset: machine.data_version(asset, step.partition) for asset in step.assets}
    return versions


def test_a_crawl_becomes_the_same_down_to_the_scorecard(cluster, tmp_path):
    here = carried(tmp_path / "here")
    there = carried(tmp_path / "there", backend="ray", ray_address=cluster.address)
    assert there == here
    assert {"embeddings", "clipcov_ranking", "semdedup_ranking", "clipcov_checkpoint", "clipcov_scorecard"} <= set(here)


def test_a_job_travels_as_json_and_arrives_as_it_was(tmp_path):
    job = embed_job(tmp_path, Compute(device="cpu", workers=3))
    assert unpacked(*packed(job)) == job


class Steps:
    """An asset that has a job done through the dashboard, as a step of Dagster does it."""

    def __init__(self, instance, **settings):
        self._instance = instance
        self._compute = Compute(device="cpu", batch_size=16, backend="ray", **settings)
        self.outcomes = []

    def run(self, job, **changes):
        job = job.model_copy(update={"compute": self._compute.model_copy(update=changes)})

        @dg.asset
        def made(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            self.outcomes.append(submit.carry_out(context, job))
            return dg.MaterializeResult()

        return dg.materialize([made], instance=self._instance, raise_on_error=False)


@pytest.fixture
def steps(cluster):
    with dg.DagsterInstance.ephemeral() as instance:
        yield Steps(instance, ray_address=cluster.dashboard)


def fault_of(result):
    (failure,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    if failure.user_failure_data is not None:
        return failure.user_failure_data.description
    return (failure.error.cause or failure.error).message


def test_a_job_that_dagster_submits_sends_back_what_it_made(steps, tmp_path):
    quiet = embed_job(tmp_path / "quiet", Compute(device="cpu", batch_size=16)).run(Local(Voice(print, print)))
    assert steps.run(embed_job(tmp_path / "ray", Compute())).success
    (made,) = steps.outcomes
    assert made["data_version"] == quiet["data_version"]
    assert made["lowest_pairs"] == quiet["lowest_pairs"]


def test_a_job_that_finds_bad_data_says_what_to_mend(steps, tmp_path):
    job = embed_job(tmp_path, Compute())
    words = fault_of(steps.run(job.model_copy(update={"weights": str(tmp_path / "nothing.pt")})))
    assert f"no checkpoint at {tmp_path / 'nothing.pt'}" in words


def test_a_cluster_of_another_version_is_refused(steps, tmp_path, monkeypatch):
    monkeypatch.setattr(submit, "versions", lambda: {"python": "3.0", "ray": "1.0", "clipcov-assets": "0"})
    words = fault_of(steps.run(embed_job(tmp_path, Compute())))
    assert "use one image, or the same versions, on all machines" in words


@pytest.mark.parametrize("address", ["127.0.0.1:1", "http://127.0.0.1:1"])
def test_a_cluster_that_is_not_there_is_named_at_once(steps, tmp_path, address):
    began = time.monotonic()
    words = fault_of(steps.run(embed_job(tmp_path, Compute()), ray_address=address))
    assert f"no Ray cluster answers at {address!r} (CLIPCOV_RAY_ADDRESS)" in words
    assert time.monotonic() - began < 60


def test_an_address_that_is_none_is_named():
    with pytest.raises(ConnectionError, match=r"no Ray cluster answers at 'http://cluster' \(CLIPCOV_RAY_ADDRESS\)"):
        check_answer("http://cluster")


@pytest.mark.parametrize("settings", [{"ray_cpus": 9}, {"ray_gpus": 2, "device": "auto"}])
def test_parts_that_fit_on_no_node_are_refused_with_what_they_take(cluster, tmp_path, settings):
    compute = Compute(**{"device": "cpu", "backend": "ray", "ray_patience": 1, **settings})
    ray = OnRay(compute, Voice(print, print), address=cluster.address)
    with pytest.raises(
        ValueError, match=r"takes \d CPU, \d GPU, and the largest node of the Ray cluster has 1 CPU, 0 G"
    ):
        Marks(compute=compute, directory=str(tmp_path)).run(ray)


def test_no_password_is_sent_along(steps, tmp_path):
    job = embed_job(tmp_path, Compute())
    told = job.model_copy(update={"store": LanceStore(uri="s3://key:secret@bucket/lance")})
    words = fault_of(steps.run(told))
    assert "holds a password" in words
    assert "secret@" not in words


def test_a_template_that_is_not_there_is_named(steps, tmp_path):
    words = fault_of(steps.run(embed_job(tmp_path, Compute()), ray_address="kubernetes", ray_job="nothing.yaml"))
    assert "no RayJob template at 'nothing.yaml': set CLIPCOV_RAY_JOB" in words


def test_nothing_imports_ray_where_it_is_not_asked_for():
    code = "import clipcov_assets.definitions, clipcov_assets.jobs.submit, sys; sys.exit('ray' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], env={**os.environ}).returncode == 0
    )


def test_without_ray_the_setting_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="CLIPCOV_COMPUTE is 'ray', and Ray is not installed"):
        OnRay(Compute(), Voice(print, print), address="")
