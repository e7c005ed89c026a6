import io
import math
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch

from clipcov_assets.core import training
from clipcov_assets.core.clip_model import ClipModel, create_clip, weights_sha256
from clipcov_assets.core.recipe import Augmentation, Recipe
from clipcov_assets.core.training import TrainingStep, batch_rows, n_steps, schedule, train_clip

RECIPE = Recipe(batch_size=4, learning_rate=1e-2, epochs=3, augmentation=Augmentation(flip=0.5, color=0.1))


def trained(pictures: list[bytes], captions: list[str], recipe: Recipe = RECIPE, *, seed: int = 0) -> str:
    clip = create_clip("tiny", seed=0)
    train_clip(clip, pictures, captions, recipe, seed=seed, device="cpu")
    return weights_sha256(clip.model)


def test_the_same_seed_gives_the_same_weights_bit_for_bit(pictures: list[bytes], captions: list[str]) -> None:
    assert trained(pictures, captions, seed=0) == trained(pictures, captions, seed=0)
    assert trained(pictures, captions, seed=0) != trained(pictures, captions, seed=1)


class InterruptedTrainingError(Exception):
    pass


class Kept:
    """A savepoint in memory, as a file keeps it; it breaks the training off when it has saved so many states."""

    every_samples = 4

    def __init__(self, states: int) -> None:
        self.left, self.bytes = states, b""

    def load(self) -> dict[str, Any] | None:
        return torch.load(io.BytesIO(self.bytes), weights_only=True) if self.bytes else None

    def save(self, state: dict[str, Any]) -> None:
        stream = io.BytesIO()
        torch.save(state, stream)
        self.bytes = stream.getvalue()
        self.left -= 1
        if self.left == 0:
            raise InterruptedTrainingError


@pytest.mark.parametrize("states", [1, 2, 5, 9])
def test_a_training_that_was_broken_off_goes_on_to_the_same_weights_and_the_same_curve(
    pictures: list[bytes], captions: list[str], states: int
) -> None:
    recipe = replace(RECIPE, epochs=9)
    steps: list[TrainingStep] = []
    undisturbed = create_clip("tiny", seed=0)
    expected = train_clip(undisturbed, pictures, captions, recipe, seed=3, device="cpu", on_step=steps.append)

    savepoint = Kept(states)
    with pytest.raises(InterruptedTrainingError):
        train_clip(create_clip("tiny", seed=0), pictures, captions, recipe, seed=3, device="cpu", savepoint=savepoint)
    again: list[TrainingStep] = []
    clip = create_clip("tiny", seed=0)
    summary = train_clip(
        clip, pictures, captions, recipe, seed=3, device="cpu", on_step=again.append, savepoint=savepoint
    )
    assert weights_sha256(clip.model) == weights_sha256(undisturbed.model)
    assert [(one.step, one.samples_seen, one.loss) for one in again] == [
        (one.step, one.samples_seen, one.loss) for one in steps
    ]
    assert (summary.loss, summary.steps) == (expected.loss, expected.steps)


def test_a_state_is_kept_whenever_so_many_samples_have_been_seen(pictures: list[bytes], captions: list[str]) -> None:
    savepoint = Kept(-1)
    savepoint.every_samples = 10
    train_clip(
        create_clip("tiny", seed=0),
        pictures,
        captions,
        replace(RECIPE, epochs=9),
        seed=0,
        device="cpu",
        savepoint=savepoint,
    )
    assert savepoint.left == -1 - 36 // 10
    loaded = savepoint.load()
    assert loaded is not None
    assert loaded["steps"][-1][1] == 32


def test_training_leaves_the_global_generator_alone(pictures: list[bytes], captions: list[str]) -> None:
    before = torch.get_rng_state()
    trained(pictures, captions)
    assert torch.equal(torch.get_rng_state(), before)


