import torch

from clipcov_assets.core.augmentation import augment, draw
from clipcov_assets.core.recipe import Augmentation


def images() -> torch.Tensor:
    return torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).reshape(2, 3, 4, 4)


def changed(augmentation: Augmentation) -> torch.Tensor:
    amounts = draw(2, augmentation)
    assert amounts is not None
    return augment(images(), amounts)


def test_without_augmentation_there_is_nothing_to_do() -> None:
    assert draw(2, Augmentation()) is None


def test_an_image_is_changed_alike_however_its_batch_is_divided() -> None:
    amounts = draw(2, Augmentation(flip=0.5, shift=0.3, zoom=0.2, color=0.5, gray=0.5))
    assert amounts is not None
    parts = [augment(images()[rows], amounts[rows]) for rows in (slice(0, 1), slice(1, 2))]
    assert torch.equal(torch.cat(parts), augment(images(), amounts))


def test_a_certain_flip_is_the_mirror_image() -> None:
    torch.testing.assert_close(changed(Augmentation(flip=1.0)), images().flip(3))


def test_gray_images_have_equal_channels() -> None:
    gray = changed(Augmentation(gray=1.0))
    assert torch.equal(gray[:, 0], gray[:, 1])
    torch.testing.assert_close(gray[:, 0], images().mean(dim=1))


def test_colour_changes_a_channel_by_gain_and_offset_only() -> None:
    found = changed(Augmentation(color=0.5))
    ratio = (found[:, :, 0, 1] - found[:, :, 0, 0]).flatten()
    assert ((ratio >= 0.5) & (ratio <= 1.5)).all()
    assert len(set(ratio.tolist())) == 6


def test_a_move_keeps_every_value_inside_the_image_s_range() -> None:
    moved = changed(Augmentation(shift=0.3, zoom=0.2))
    assert not torch.equal(moved, images())
    assert moved.min() >= 0
    assert moved.max() <= images().max()
