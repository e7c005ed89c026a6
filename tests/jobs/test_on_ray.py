"""Jobs on a real Ray cluster of two nodes: the same results, whatever is lost on the way."""

import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from clipcov_assets.core.clip_model import create_clip
from clipcov_assets.demo import road
from clipcov_assets.jobs import embed, embed_crawl, on_ray, rank, submit
from clipcov_assets.jobs.embed_crawl import EmbedCrawl
from clipcov_assets.jobs.job import Local, Voice, packed, unpacked
from clipcov_assets.jobs.on_ray import OnRay, cores_beside, has_room
from clipcov_assets.jobs.rank import RankPool, RankShard
from resources.clip_encoder import ClipEncoder
from resources.compute import Compute
from resources.lance_store import LanceStore
from resources.pieces import Pieces
from resources.staging import Staging
from tests.deliveries import deliver, evaluation_set
from tests.jobs.test_embed import content, picture
from tests.ranked_pool import ranked_pool
from tests.ray_cluster import Machine, Marks, StreamedMarks, ray_cluster, wait_until, workers
from tests.world import Machine as World

pytestmark = pytest.mark.ray
SQUARES = {"squares": {number: number * number for number in range(8)}}
PAIRS = 160


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster() as cluster:
        yield cluster


def backend_of(cluster, said=None, **settings):
    say = [].append if said is None else said.append
    compute = Compute(
        **{"device": "cpu", "batch_size": 16, "backend": "ray", "ray_address": cluster.address, **settings}
    )
    return compute, OnRay(compute, Voice(say, say), address=cluster.address)


@pytest.mark.parametrize("kind", [Marks, StreamedMarks])
def test_all_parts_are_done_and_told(cluster, tmp_path, kind):
    said = []
    compute, ray = backend_of(cluster, said)
    assert kind(compute=compute, directory=str(tmp_path)).run(ray) == SQUARES
    assert said == [f"{done} of 8 parts are done" for done in range(1, 9)]


@pytest.mark.parametrize("kind", [Marks, StreamedMarks])
def test_what_a_part_raises_is_raised_here_in_its_own_words(cluster, tmp_path, kind):
    compute, ray = backend_of(cluster)
    with pytest.raises(ValueError, match=r"^row 5 is damaged: deliver it again$"):
        kind(compute=compute, directory=str(tmp_path), fails_at=5).run(ray)


@pytest.mark.parametrize(("kind", "name"), [(Marks, "ray::_part"), (StreamedMarks, "ray::MapWorker")])
def test_a_worker_that_is_killed_costs_the_part_in_flight(cluster, tmp_path, kind, name):
    compute, ray = backend_of(cluster)
    job = kind(compute=compute, directory=str(tmp_path), seconds=0.3)

    def kill():
        wait_until(lambda: len(list(tmp_path.iterdir())) >= 3)
        wait_until(lambda: workers(name))[0].send_signal(signal.SIGKILL)

    assert disturbed(job, ray, kill) == SQUARES
    done = [len(path.read_text().split()) for path in tmp_path.iterdir()]
    assert 8 < sum(done) <= 8 + 2  # what was in flight is done again, and nothing else


@pytest.mark.parametrize("kind", [Marks, StreamedMarks])
def test_a_node_that_is_lost_costs_the_parts_in_flight(cluster, tmp_path, kind):
    compute, ray = backend_of(cluster)
    job = kind(compute=compute, directory=str(tmp_path), seconds=0.3)

    def lose():
        wait_until(lambda: len(list(tmp_path.iterdir())) >= 3)
        cluster.lose_node()

    try:
        assert disturbed(job, ray, lose) == SQUARES
    finally:
        cluster.add_node()
    done = [len(path.read_text().split()) for path in tmp_path.iterdir()]
    assert 8 <= sum(done) <= 8 + 2


