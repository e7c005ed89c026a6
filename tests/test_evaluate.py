import pytest

from clipcov_assets.core.clip_model import create_clip
from clipcov_assets.evaluate import main
from resources.clip_encoder import ClipEncoder
from tests.deliveries import evaluation_set


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    evaluation_set(home / "eval/colours", range(12))
    evaluation_set(home / "eval/shapes", range(20, 28), classes=6)
    ClipEncoder(directory=str(home)).save(create_clip("demo", seed=0), "elsewhere")
    return home


def test_a_checkpoint_from_elsewhere_is_scored_on_every_set(home, capsys):
    assert main(["demo", str(home / "elsewhere/weights.pt"), "--sets", str(home / "eval")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("colours: 12 images, 4 classes")
    assert [line.split()[0] for line in lines[1:3]] == ["acc1", "mean_per_class_recall"]
    assert lines[1].endswith("chance 25.0")
    assert lines[3].startswith("shapes: 8 images, 6 classes")
    assert len(lines) == 3 + 4


@pytest.mark.parametrize(
    ("architecture", "weights", "words"),
    [
        ("demo", "nowhere/weights.pt", "no checkpoint at nowhere/weights.pt"),
        ("demo", "no_such_tag", "cannot build 'demo' from 'no_such_tag'"),
        ("no_such_model", "openai", "no architecture 'no_such_model'"),
    ],
)
def test_a_model_that_is_not_there_is_named(home, capsys, architecture, weights, words):
    assert main([architecture, weights, "--sets", str(home / "eval")]) == 1
    assert words in capsys.readouterr().err


def test_weights_of_another_architecture_are_refused(home, capsys):
    assert main(["ViT-B-32", str(home / "elsewhere/weights.pt"), "--sets", str(home / "eval")]) == 1
    assert "cannot build 'ViT-B-32'" in capsys.readouterr().err


def test_a_directory_without_sets_is_named(home, capsys):
    assert main(["demo", str(home / "elsewhere/weights.pt"), "--sets", str(home)]) == 1
    assert "classnames.txt" in capsys.readouterr().err
