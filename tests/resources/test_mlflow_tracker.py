import multiprocessing
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from resources.mlflow_tracker import MlflowTracker
from tests.resources.mlflow_server import Server, free_port

PNG = b"\x89PNG\r\n\x1a\n picture"
QUICK = {"every_seconds": 0.2, "patience_seconds": 20.0}


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    home = tmp_path_factory.mktemp("mlflow")
    return MlflowTracker(
        tracking_uri=f"sqlite:///{home / 'mlflow.db'}", artifact_directory=str(home / "artifacts"), **QUICK
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    found = Server(tmp_path_factory.mktemp("server"))
    found.start()
    yield found
    found.stop()


@pytest.fixture(params=["database", "server"])
def either(request, tracker):
    """A local database, and then a server by its address."""
    if request.param == "database":
        return tracker
    return at_address(request.getfixturevalue("server").address)


def at_address(address, **changes):
    return MlflowTracker(tracking_uri=address, artifact_directory="unused", **{**QUICK, **changes})


def stored(tracker, run):
    return MlflowClient(tracker.tracking_uri).get_run(run.run_id)


def curve(tracker, run, name="loss"):
    return [(one.step, one.value) for one in MlflowClient(tracker.tracking_uri).get_metric_history(run.run_id, name)]


def files(tracker, run, folder=None):
    return {one.path for one in MlflowClient(tracker.tracking_uri).list_artifacts(run.run_id, folder)}


def test_a_run_is_finished_with_its_parameters_tags_dataset_and_curve_over_samples(either):
    with either.run("clipcov_checkpoint/crawl-1/f10", {"dagster.partition": "crawl-1|f10"}) as run:
        run.log_parameters({"seed": 0, "betas": (0.9, 0.98)})
        run.log_curve([(128, {"loss": 2.0}), (256, {"loss": 1.5})])
        run.log_metrics({"final_loss": 1.5}, step=256)
        run.log_dataset("clipcov_subset/crawl-1/f10", "0123456789abcdef", "var/lance")
    found = stored(either, run)
    assert run.lost == ()
    assert found.info.status == "FINISHED"
    assert found.data.params == {"seed": "0", "betas": "(0.9, 0.98)"}
    assert found.data.tags["dagster.partition"] == "crawl-1|f10"
    assert found.data.metrics["final_loss"] == 1.5
    assert curve(either, run) == [(128, 2.0), (256, 1.5)]
    (data,) = (one.dataset for one in found.inputs.dataset_inputs)
    assert (data.name, data.digest) == ("clipcov_subset/crawl-1/f10", "0123456789abcdef")


def test_weights_texts_and_pictures_are_files_of_the_run(either, tmp_path):
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"weights")
    with either.run("x", {}) as run:
        run.log_artifact(weights, "checkpoint")
        run.log_text("| acc1 |", "scorecard/scores.md")
        run.log_picture(PNG, "curve.png")
    assert files(either, run) == {"checkpoint", "scorecard", "curve.png"}
    client = MlflowClient(either.tracking_uri)
    (tmp_path / "fetched").mkdir()
    fetched = client.download_artifacts(run.run_id, "checkpoint/weights.pt", str(tmp_path / "fetched"))
    assert Path(fetched).read_bytes() == b"weights"
    assert files(either, run, "scorecard") == {"scorecard/scores.md"}


def test_a_directory_of_this_machine_holds_no_second_copy_of_the_weights(tracker, tmp_path):
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"weights")
    with tracker.run("x", {}) as run:
        run.log_artifact(weights)
    assert weights.stat().st_nlink == 2


def test_the_load_of_the_machine_is_recorded_over_samples(tracker):
    with tracker.run("x", {}) as run:
        run.log_curve([(512, {"loss": 1.0})])
        time.sleep(0.5)
    names = stored(tracker, run).data.metrics
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= set(names)
    assert curve(tracker, run, "system/cpu_utilization_percentage")[-1][0] == 512


def test_a_machine_that_does_not_tell_its_load_costs_nothing_else(tracker, monkeypatch):
    def fails(_):
        raise OSError("no such sensor")

    monkeypatch.setattr("resources.machine_load.MachineLoad.sample", fails)
    with tracker.run("x", {}) as run:
        run.log_metrics({"loss": 1.0})
    assert run.lost == ("system metrics (no such sensor)",)
    assert stored(tracker, run).data.metrics == {"loss": 1.0}


def test_what_is_recorded_is_seen_while_the_work_goes_on(tracker):
    with tracker.run("x", {}) as run:
        run.log_curve([(128, {"loss": 2.0})])
        assert comes_true(lambda: curve(tracker, run) == [(128, 2.0)])
        assert stored(tracker, run).info.status == "RUNNING"


