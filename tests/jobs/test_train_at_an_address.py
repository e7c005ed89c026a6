"""A training that is killed on one machine goes on on another one: its state lies at an address."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from clipcov_assets.jobs.train import Trainer, Training
from clipcov_assets.subset_pairs import pairs_of_crawl
from resources.clip_encoder import ClipEncoder
from resources.mirror import Address
from resources.staging import Staging
from tests.jobs.test_train import RECIPE, pairs
from tests.object_store import bucket, proxy, server
from tests.world import world

__all__ = ["bucket", "proxy", "server"]
NAME, PLACE = "random_checkpoint/crawl-1/f20", "pieces/random_checkpoint.crawl-1.f20"
TRAIN = """
import sys
from pathlib import Path
from tests.jobs.test_train_at_an_address import train_there
train_there(Path(sys.argv[1]), "s3://pool")
"""


def train_there(home, at):
    """Train as a machine does that keeps nothing but its tables; `at` is where all machines keep the rest."""
    resources = world(home)
    store = resources["store"]
    store.write("raw_pairs", "crawl-1", pairs())
    trainer = Trainer(
        ClipEncoder(directory=f"{at}/checkpoints", cache=str(home / "cache")),
        resources["tracker"],
        resources["compute"].model_copy(update={"savepoint_samples": 192}),
        Staging(directory=str(home / "staging"), pieces_at=f"{at}/pieces"),
        report=print,
        warn=print,
    )
    dataset = ("random_subset/crawl-1|f20", "0123", store.uri)
    (found,) = trainer.train(Training(NAME, pairs_of_crawl(store, "crawl-1"), dataset, "demo", RECIPE, tags={}), [0])
    return found


def test_a_training_that_was_killed_elsewhere_goes_on_to_the_same_weights(proxy, tmp_path):
    expected = train_there(tmp_path / "undisturbed", (tmp_path / "shared").as_uri())
    for machine in ("one", "other"):
        (tmp_path / machine).mkdir()
    place = Address.at(f"s3://pool/{PLACE}")
    command = [sys.executable, "-c", TRAIN, str(tmp_path / "one")]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as process:
        while process.poll() is None and not any(name.endswith(".state") for name in place.names()):
            time.sleep(0.02)
        process.kill()
    assert process.returncode == -9
    proxy.passed.clear()
    found = train_there(tmp_path / "other", "s3://pool")
    assert any(one.startswith("GET") and one.endswith(".state") for one in proxy.passed)
    assert found.weights.sha256 == expected.weights.sha256
    assert [step.loss for step in found.steps] == [step.loss for step in expected.steps]
    assert found.weights.path == f"s3://pool/checkpoints/{NAME}/seed-0/weights.pt"
    assert place.files() == {}


@pytest.mark.parametrize("place", ["file address", "directory"])
def test_a_state_may_lie_in_a_directory_that_machines_share(tmp_path, place):
    shared = tmp_path / "shared"
    found = train_there(tmp_path / "one", shared.as_uri() if place == "file address" else str(shared))
    assert Address.at(str(shared / "pieces")).files() == {}
    assert Path(found.weights.path.removeprefix("file://")).is_file()
