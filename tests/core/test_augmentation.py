import torch

from clipcov_assets.core.augmentation import augment
from clipcov_assets.core.recipe import Augmentation


def images() -> torch.Tensor:
    return torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).reshape(2, 3, 4, 4)


def test_without_augmentation_nothing_changes() -> None:
    assert augment(images(), Augmentation()) is not None
    assert torch.equal(augment(images(), Augmentation()), images())


def test_a_certain_flip_is_the_mirror_image() -> None:
    torch.testing.assert_close(augment(images(), Augmentation(flip=1.0)), images().flip(3))


def test_gray_images_have_equal_channels() -> None:
    gray = augment(images(), Augmentation(gray=1.0))
    assert torch.equal(gray[:, 0], gray[:, 1])
    torch.testing.assert_close(gray[:, 0], images().mean(dim=1))


def test_colour_changes_a_channel_by_gain_and_offset_only() -> None:
    changed = augment(images(), Augmentation(color=0.5))
    ratio = (changed[:, :, 0, 1] - changed[:, :, 0, 0]).flatten()
    assert ((ratio >= 0.5) & (ratio <= 1.5)).all()
    assert len(set(ratio.tolist())) == 6


def test_a_move_keeps_every_value_inside_the_image_s_range() -> None:
    moved = augment(images(), Augmentation(shift=0.3, zoom=0.2))
    assert not torch.equal(moved, images())
    assert moved.min() >= 0
    assert moved.max() <= images().max()