def test_a_run_that_raises_is_closed_as_failed_and_keeps_its_numbers(tracker):
    with pytest.raises(FloatingPointError), tracker.run("x", {}) as run:
        run.log_curve([(128, {"loss": 2.0})])
        raise FloatingPointError
    assert stored(tracker, run).info.status == "FAILED"
    assert curve(tracker, run) == [(128, 2.0)]


def test_work_that_was_killed_goes_on_in_its_run_with_no_point_missing_or_double(either):
    with pytest.raises(KeyboardInterrupt), either.run("x", {"dagster.run": "first"}) as broken:
        broken.log_parameters({"seed": 0})
        broken.log_curve([(128, {"loss": 2.0}), (256, {"loss": 1.5})])
        raise KeyboardInterrupt
    with either.run("x", {"dagster.run": "second"}, earlier=broken.run_id) as run:
        run.log_parameters({"seed": 0})
        run.log_curve([(128, {"loss": 2.0})])
        run.log_curve([(256, {"loss": 1.5}), (384, {"loss": 1.0})])
    found = stored(either, run)
    assert run.run_id == broken.run_id
    assert (found.info.status, found.data.tags["dagster.run"]) == ("FINISHED", "second")
    assert curve(either, run) == [(128, 2.0), (256, 1.5), (384, 1.0)]


def test_a_run_that_mlflow_no_longer_has_is_opened_anew(either):
    with either.run("x", {}, earlier="0" * 32) as run:
        pass
    assert run.run_id != "0" * 32
    assert stored(either, run).info.status == "FINISHED"


def test_a_run_that_was_deleted_is_opened_anew(tracker):
    with tracker.run("x", {}) as deleted:
        pass
    MlflowClient(tracker.tracking_uri).delete_run(deleted.run_id)
    with tracker.run("x", {}, earlier=deleted.run_id) as run:
        pass
    assert run.run_id != deleted.run_id


def test_work_that_will_not_go_on_is_closed_as_killed(tracker):
    with pytest.raises(KeyboardInterrupt), tracker.run("x", {}) as run:
        raise KeyboardInterrupt
    tracker.abandon(run.run_id)
    assert stored(tracker, run).info.status == "KILLED"


def test_a_scorecard_joins_the_run_of_its_checkpoint(either):
    with either.run("x", {}) as trained:
        pass
    with either.reopen(trained.run_id) as run:
        run.log_metrics({"emoji/acc1": 0.25})
    found = stored(either, trained)
    assert run.address == trained.address
    assert found.data.metrics["emoji/acc1"] == 0.25
    assert found.info.status == "FINISHED"


def test_a_scorecard_that_is_made_again_shows_its_new_numbers(tracker):
    with tracker.run("x", {}) as trained:
        pass
    for accuracy in (0.5, 0.25):
        with tracker.reopen(trained.run_id) as run:
            run.log_metrics({"emoji/acc1": accuracy})
    assert stored(tracker, trained).data.metrics["emoji/acc1"] == 0.25


@pytest.mark.parametrize("run_id", [None, "0" * 32])
def test_a_scorecard_of_a_checkpoint_without_a_run_tells_that_it_is_not_recorded(tracker, run_id):
    told = []
    with tracker.reopen(run_id, report=told.append) as run:
        run.log_metrics({"acc1": 0.25, "acc5": 0.5})
    assert run.lost == ("numbers (2)",)
    assert len(told) == 1
    assert "numbers (2)" in told[0]


def test_a_checkpoint_without_a_run_is_told_as_such_though_the_server_is_away():
    told = []
    with at_address(f"http://127.0.0.1:{free_port()}").reopen(None, report=told.append) as run:
        run.log_metrics({"acc1": 0.25})
    assert told == ["not recorded in MLflow of the earlier run: numbers (1): the earlier work was not recorded"]


def test_runs_of_a_crawl_and_method_are_under_one_finished_run(either):
    above = set()
    for fraction in ("f10", "f20"):
        with either.run(fraction, {}, parent=("crawl-7", "clipcov")) as run:
            pass
        above.add(stored(either, run).data.tags["mlflow.parentRunId"])
    (parent,) = above
    found = MlflowClient(either.tracking_uri).get_run(parent)
    assert (found.info.run_name, found.info.status) == ("crawl-7 clipcov", "FINISHED")
    assert found.data.tags["clipcov.crawl"] == "crawl-7"


