"""A training that is killed goes on in its MLflow run, and ends with the weights of an undisturbed one."""

import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from mlflow.tracking import MlflowClient

from clipcov_assets.core.recipe import Augmentation, Recipe
from clipcov_assets.jobs.train import Trainer, Training, curve_rows, training_rows
from clipcov_assets.subset_pairs import pairs_of_crawl
from clipcov_assets.tables import RAW_PAIRS
from tests.deliveries import image
from tests.world import world

CAPTIONS = [f"class {number % 4}" for number in range(64)]
RECIPE = Recipe(batch_size=16, learning_rate=1e-3, epochs=12, augmentation=Augmentation(flip=0.5, color=0.1))
SAID: list[str] = []  # what the trainer reports
TRAIN = """
import sys
from pathlib import Path
from tests.jobs.test_train import train_here
for one in train_here(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2].split(",")], int(sys.argv[3])):
    print(one.weights.sha256, one.summary.samples_seen, len(one.steps))
"""


def train_here(home, seeds, devices=1, **changes):
    resources = world(home)
    store = resources["store"]
    if not store.exists("raw_pairs", "crawl-1"):
        store.write("raw_pairs", "crawl-1", pairs())
    training = Training(
        "random_checkpoint/crawl-1/f20",
        pairs_of_crawl(store, "crawl-1"),
        ("random_subset/crawl-1|f20", "0123", store.uri),
        "demo",
        RECIPE,
        tags={},
        parent=("crawl-1", "random"),
        **changes,
    )
    compute = resources["compute"].model_copy(update={"savepoint_samples": 64, "devices": devices})
    trainer = Trainer(
        resources["encoder"], resources["tracker"], compute, resources["staging"], report=SAID.append, warn=SAID.append
    )
    return trainer.train(training, seeds)


def pairs():
    rows = [
        {
            "uid": f"{number:032x}",
            "caption": caption,
            "image": image(number),
            "bytes": len(image(number)),
            "content": number.to_bytes(16, "big"),
        }
        for number, caption in enumerate(CAPTIONS)
    ]
    return pa.Table.from_pylist(rows, schema=RAW_PAIRS)


def start(home, seeds="0", devices=1):
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(home), seeds, str(devices)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(home, seeds="0"):
    with start(home, seeds) as process:
        output, errors = process.communicate()
    assert process.returncode == 0, errors
    return [line.split() for line in output.splitlines()]


def kill_after(home, wanted, seeds="0"):
    with start(home, seeds) as process:
        while process.poll() is None and not wanted():
            time.sleep(0.001)
        process.kill()
        process.communicate()
    assert process.returncode == -9


