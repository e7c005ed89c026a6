import pytest
from mlflow.tracking import MlflowClient

from resources.mlflow_tracker import MlflowTracker


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    home = tmp_path_factory.mktemp("mlflow")
    return MlflowTracker(tracking_uri=f"sqlite:///{home / 'mlflow.db'}", artifact_directory=str(home / "artifacts"))


def test_a_run_is_finished_with_its_parameters_curve_and_tags(tracker):
    with tracker.run("random_checkpoint/crawl-1/f10", {"dagster.partition": "crawl-1|f10"}) as run:
        run.log_parameters({"seed": 0})
        run.log_curve([(128, {"loss": 2.0}), (256, {"loss": 1.5})])
    stored = MlflowClient(tracker.tracking_uri).get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.data.params == {"seed": "0"}
    assert stored.data.tags["dagster.partition"] == "crawl-1|f10"
    curve = MlflowClient(tracker.tracking_uri).get_metric_history(run.run_id, "loss")
    assert [(point.step, point.value) for point in curve] == [(128, 2.0), (256, 1.5)]


def test_a_run_that_raises_is_closed_as_failed(tracker):
    with pytest.raises(FloatingPointError), tracker.run("x", {}) as run:
        raise FloatingPointError
    assert MlflowClient(tracker.tracking_uri).get_run(run.run_id).info.status == "FAILED"


def test_work_that_was_broken_off_goes_on_in_its_run(tracker):
    with pytest.raises(KeyboardInterrupt), tracker.run("x", {"dagster.run": "first"}) as broken:
        broken.log_parameters({"seed": 0})
        raise KeyboardInterrupt
    with tracker.run("x", {"dagster.run": "second"}, earlier=broken.run_id) as run:
        run.log_parameters({"seed": 0})
    stored = MlflowClient(tracker.tracking_uri).get_run(run.run_id)
    assert run.run_id == broken.run_id
    assert (stored.info.status, stored.data.tags["dagster.run"]) == ("FINISHED", "second")


def test_a_run_that_mlflow_no_longer_has_is_opened_anew(tracker):
    with tracker.run("x", {}, earlier="0" * 32) as run:
        pass
    assert MlflowClient(tracker.tracking_uri).get_run(run.run_id).info.status == "FINISHED"


def test_a_scorecard_joins_the_run_of_its_checkpoint(tracker):
    with tracker.run("x", {}) as run:
        pass
    tracker.reopen(run.run_id).log_metrics({"emoji/acc1": 0.25})
    stored = MlflowClient(tracker.tracking_uri).get_run(run.run_id)
    assert stored.data.metrics["emoji/acc1"] == 0.25
    assert stored.info.status == "FINISHED"


def test_the_address_of_a_run_leads_to_its_page(tracker):
    with tracker.run("x", {}) as run:
        pass
    assert run.address.startswith("http://127.0.0.1:5000/#/experiments/")
    assert run.address.endswith(run.run_id)