def train_under_a_parent(settings, barrier, answers):
    tracker = MlflowTracker(**settings)
    barrier.wait()
    with tracker.run("child", {}, parent=("crawl-8", "random")) as run:
        pass
    answers.put(run.run_id)


def test_two_processes_at_once_share_the_run_above(tracker):
    spawn = multiprocessing.get_context("spawn")
    barrier, answers = spawn.Barrier(2), spawn.Queue()
    with tracker.run("the experiment is there", {}):
        pass
    processes = [
        spawn.Process(target=train_under_a_parent, args=(tracker.model_dump(), barrier, answers)) for _ in range(2)
    ]
    for one in processes:
        one.start()
    client = MlflowClient(tracker.tracking_uri)
    children = [client.get_run(answers.get(timeout=120)) for _ in processes]
    for one in processes:
        one.join()
    assert len({child.data.tags["mlflow.parentRunId"] for child in children}) == 1


def test_a_run_above_that_another_process_made_a_moment_earlier_is_taken(tracker, monkeypatch):
    create, rivals = MlflowClient.create_run, []

    def create_second(client, experiment, **settings):
        if settings["run_name"] == "crawl-6 random":
            rivals.append(create(client, experiment, start_time=1, **settings).info.run_id)
        return create(client, experiment, **settings)

    monkeypatch.setattr(MlflowClient, "create_run", create_second)
    with tracker.run("child", {}, parent=("crawl-6", "random")) as run:
        pass
    child = stored(tracker, run)
    wanted = "tags.`clipcov.shared_run` = 'crawl-6 random'"
    (left,) = MlflowClient(tracker.tracking_uri).search_runs([child.info.experiment_id], wanted)
    assert [child.data.tags["mlflow.parentRunId"]] == rivals == [left.info.run_id]


def test_of_two_runs_of_one_name_the_oldest_is_taken(tracker):
    with tracker.shared_run("crawl-9 comparison", {}) as first:
        pass
    client = MlflowClient(tracker.tracking_uri)
    experiment = client.get_run(first.run_id).info.experiment_id
    client.create_run(experiment, tags={"clipcov.shared_run": "crawl-9 comparison"})
    with tracker.shared_run("crawl-9 comparison", {}) as run:
        pass
    assert run.run_id == first.run_id


def test_pictures_of_a_comparison_go_to_one_run_of_the_crawl(either):
    for picture in ("sizes.png", "costs.png"):
        with either.shared_run("crawl-2 comparison", {"dagster.run": picture}) as run:
            run.log_picture(PNG, picture)
    assert files(either, run) == {"sizes.png", "costs.png"}
    assert stored(either, run).info.status == "FINISHED"
    assert stored(either, run).data.tags["dagster.run"] == "costs.png"


def test_the_address_of_a_run_leads_to_its_page(either):
    with either.run("x", {}) as run:
        pass
    start = either.tracking_uri if either.tracking_uri.startswith("http") else "http://127.0.0.1:5000"
    assert run.address.startswith(f"{start}/#/experiments/")
    assert run.address.endswith(run.run_id)


def test_names_and_values_that_mlflow_refuses_are_made_to_fit(either):
    with either.run("x", {}) as run:
        run.log_parameters({"recipe?": "x" * 7000} | {f"p{number}": number for number in range(150)})
        run.log_metrics({"/set//acc1 (95 %)": 0.5, "../up": 1.0, "nan": float("nan")})
    found = stored(either, run).data
    assert run.lost == ()
    assert len(found.params["recipe_"]) == 6000
    assert len(found.params) == 151
    assert {"set/acc1 _95 __", "up", "nan"} <= set(found.metrics)


def test_thousands_of_points_arrive(tracker):
    with tracker.run("x", {}) as run:
        run.log_curve((step, {"loss": 1.0}) for step in range(2500))
    assert len(curve(tracker, run)) == 2500


def test_a_parameter_that_contradicts_an_earlier_one_is_told_and_nothing_else_is_lost(tracker):
    told = []
    with tracker.run("x", {}, report=told.append) as run:
        run.log_parameters({"seed": 0})
        run.log_parameters({"seed": 1})
        run.log_metrics({"loss": 1.0})
    assert "parameters (1)" in told[0]
    assert stored(tracker, run).data.params == {"seed": "0"}
    assert stored(tracker, run).data.metrics["loss"] == 1.0


def test_a_file_that_is_gone_is_told_and_the_others_arrive(tracker, tmp_path):
    told = []
    with tracker.run("x", {}, report=told.append) as run:
        run.log_artifact(tmp_path / "gone.pt")
        run.log_text("here", "here.txt")
    assert "gone.pt" in told[0]
    assert files(tracker, run) == {"here.txt"}


