import os
import subprocess
import sys

import pytest

from clipcov_assets.core import METHODS
from clipcov_assets.core.selection import ABLATIONS
from clipcov_assets.scales import DEMO, RECIPES, SCALES, scale, with_choices


def test_a_scale_compares_every_method_unless_it_says_otherwise():
    assert DEMO.methods == tuple(METHODS)
    assert all(set(one.methods) <= METHODS.keys() | ABLATIONS.keys() for one in SCALES.values())


def test_the_environment_chooses_recipe_budget_and_seeds():
    found = with_choices(DEMO, {"CLIPCOV_RECIPE": "paper", "CLIPCOV_BUDGET": "samples:5000", "CLIPCOV_SEEDS": "0, 3"})
    assert found.recipe == RECIPES["paper"].within("samples:5000")
    assert found.training_seeds == (0, 3)
    assert with_choices(DEMO, {}) == DEMO


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        (
            {"CLIPCOV_RECIPE": "fast"},
            "unknown recipe 'fast': set CLIPCOV_RECIPE to one of tiny, demo, paper, comparable",
        ),
        ({"CLIPCOV_BUDGET": "long"}, "write epochs:30 or samples:12800000"),
        ({"CLIPCOV_SEEDS": "one"}, "CLIPCOV_SEEDS is 'one'"),
        ({"CLIPCOV_SEEDS": "1,1"}, "write different numbers, such as 0,1,2"),
    ],
)
def test_a_choice_that_is_not_understood_is_named(choices, words):
    with pytest.raises(ValueError, match=words):
        with_choices(DEMO, choices)


def test_an_unknown_scale_is_named():
    with pytest.raises(ValueError, match="unknown scale 'huge': set CLIPCOV_SCALE to one of tiny, demo"):
        scale("huge")


def test_the_default_for_millions_of_pairs_gives_every_subset_the_same_samples():
    assert SCALES["cc3m"].recipe.samples_seen == SCALES["cc12m"].recipe.samples_seen == 12_800_000


def test_the_ablation_is_a_scale_whose_assets_rank_by_parts_of_the_objective():
    program = (
        "from clipcov_assets.definitions import defs;"
        "print(*sorted(spec.key.to_user_string() for spec in defs().resolve_all_asset_specs()))"
    )
    environment = {**os.environ, "CLIPCOV_SCALE": "demo_table3"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assets = done.stdout.split()
    assert {f"{method}_scorecard" for method in ("clipcov", "full", *ABLATIONS)} == {
        name for name in assets if name.endswith("_scorecard")
    }
