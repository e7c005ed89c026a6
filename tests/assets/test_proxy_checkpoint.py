import pytest

from clipcov_assets.assets.proxy_checkpoint import pretrained_proxy
from clipcov_assets.scales import PretrainedProxy
from resources.clip_encoder import ClipEncoder


@pytest.fixture
def encoder(tmp_path):
    return ClipEncoder(directory=str(tmp_path / "checkpoints"))


def test_a_local_checkpoint_becomes_the_proxy_and_is_known_by_its_content(encoder):
    from clipcov_assets.core.clip_model import create_clip, weights_sha256

    clip = create_clip("demo", seed=5)
    path = encoder.save(clip, "from_elsewhere").path
    result = pretrained_proxy(PretrainedProxy("demo", path), encoder)
    assert result.metadata["sha256"] == weights_sha256(clip.model)
    loaded = encoder.load("demo", encoder.path("proxy_checkpoint"))
    assert weights_sha256(loaded.model) == weights_sha256(clip.model)


def test_an_unknown_tag_is_named(encoder):
    with pytest.raises(ValueError, match="no_such_tag"):
        pretrained_proxy(PretrainedProxy("RN50-quickgelu", "no_such_tag"), encoder)