def test_images_kept_or_decoded_per_batch_train_the_same(
    pictures: list[bytes], captions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = trained(pictures, captions)
    monkeypatch.setattr(training, "KEPT_BYTES", 0)
    assert trained(pictures, captions) == kept


def test_six_colours_are_learnt(tiny_clip: ClipModel, pictures: list[bytes], captions: list[str]) -> None:
    steps: list[TrainingStep] = []
    recipe = Recipe(batch_size=6, learning_rate=1e-2, epochs=60)
    train_clip(tiny_clip, pictures, captions, recipe, seed=0, device="cpu", on_step=steps.append)
    assert steps[0].loss == pytest.approx(math.log(6), abs=1)
    assert steps[-1].loss < 0.2


def test_the_summary_and_the_steps_count_the_same(
    tiny_clip: ClipModel, pictures: list[bytes], captions: list[str]
) -> None:
    steps: list[TrainingStep] = []
    summary = train_clip(tiny_clip, pictures, captions, RECIPE, seed=0, device="cpu", on_step=steps.append)
    assert [one.samples_seen for one in steps] == [4, 8, 12]
    assert (summary.pairs, summary.steps, summary.samples_seen, summary.epochs) == (6, 3, 12, 2.0)
    assert summary.loss == steps[-1].loss
    assert not tiny_clip.model.training


def test_epochs_drop_the_short_batch_and_samples_seen_fills_whole_batches() -> None:
    assert n_steps(Recipe(batch_size=4, learning_rate=1, epochs=5), 11) == 5 * 2
    assert n_steps(Recipe(batch_size=4, learning_rate=1, samples_seen=41), 11) == 11
    assert n_steps(Recipe(batch_size=4, learning_rate=1, samples_seen=41), 3) == 14
    assert n_steps(Recipe(batch_size=4, learning_rate=1, epochs=5), 3) == 5


def test_an_epoch_has_each_row_at_most_once_in_an_order_of_its_own() -> None:
    first, second, third, fourth = islice(batch_rows(11, 5, seed=3), 4)
    assert len(set(first) | set(second)) == len(set(third) | set(fourth)) == 10
    assert first.tolist() != third.tolist()
    assert first.tolist() == next(batch_rows(11, 5, seed=3)).tolist()


def test_fewer_pairs_than_a_batch_are_one_batch() -> None:
    assert sorted(next(batch_rows(3, 64, seed=0))) == [0, 1, 2]


def test_the_schedule_rises_in_a_line_and_falls_as_a_cosine() -> None:
    shares = [schedule(progress, warmup=0.2) for progress in (0, 0.1, 0.2, 0.6, 1)]
    assert shares == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert schedule(0, warmup=0) == 1


def test_a_subset_of_any_size_goes_through_the_whole_schedule(pictures: list[bytes], captions: list[str]) -> None:
    for n in (3, 6):
        steps: list[TrainingStep] = []
        clip = create_clip("tiny", seed=0)
        recipe = Recipe(batch_size=2, learning_rate=1e-3, samples_seen=80)
        train_clip(clip, pictures[:n], captions[:n], recipe, seed=0, device="cpu", on_step=steps.append)
        rates = [one.learning_rate for one in steps]
        assert len(rates) == 40
        assert rates[0] < max(rates) > rates[-1]
        assert max(rates) == pytest.approx(1e-3, rel=0.01)
        assert rates[-1] < 1e-5


def test_only_matrices_decay(tiny_clip: ClipModel) -> None:
    names = {id(weight): name for name, weight in tiny_clip.model.named_parameters()}
    decaying, steady = training._optimizer(tiny_clip.model, RECIPE).param_groups
    assert (decaying["weight_decay"], steady["weight_decay"]) == (RECIPE.weight_decay, 0)
    assert all(weight.ndim >= 2 for weight in decaying["params"])
    assert {"logit_scale", "ln_final.weight", "ln_final.bias"} <= {names[id(one)] for one in steady["params"]}
    assert len(decaying["params"]) + len(steady["params"]) == len(names)


def test_the_logit_scale_stays_below_a_hundred(
    tiny_clip: ClipModel, pictures: list[bytes], captions: list[str]
) -> None:
    with torch.no_grad():
        tiny_clip.model.logit_scale.fill_(50.0)
    train_clip(tiny_clip, pictures, captions, replace(RECIPE, learning_rate=1e-9), seed=0, device="cpu")
    assert tiny_clip.model.logit_scale.item() == pytest.approx(math.log(100))


def test_a_loss_that_is_not_finite_stops_the_training(
    tiny_clip: ClipModel, pictures: list[bytes], captions: list[str]
) -> None:
    with torch.no_grad():
        tiny_clip.model.visual.proj.fill_(math.inf)
    with pytest.raises(FloatingPointError, match="loss is nan at step 0"):
        train_clip(tiny_clip, pictures, captions, RECIPE, seed=0, device="cpu")


@pytest.mark.parametrize(
    ("n_images", "texts", "named"),
    [(2, ["a"], "2 images but 1 captions"), (1, ["a"], "1 pairs"), (2, ["a", " "], "pair 1")],
)
def test_unusable_pairs_are_named(
    tiny_clip: ClipModel, pictures: list[bytes], n_images: int, texts: list[str], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        train_clip(tiny_clip, pictures[:n_images], texts, RECIPE, seed=0, device="cpu")


def test_a_broken_image_is_named(tiny_clip: ClipModel, pictures: list[bytes], captions: list[str]) -> None:
    with pytest.raises(ValueError, match="pair 2"):
        train_clip(tiny_clip, [*pictures[:2], b""], captions[:3], RECIPE, seed=0, device="cpu")
