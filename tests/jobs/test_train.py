"""A training that is killed goes on in its MLflow run, and ends with the weights of an undisturbed one."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

TRAIN = """
import sys
from pathlib import Path
import pyarrow as pa
from clipcov_assets.core.recipe import Augmentation, Recipe
from clipcov_assets.jobs.train import train_checkpoint
from tests.deliveries import image
from tests.world import world

home, seed = Path(sys.argv[1]), int(sys.argv[2])
resources = world(home)
rows = [{"caption": f"class {number % 4}", "image": image(number)} for number in range(64)]
schema = pa.schema({"caption": pa.string(), "image": pa.large_binary()})
recipe = Recipe(batch_size=16, learning_rate=1e-3, epochs=12, augmentation=Augmentation(flip=0.5, color=0.1))
compute = resources["compute"].model_copy(update={"savepoint_samples": 64})
found = train_checkpoint(
    "random_checkpoint/crawl-1/f20", pa.Table.from_pylist(rows, schema=schema), "demo", recipe, seed=seed, tags={},
    encoder=resources["encoder"], tracker=resources["tracker"], compute=compute, staging=resources["staging"],
)
print(found.weights.sha256, found.summary.samples_seen, len(found.curve))
"""


def start(home, seed=0):
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(home), str(seed)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(home, seed=0):
    with start(home, seed) as process:
        output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output.split()


def kill_after_a_state(home):
    with start(home) as process:
        while process.poll() is None and not list((home / "staging").rglob("*.state")):
            time.sleep(0.001)
        process.kill()
        process.communicate()
    assert process.returncode == -9


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return train(tmp_path_factory.mktemp("undisturbed"))


def runs(home):
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("clipcov-assets")
    return [run.info.status for run in client.search_runs([experiment.experiment_id])]


def test_a_killed_training_goes_on_to_the_same_weights_in_the_same_run(undisturbed, tmp_path):
    kill_after_a_state(tmp_path)
    assert train(tmp_path) == undisturbed
    assert undisturbed[1:] == ["768", "48"]
    assert runs(tmp_path) == ["FINISHED"]
    assert not [path for path in (tmp_path / "staging").rglob("*") if path.suffix != ".lock"]


def test_the_state_of_another_training_is_not_taken_and_its_run_is_closed(undisturbed, tmp_path):
    kill_after_a_state(tmp_path)
    assert train(tmp_path, seed=1)[0] != undisturbed[0]
    assert sorted(runs(tmp_path)) == ["FINISHED", "KILLED"]
