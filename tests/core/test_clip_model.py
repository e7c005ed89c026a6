import logging
from pathlib import Path

import pytest
import torch

from clipcov_assets.core.clip_model import ClipModel, create_clip, inference, weights_sha256


def test_the_same_seed_gives_the_same_weights(tiny_clip: ClipModel) -> None:
    torch.manual_seed(5)
    assert weights_sha256(create_clip("tiny", seed=0).model) == weights_sha256(tiny_clip.model)
    assert weights_sha256(create_clip("tiny", seed=1).model) != weights_sha256(tiny_clip.model)


def test_building_a_model_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    create_clip("tiny", seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_changed_weight_changes_the_hash(tiny_clip: ClipModel) -> None:
    before = weights_sha256(tiny_clip.model)
    with torch.no_grad():
        tiny_clip.model.logit_scale.add_(1e-3)
    assert weights_sha256(tiny_clip.model) != before


def test_the_layout_in_memory_does_not_change_the_hash(tiny_clip: ClipModel) -> None:
    before = weights_sha256(tiny_clip.model)
    assert weights_sha256(tiny_clip.model.to(memory_format=torch.channels_last)) == before


def test_saved_weights_are_read_back(tiny_clip: ClipModel, tmp_path: object) -> None:
    path = f"{tmp_path}/weights.pt"
    torch.save(tiny_clip.model.state_dict(), path)
    assert weights_sha256(create_clip("tiny", seed=1, pretrained=path).model) == weights_sha256(tiny_clip.model)


def test_an_unknown_architecture_or_tag_is_named() -> None:
    with pytest.raises(ValueError, match=r"'ViT-Z'.*demo.*open_clip.list_models"):
        create_clip("ViT-Z", seed=0)
    with pytest.raises(ValueError, match="no-such-tag"):
        create_clip("tiny", seed=0, pretrained="no-such-tag")


def test_the_demo_architecture_is_shipped() -> None:
    assert create_clip("demo", seed=0).architecture == "demo"


def test_random_weights_are_no_news(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        create_clip("tiny", seed=0)
    assert not caplog.records


@pytest.mark.parametrize("training", [True, False])
def test_inference_restores_the_mode(tiny_clip: ClipModel, training: bool) -> None:
    tiny_clip.model.train(training)
    with inference(tiny_clip, device="cpu") as model:
        assert not model.training
        assert torch.is_inference_mode_enabled()
    assert tiny_clip.model.training == training


class TouchesAFile:
    """What a hostile checkpoint would hold: code that runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_a_checkpoint_that_holds_more_than_weights_is_refused_and_nothing_of_it_runs(tmp_path: Path) -> None:
    torch.save({"visual.proj": TouchesAFile(tmp_path / "touched")}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"cannot build 'demo' from .*weights.pt"):
        create_clip("demo", seed=0, pretrained=str(tmp_path / "weights.pt"))
    assert not (tmp_path / "touched").exists()