def test_without_a_server_the_work_is_done_within_seconds_and_the_loss_is_told():
    told, start = [], time.monotonic()
    tracker = at_address(f"http://127.0.0.1:{free_port()}")
    with tracker.run("training", {}, parent=("crawl-1", "random"), report=told.append) as run:
        run.log_parameters({"seed": 0})
        run.log_curve([(128, {"loss": 2.0})])
        done = True
    assert done
    assert time.monotonic() - start < 15
    assert (run.run_id, run.address) == (None, None)
    assert "parameters (1)" in run.lost
    assert "its end as FINISHED" in run.lost
    assert len(told) == 2  # at the start, and what was lost at the end


def test_without_a_server_the_works_own_error_comes_through():
    with pytest.raises(FloatingPointError), at_address(f"http://127.0.0.1:{free_port()}").run("x", {}):
        raise FloatingPointError


def test_without_a_server_a_run_that_goes_on_keeps_its_id():
    with at_address(f"http://127.0.0.1:{free_port()}").run("x", {}, earlier="a" * 32) as run:
        pass
    assert run.run_id == "a" * 32


def test_a_server_that_never_answers_is_waited_for_no_longer_than_the_patience(silent_port):
    told, start = [], time.monotonic()
    with at_address(f"http://127.0.0.1:{silent_port}", patience_seconds=1.0).run("x", {}, report=told.append) as run:
        run.log_metrics({"loss": 1.0})
    assert time.monotonic() - start < 6
    assert "no answer within 1 seconds" in told[-1]
    assert "its end as FINISHED" in run.lost


def test_a_server_that_dies_and_comes_back_has_everything_in_the_end(tmp_path):
    server, told = Server(tmp_path), []
    server.start()
    try:
        tracker = at_address(server.address)
        with tracker.run("x", {}, report=told.append) as run:
            run.log_curve([(128, {"loss": 2.0})])
            assert comes_true(lambda: curve(tracker, run) == [(128, 2.0)])
            server.stop()
            run.log_curve([(256, {"loss": 1.5})])
            run.log_text("kept", "kept.txt")
            time.sleep(1)
            server.start()
            run.log_curve([(384, {"loss": 1.0})])
        assert (told, run.lost) == ([], ())
        assert curve(tracker, run) == [(128, 2.0), (256, 1.5), (384, 1.0)]
        assert files(tracker, run) == {"kept.txt"}
        assert stored(tracker, run).info.status == "FINISHED"
    finally:
        server.stop()


def test_a_server_that_comes_up_during_the_work_has_everything_in_the_end(tmp_path):
    server, told = Server(tmp_path), []
    tracker = at_address(server.address)
    try:
        with tracker.run("x", {}, parent=("crawl-1", "random"), report=told.append) as run:
            run.log_curve([(128, {"loss": 2.0})])
            server.start()
        assert run.lost == ()
        assert curve(tracker, run) == [(128, 2.0)]
    finally:
        server.stop()


def test_a_database_that_cannot_be_written_stops_no_work(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    told, start = [], time.monotonic()
    tracker = MlflowTracker(
        tracking_uri=f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}", artifact_directory=str(tmp_path), **QUICK
    )
    with tracker.run("x", {}, report=told.append) as run:
        run.log_metrics({"loss": 1.0})
    assert time.monotonic() - start < 15
    assert run.lost
    assert told


def test_a_database_that_another_program_locks_for_a_while_has_everything_in_the_end(tracker):
    told = []
    with (
        tracker.run("x", {}, report=told.append) as run,
        closing(sqlite3.connect(tracker.tracking_uri.removeprefix("sqlite:///"))) as other,
    ):
        other.execute("BEGIN EXCLUSIVE")
        run.log_curve([(128, {"loss": 2.0})])
        time.sleep(1)
        other.rollback()
    assert told == []
    assert curve(tracker, run) == [(128, 2.0)]


def test_artifacts_that_cannot_be_stored_hold_back_no_numbers_and_are_told(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    told = []
    tracker = MlflowTracker(
        tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}", artifact_directory=str(tmp_path / "file"), **QUICK
    )
    with tracker.run("x", {}, report=told.append) as run:
        run.log_text("scores", "scores.md")
        run.log_curve([(128, {"loss": 2.0})])
    assert run.lost == ("file scores.md",)
    assert "scores.md" in told[0]
    assert curve(tracker, run) == [(128, 2.0)]
    assert stored(tracker, run).info.status == "FINISHED"


@pytest.fixture
def silent_port():
    """A port that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def comes_true(condition, *, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False
