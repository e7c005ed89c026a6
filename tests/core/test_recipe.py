import pytest

from clipcov_assets.core.recipe import Recipe


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