@pytest.mark.parametrize("kind", [Marks, StreamedMarks])
def test_a_part_that_always_kills_its_worker_is_given_up(cluster, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(on_ray, "RETRIES", 1)
    compute, ray = backend_of(cluster)
    with pytest.raises(RuntimeError, match="the Ray cluster lost a part of this job 1 times, or had no memory for it"):
        kind(compute=compute, directory=str(tmp_path), dies_at=0).run(ray)
    assert len((tmp_path / "0").read_text().split()) == 2


def test_when_the_last_node_for_a_part_is_lost_nobody_waits_for_ever(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "LOOK_SECONDS", 1)
    compute, ray = backend_of(cluster, device="cuda", ray_cpus=0.5, ray_gpus=0.5, ray_patience=1)
    homes = {kind: tmp_path / kind.__name__ for kind in (Marks, StreamedMarks)}
    try:
        with ThreadPoolExecutor() as pool:
            for home in homes.values():
                home.mkdir()
            runs = [
                pool.submit(kind(compute=compute, directory=str(home), seconds=1).run, ray)
                for kind, home in homes.items()
            ]
            wait_until(lambda: all(any(home.iterdir()) for home in homes.values()))
            cluster.lose_node()
            for run in runs:
                with pytest.raises(RuntimeError, match=r"lost its nodes.* takes 0\.5 CPU, 0\.5 GPU, and no node"):
                    run.result()
    finally:
        cluster.add_node()


def test_a_part_has_its_cores_and_no_gpu_that_it_does_not_take(cluster):
    compute, ray = backend_of(cluster, device="auto", ray_gpus=0)
    assert Machine(compute=compute).run(ray) == {"device": "cpu", "workers": 1}


def test_what_auto_means_is_asked_on_the_nodes_that_do_the_parts(cluster):
    compute, ray = backend_of(cluster, device="auto")
    settled = ray.settled(compute)  # by the node that says that it has a GPU, where torch finds none
    assert (settled.device, settled.precision) == ("cpu", "float32")


def test_one_node_has_all_that_a_part_takes():
    takes = {"CPU": 4, "GPU": 1}
    assert not any(has_room(node, takes) for node in ({"CPU": 8}, {"CPU": 1, "GPU": 1}))
    assert has_room({"CPU": 4, "GPU": 2}, takes)


@pytest.mark.parametrize(("gpus", "cores"), [(1, 4), (2, 8), (0.5, 2), (4, 32)])
def test_a_part_with_a_gpu_has_the_cores_of_its_node_in_proportion(gpus, cores):
    assert cores_beside(gpus, [{"CPU": 64}, {"CPU": 8, "GPU": 2}, {"CPU": 64, "GPU": 8}]) == cores


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
    try:
        return job.run(backend)
    finally:
        thread.join()
        assert not failed, failed


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


def make_pieces_small(monkeypatch):
    monkeypatch.setattr(embed, "PIECE_PAIRS", 10)
    monkeypatch.setattr(embed_crawl, "SHARD_PIECES", 2)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """What becomes of the embeddings where nothing is lost."""
    job = embed_job(tmp_path_factory.mktemp("quiet"), Compute(device="cpu", batch_size=16))
    with pytest.MonkeyPatch.context() as patch:
        make_pieces_small(patch)
        return job.run(Local(Voice(print, print)))


@pytest.mark.parametrize("loss", ["a worker", "a node"])
def test_embeddings_are_equal_to_the_last_bit_when_hands_are_lost(cluster, tmp_path, monkeypatch, quiet, loss):
    make_pieces_small(monkeypatch)
    compute, ray = backend_of(cluster)
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


def test_a_part_that_is_done_again_embeds_what_is_left_of_it(tmp_path):
    job, voice = embed_job(tmp_path, Compute(device="cpu", batch_size=16)), Voice(print, print)
    shard = Pieces(tmp_path), {f"piece-{number}": np.arange(4 * number, 4 * number + 4) for number in range(4)}
    killed = job.parts([(shard[0], dict(list(shard[1].items())[:3]))], voice)
    assert list(killed) == [3]
    assert list(job.parts([shard], voice)) == [1]
    assert shard[0].finished(shard[1]) == set(shard[1])
    assert list(job.parts([shard], voice)) == [0]


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    """Makes the job that ranks a small pool by SemDeDup."""
    directory = tmp_path_factory.mktemp("ranked")
    store, encoder = ranked_pool(directory, "semdedup"), ClipEncoder(directory=str(directory))
    names = {"crawl": "crawl-2", "method": "semdedup", "parameters": {}, "seed": 0, "shards": []}
    return lambda compute: RankPool(compute=compute, store=store, encoder=encoder, **names)


@pytest.fixture(scope="module")
def expected(ranked):
    return ranked(Compute(device="cpu")).run(Local(Voice(print, print)))


@pytest.mark.parametrize("loss", ["a worker", "a node"])
def test_a_ranking_is_equal_to_the_last_bit_whatever_is_lost(cluster, monkeypatch, ranked, expected, loss):
    monkeypatch.setattr(rank, "PART_PAIRS", 8)
    said = []
    compute, ray = backend_of(cluster, said)

    def lose():
        if loss == "a node":
            wait_until(lambda: said)
            cluster.lose_node()
        else:
            wait_until(lambda: workers("ray::_part"))[0].send_signal(signal.SIGKILL)

    try:
        made = disturbed(ranked(compute), ray, lose)
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
        machine = World(home, instance, compute=Compute(device="cpu", batch_size=16, **settings))
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


def rank_shard(store, crawl="crawl-2"):
    return RankShard(
        compute=Compute(device="cpu"),
        crawl=crawl,
        partition=f"{crawl}|s0",
        classes=[0, 1, 2],
        parameters={},
        store=store,
    )


def test_a_job_that_dagster_submits_sends_back_what_it_made(steps, ranked, monkeypatch):
    store = ranked(Compute()).store
    quiet = rank_shard(store).run(Local(Voice(print, print)))

    async def broken(self, job_id):
        raise ConnectionResetError("the connection that follows the log is gone")
        yield

    monkeypatch.setattr("ray.job_submission.JobSubmissionClient.tail_job_logs", broken)
    assert steps.run(rank_shard(store)).success
    (made,) = steps.outcomes
    assert made["data_version"] == quiet["data_version"]
    assert made["largest"] == quiet["largest"]


def test_a_job_that_finds_bad_data_says_what_to_mend(steps, ranked):
    words = fault_of(steps.run(rank_shard(ranked(Compute()).store, crawl="crawl-9")))
    assert "materialize pool_statistics for partition crawl-9 first" in words


def test_a_cluster_of_another_version_is_refused_and_no_job_but_an_earlier_equal_one_is_stopped(
    cluster, steps, tmp_path, monkeypatch
):
    from ray.job_submission import JobSubmissionClient

    client, job = JobSubmissionClient(cluster.dashboard), embed_job(tmp_path, Compute())
    equal, other = (
        client.submit_job(entrypoint="exec sleep 600", metadata={submit.WORK: f"made  in {store}"})
        for store in (job.store.uri, "/somewhere/else")
    )
    monkeypatch.setattr(submit, "versions", lambda: {"python": "3.0", "ray": "1.0", "clipcov-assets": "0"})
    words = fault_of(steps.run(job))
    assert "use one image, or the same versions, on all machines" in words
    assert (client.get_job_status(equal), client.get_job_status(other)) == ("STOPPED", "RUNNING")
    client.stop_job(other)


@pytest.mark.parametrize("settings", [{"ray_cpus": 9}, {"ray_gpus": 2, "device": "auto"}])
def test_parts_that_fit_on_no_node_are_refused_with_what_they_take(cluster, tmp_path, settings):
    compute = Compute(**{"device": "cpu", "backend": "ray", "ray_patience": 1, **settings})
    ray = OnRay(compute, Voice(print, print), address=cluster.address)
    with pytest.raises(
        ValueError, match=r"takes \d CPU, \d GPU, and no node .* has all of it \(they have 1 CPU, 0 GPU; 1 CPU, 1 GPU\)"
    ):
        Marks(compute=compute, directory=str(tmp_path)).run(ray)


def test_without_ray_the_setting_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="CLIPCOV_COMPUTE is 'ray', and Ray is not installed"):
        OnRay(Compute(), Voice(print, print), address="")
