import io
import math
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import distributed
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from clipcov_assets.core import training
from clipcov_assets.core.clip_model import ClipModel, create_clip, weights_sha256
from clipcov_assets.core.pairs_in_memory import PairsInMemory
from clipcov_assets.core.recipe import Augmentation, Execution, Recipe
from clipcov_assets.core.training import TrainingStep, TrainingSummary, batch_rows, train_clip

RECIPE = Recipe(batch_size=4, learning_rate=1e-2, epochs=3, augmentation=Augmentation(flip=0.5, color=0.1))
# With a large epsilon Adam's steps are as long as the gradients: it does not turn their last bits into whole steps.
STEADY = replace(RECIPE, epsilon=1.0, learning_rate=1.0)
CPU = Execution()


@pytest.fixture
def pairs(tiny_clip: ClipModel, pictures: list[bytes], captions: list[str]) -> PairsInMemory:
    """Six plain pictures with the names of their colours."""
    return PairsInMemory.of(tiny_clip, pictures, captions)


def trained(
    pairs: PairsInMemory,
    recipe: Recipe = RECIPE,
    execution: Execution = CPU,
    *,
    seed: int = 0,
    architecture: str = "tiny",
) -> ClipModel:
    clip = create_clip(architecture, seed=0)
    train_clip(clip, pairs, recipe, execution, seed=seed)
    return clip


def weights(clip: ClipModel) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in clip.model.parameters()])


def test_the_same_seed_gives_the_same_weights_bit_for_bit(pairs: PairsInMemory) -> None:
    one, again, other = (weights_sha256(trained(pairs, seed=seed).model) for seed in (0, 0, 1))
    assert one == again
    assert one != other


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
    pairs: PairsInMemory, states: int
) -> None:
    recipe = replace(RECIPE, epochs=9)
    steps: list[TrainingStep] = []
    undisturbed = create_clip("tiny", seed=0)
    expected = train_clip(undisturbed, pairs, recipe, CPU, seed=3, on_step=steps.append)

    savepoint = Kept(states)
    with pytest.raises(InterruptedTrainingError):
        train_clip(create_clip("tiny", seed=0), pairs, recipe, CPU, seed=3, savepoint=savepoint)
    again: list[TrainingStep] = []
    clip = create_clip("tiny", seed=0)
    summary = train_clip(clip, pairs, recipe, CPU, seed=3, on_step=again.append, savepoint=savepoint)
    assert weights_sha256(clip.model) == weights_sha256(undisturbed.model)
    assert [(one.step, one.samples_seen, one.loss) for one in again] == [
        (one.step, one.samples_seen, one.loss) for one in steps
    ]
    assert (summary.loss, summary.steps) == (expected.loss, expected.steps)


def test_a_state_is_kept_whenever_so_many_samples_have_been_seen(pairs: PairsInMemory) -> None:
    savepoint = Kept(-1)
    savepoint.every_samples = 10
    train_clip(create_clip("tiny", seed=0), pairs, replace(RECIPE, epochs=9), CPU, seed=0, savepoint=savepoint)
    assert savepoint.left == -1 - 36 // 10
    loaded = savepoint.load()
    assert loaded is not None
    assert loaded["steps"][-1][1] == 32


def test_training_leaves_the_global_generator_alone(pairs: PairsInMemory) -> None:
    before = torch.get_rng_state()
    trained(pairs)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_parts_of_a_batch_train_like_the_whole_batch(pairs: PairsInMemory, size: int) -> None:
    whole = weights(trained(pairs, STEADY))
    parts = weights(trained(pairs, STEADY, replace(CPU, micro_batch=size)))
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=2e-5)
    assert (whole - weights(create_clip("tiny", seed=0))).abs().max() > 0.05


def test_parts_of_a_batch_leave_one_trace_in_batch_normalization(pictures: list[bytes], captions: list[str]) -> None:
    clip = create_clip("demo", seed=0)
    pairs = PairsInMemory.of(clip, pictures, captions)
    recipe = Recipe(batch_size=6, learning_rate=1e-9, epochs=1)
    found = trained(pairs, recipe, replace(CPU, micro_batch=3), architecture="demo")
    order = next(batch_rows(6, 6, seed=0))
    mean = found.model.visual.bn1.running_mean.clone()
    expected = clip.model.train()
    for rows in (order[:3], order[3:]):
        expected.encode_image(training.normalized(clip, pairs.pixels[torch.from_numpy(rows)]))
    torch.testing.assert_close(mean, expected.visual.bn1.running_mean)


def test_activations_may_be_computed_twice(pairs: PairsInMemory) -> None:
    whole = weights(trained(pairs))
    torch.testing.assert_close(weights(trained(pairs, execution=replace(CPU, checkpoint_activations=True))), whole)


