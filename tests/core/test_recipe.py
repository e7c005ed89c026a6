import pytest

from clipcov_assets.core.recipe import Augmentation, Recipe, Schedule

PAPER = Recipe(
    batch_size=512, learning_rate=5e-4, epochs=30, warmup_steps=10_000, first_epoch=1, betas=(0.9, 0.999), epsilon=1e-8
)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, "epochs or samples_seen"),
        ({"epochs": 1, "samples_seen": 1}, "epochs or samples_seen"),
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": 1, "batch_size": 1}, "batch_size is 1"),
        ({"epochs": 1, "learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"epochs": 1, "warmup_fraction": 1.0}, "warmup_fraction is 1.0"),
    ],
)
def test_an_impossible_recipe_is_named(changes: dict[str, float], named: str) -> None:
    values = {"batch_size": 8, "learning_rate": 1e-3, **changes}
    with pytest.raises(ValueError, match=named):
        Recipe(**values)  # type: ignore[arg-type]


def test_epochs_drop_the_short_batch_and_samples_seen_fills_whole_batches() -> None:
    epochs, samples = (
        Recipe(batch_size=4, learning_rate=1, epochs=1).within(budget) for budget in ("epochs:5", "samples:41")
    )
    assert [Schedule.of(epochs, n).steps for n in (11, 3)] == [5 * 2, 5]
    assert [Schedule.of(samples, n).steps for n in (11, 3)] == [11, 14]


def test_the_rate_rises_in_a_line_and_falls_as_a_cosine_to_zero() -> None:
    recipe = Recipe(batch_size=4, learning_rate=2.0, samples_seen=4_000, warmup_fraction=0.2)
    plan = Schedule.of(recipe, 100)
    rates = [plan.rate(step) for step in range(plan.steps)]
    assert rates[:2] == pytest.approx([2 * 0.5 / 200, 2 * 1.5 / 200])
    assert max(rates) == pytest.approx(2, rel=1e-4)
    assert rates.index(max(rates)) in (199, 200)
    assert rates[600] == pytest.approx(1, rel=1e-2)
    assert 0 < rates[-1] < 1e-5


def test_a_subset_of_any_size_sees_the_same_samples_and_the_whole_schedule() -> None:
    recipe = Recipe(batch_size=64, learning_rate=1e-3, samples_seen=64_000)
    plans = [Schedule.of(recipe, pairs) for pairs in (100, 1_000, 100_000)]
    assert {plan.samples_seen for plan in plans} == {64_000}
    assert {plan.warmup_share for plan in plans} == {0.1}
    assert len({tuple(plan.rate(step) for step in range(plan.steps)) for plan in plans}) == 1


@pytest.mark.parametrize(
    ("pairs", "steps", "share", "highest", "last"),
    [
        (141_890, 8_310, 1.20, 4.29e-4, 4.29e-4),
        (283_781, 16_620, 0.60, 5e-4, 8.6e-6),
        (567_562, 33_240, 0.30, 5e-4, 2.8e-6),
        (851_344, 49_860, 0.20, 5e-4, 2.1e-6),
        (1_418_907, 83_130, 0.12, 5e-4, 1.8e-6),
        (2_837_814, 166_260, 0.06, 5e-4, 1.5e-6),
    ],
)
def test_the_papers_schedule_never_leaves_its_warmup_at_five_per_cent(
    pairs: int, steps: int, share: float, highest: float, last: float
) -> None:
    plan = Schedule.of(PAPER, pairs)
    rates = [plan.rate(step) for step in range(plan.steps)]
    assert plan.steps == steps
    assert plan.warmup_share == pytest.approx(share, abs=0.005)
    assert max(rates) == pytest.approx(highest, rel=2e-3)
    assert rates[-1] == pytest.approx(last, rel=0.04)


def test_equal_recipes_have_equal_hashes_and_other_ones_have_not() -> None:
    assert PAPER.hash == PAPER.within("epochs:30").hash
    others = [PAPER.within("samples:1000"), Recipe(batch_size=512, learning_rate=5e-4, epochs=30)]
    flipped = Recipe(batch_size=512, learning_rate=5e-4, epochs=30, augmentation=Augmentation(flip=0.5))
    assert len({recipe.hash for recipe in (PAPER, *others, flipped)}) == 4


@pytest.mark.parametrize("budget", ["30", "epochs:", "epochs:-3", "steps:30", "samples:1e6"])
def test_a_budget_that_is_not_understood_is_named(budget: str) -> None:
    with pytest.raises(ValueError, match="write epochs:30 or samples:12800000"):
        PAPER.within(budget)