def states(home):
    return list((home / "staging").rglob("*.state"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return train(tmp_path_factory.mktemp("undisturbed"))


def runs(home):
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("clipcov-assets")
    found = client.search_runs([experiment.experiment_id])
    return [run.info.status for run in found if "clipcov.seed" in run.data.tags]


def told(checkpoint):
    return [checkpoint.weights.sha256, str(checkpoint.summary.samples_seen), str(len(checkpoint.steps))]


def test_a_killed_training_goes_on_to_the_same_weights_in_the_same_run(undisturbed, tmp_path):
    kill_after(tmp_path, lambda: states(tmp_path))
    assert [told(one) for one in train_here(tmp_path, [0])] == undisturbed
    assert undisturbed[0][1:] == ["768", "48"]
    assert runs(tmp_path) == ["FINISHED"]
    assert not [path for path in (tmp_path / "staging").rglob("*") if path.suffix != ".lock"]


def test_the_state_of_another_training_is_not_taken_and_its_run_is_closed(undisturbed, tmp_path):
    kill_after(tmp_path, lambda: states(tmp_path))
    (other,) = train_here(tmp_path, [1])
    assert other.weights.sha256 != undisturbed[0][0]
    assert sorted(runs(tmp_path)) == ["FINISHED", "KILLED"]


def test_a_killed_training_does_not_train_finished_seeds_again(undisturbed, tmp_path):
    kill_after(tmp_path, lambda: list((tmp_path / "staging").rglob("*.done")) and states(tmp_path), "0,1")
    (done,) = (tmp_path / "staging").rglob("*.done")
    made = (tmp_path / "checkpoints/random_checkpoint/crawl-1/f20/seed-0/weights.pt").stat().st_mtime_ns
    found = train_here(tmp_path, [0, 1])
    assert told(found[0]) == undisturbed[0]
    assert found[1].weights.sha256 != found[0].weights.sha256
    assert (tmp_path / "checkpoints/random_checkpoint/crawl-1/f20/seed-0/weights.pt").stat().st_mtime_ns == made
    assert not done.exists()


def test_two_devices_train_like_one(undisturbed, tmp_path):
    # Batch normalization sees half of a batch, so weights differ; what is trained on does not.
    (found,) = train_here(tmp_path, [0], devices=2)
    assert told(found)[1:] == undisturbed[0][1:]
    assert found.weights.sha256 != undisturbed[0][0]
    assert runs(tmp_path) == ["FINISHED"]


def test_what_stops_one_device_is_told(tmp_path):
    store = world(tmp_path)["store"]
    rows = pairs().to_pylist()
    rows[9]["image"] = b"no image"
    store.write("raw_pairs", "crawl-1", pa.Table.from_pylist(rows, schema=RAW_PAIRS))
    with pytest.raises(RuntimeError, match=f"the training stopped on device .*image of pair {9:032x} of crawl-1"):
        train_here(tmp_path, [0], devices=2)
    assert runs(tmp_path) == ["FAILED"]


def test_weights_of_seeds_that_are_no_longer_wanted_go(tmp_path):
    train_here(tmp_path, [3])
    train_here(tmp_path, [4])
    folder = tmp_path / "checkpoints/random_checkpoint/crawl-1/f20"
    assert [path.name for path in folder.iterdir()] == ["seed-4"]


def test_a_training_is_recorded_with_its_data_recipe_curve_and_weights(tmp_path):
    (checkpoint,) = train_here(tmp_path, [0])
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = client.get_run(checkpoint.mlflow_run_id)
    assert run.data.params["recipe_hash"] and run.data.params["batch_size"] == "16"
    assert run.inputs.dataset_inputs[0].dataset.digest == "0123"
    curve = client.get_metric_history(checkpoint.mlflow_run_id, "loss")
    assert [point.step for point in curve] == [step.samples_seen for step in checkpoint.steps]
    assert any(name.startswith("system/") for name in run.data.metrics)
    (weights,) = client.list_artifacts(checkpoint.mlflow_run_id, "checkpoint")
    assert weights.file_size == Path(checkpoint.weights.path).stat().st_size
    assert client.get_run(run.data.tags["mlflow.parentRunId"]).info.run_name == "crawl-1 random"


def test_a_training_without_mlflow_is_trained_and_saved_all_the_same(tmp_path):
    (expected,) = train_here(tmp_path / "with", [0])
    (tmp_path / "without").mkdir()
    (tmp_path / "without/mlflow.db").mkdir()  # where the database should be
    SAID.clear()
    (found,) = train_here(tmp_path / "without", [0])
    assert found.weights.sha256 == expected.weights.sha256
    assert Path(found.weights.path).is_file()
    assert (found.mlflow_run_id, found.mlflow_address) == (None, None)
    assert any("MLflow" in words for words in SAID)


def test_rows_tell_what_was_trained_how_and_at_which_cost(tmp_path):
    checkpoints = train_here(tmp_path, [0, 5])
    training = Training("a/b", pairs_of_crawl(world(tmp_path)["store"], "crawl-1"), ("", "", ""), "demo", RECIPE, {})
    compute = world(tmp_path)["compute"]
    rows = training_rows(checkpoints, training, compute, crawl="crawl-1", method="random", fraction=0.2).to_pylist()
    assert [row["seed"] for row in rows] == [0, 5]
    for row in rows:
        assert (row["pairs"], row["samples_seen"], row["epochs"]) == (64, 768, 12.0)
        assert row["warmup_share"] == pytest.approx(0.1)
        assert 0 < row["last_learning_rate"] < row["max_learning_rate"] <= 1e-3
        assert (row["device"], row["devices"], row["precision"]) == ("cpu", 1, "float32")
    assert curve_rows(checkpoints)["seed"].to_pylist() == [0] * 48 + [5] * 48