def test_a_compiled_model_trains_like_the_plain_one(pairs: PairsInMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = weights(trained(pairs, STEADY))
    # The graph is captured and differentiated as ever; only the minute of a C++ compiler is left out.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    compiled = weights(trained(pairs, STEADY, replace(CPU, compile=True)))
    torch.testing.assert_close(compiled, whole, rtol=1e-3, atol=2e-5)


def test_bfloat16_is_close_to_float32_and_the_weights_stay_in_float32(pairs: PairsInMemory) -> None:
    found = trained(pairs, execution=replace(CPU, precision="bfloat16"))
    assert all(weight.dtype == torch.float32 for weight in found.model.parameters())
    whole = weights(trained(pairs))
    assert not torch.equal(weights(found), whole)
    assert torch.nn.functional.cosine_similarity(weights(found), whole, dim=0) > 0.99


def test_an_unknown_precision_is_refused(pairs: PairsInMemory) -> None:
    with pytest.raises(ValueError, match="'float16': use one of float32, bfloat16"):
        trained(pairs, execution=replace(CPU, precision="float16"))


def test_a_long_gradient_is_cut(pairs: PairsInMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    clip_norm = torch.nn.utils.clip_grad_norm_

    def watched(parameters: list[torch.nn.Parameter], most: float) -> torch.Tensor:
        before = clip_norm(parameters, most)
        norms.append(float(torch.cat([one.grad.flatten() for one in parameters if one.grad is not None]).norm()))
        return before

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watched)
    trained(pairs, replace(RECIPE, gradient_clip=0.01))
    assert len(norms) == 3
    assert max(norms) == pytest.approx(0.01, rel=1e-3)


def train_on_this_rank(
    pairs: PairsInMemory, recipe: Recipe, sizes: list[int | None]
) -> list[tuple[torch.Tensor, list[float]]]:
    distributed.init_process_group("gloo")
    open_clip.add_model_config(Path(__file__).parent / "architectures")
    found = []
    for size in sizes:
        clip = create_clip("tiny", seed=0)
        steps: list[TrainingStep] = []
        train_clip(clip, pairs, recipe, replace(CPU, micro_batch=size), seed=0, on_step=steps.append)
        found.append((weights(clip), [step.loss for step in steps]))
    distributed.destroy_process_group()
    return found


def test_two_processes_train_like_one_with_whole_batches_and_with_parts(pairs: PairsInMemory) -> None:
    steps: list[TrainingStep] = []
    alone = create_clip("tiny", seed=0)
    train_clip(alone, pairs, STEADY, CPU, seed=0, on_step=steps.append)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        max_restarts=0,
        run_id="test",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
    )
    of_ranks = elastic_launch(config, train_on_this_rank)(pairs, STEADY, [None, 1])
    for found, losses in [*of_ranks[0], *of_ranks[1]]:
        torch.testing.assert_close(found, weights(alone), rtol=1e-3, atol=2e-5)
        assert losses == pytest.approx([step.loss for step in steps], rel=1e-5)


def test_a_batch_that_does_not_divide_among_devices_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 5 does not divide among 2 devices"):
        training.Ranks(0, 2).share(5)


def test_six_colours_are_learnt(tiny_clip: ClipModel, pairs: PairsInMemory) -> None:
    steps: list[TrainingStep] = []
    recipe = Recipe(batch_size=6, learning_rate=1e-2, epochs=60)
    train_clip(tiny_clip, pairs, recipe, CPU, seed=0, on_step=steps.append)
    assert steps[0].loss > 1.5
    assert steps[-1].loss < 0.5


def test_a_summary_tells_what_was_done(tiny_clip: ClipModel, pairs: PairsInMemory) -> None:
    steps: list[TrainingStep] = []
    recipe = replace(RECIPE, epochs=None, samples_seen=10, warmup_steps=12)
    summary: TrainingSummary = train_clip(tiny_clip, pairs, recipe, CPU, seed=0, on_step=steps.append)
    assert [one.samples_seen for one in steps] == [4, 8, 12]
    assert (summary.pairs, summary.steps, summary.samples_seen, summary.epochs) == (6, 3, 12, 2.0)
    assert summary.warmup_share == 4
    assert summary.max_learning_rate == summary.last_learning_rate == pytest.approx(1e-2 * 2.5 / 12)
    assert summary.loss == steps[-1].loss
    assert not tiny_clip.model.training


def test_an_epoch_has_each_row_at_most_once_in_an_order_of_its_own() -> None:
    first, second, third, fourth = islice(batch_rows(11, 5, seed=3), 4)
    assert len(set(first) | set(second)) == len(set(third) | set(fourth)) == 10
    assert first.tolist() != third.tolist()
    assert first.tolist() == next(batch_rows(11, 5, seed=3)).tolist()


def test_fewer_pairs_than_a_batch_are_one_batch() -> None:
    assert sorted(next(batch_rows(3, 64, seed=0))) == [0, 1, 2]


def test_only_matrices_decay(tiny_clip: ClipModel) -> None:
    names = {id(weight): name for name, weight in tiny_clip.model.named_parameters()}
    decaying, steady = training._optimizer(list(tiny_clip.model.parameters()), RECIPE).param_groups
    assert (decaying["weight_decay"], steady["weight_decay"]) == (RECIPE.weight_decay, 0)
    assert all(weight.ndim >= 2 for weight in decaying["params"])
    assert {"logit_scale", "ln_final.weight", "ln_final.bias"} <= {names[id(one)] for one in steady["params"]}
    assert len(decaying["params"]) + len(steady["params"]) == len(names)


def test_the_logit_scale_stays_below_a_hundred(tiny_clip: ClipModel, pairs: PairsInMemory) -> None:
    with torch.no_grad():
        tiny_clip.model.logit_scale.fill_(50.0)
    train_clip(tiny_clip, pairs, replace(RECIPE, learning_rate=1e-9), CPU, seed=0)
    assert tiny_clip.model.logit_scale.item() == pytest.approx(math.log(100))


def test_a_loss_that_is_not_finite_stops_the_training(tiny_clip: ClipModel, pairs: PairsInMemory) -> None:
    with torch.no_grad():
        tiny_clip.model.visual.proj.fill_(math.inf)
    with pytest.raises(FloatingPointError, match="loss is nan at step 0"):
        train_clip(tiny_clip, pairs, RECIPE, CPU, seed=0)


def test_a_single_pair_is_refused(tiny_clip: ClipModel, pairs: PairsInMemory) -> None:
    with pytest.raises(ValueError, match="1 pairs; the contrastive loss needs at least 2"):
        train_clip(tiny_clip, PairsInMemory(pairs.pixels[:1], pairs.tokens[:1]), RECIPE, CPU, seed=0)
