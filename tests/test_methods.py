import os
import subprocess
import sys

import dagster as dg
import pytest

from clipcov_assets.core.set_algebra import Combination
from clipcov_assets.launch import is_ready
from clipcov_assets.methods import COMBINED, COMPARED, SELECTIONS
from clipcov_assets.scales import DEMO, SCALES, with_choices

CHOICES = "clipcov & semdedup, clipcov | metaclip, clipcov-random"


def combinations(text, defaults=DEMO):
    return with_choices(defaults, {"CLIPCOV_COMBINATIONS": text}).combinations


def test_nothing_is_combined_unless_it_is_asked_for():
    assert not any(one.combinations for one in SCALES.values())
    assert COMBINED == {}
    assert SELECTIONS == COMPARED


def test_combinations_are_written_as_two_methods_with_a_sign_between_them():
    assert [one.name for one in combinations(CHOICES)] == [
        "clipcov_and_semdedup",
        "clipcov_or_metaclip",
        "clipcov_without_random",
    ]


def test_a_part_of_the_objective_combines_like_any_method():
    (found,) = combinations("clipcov - clipcov_cov_inter", SCALES["demo_table3"])
    assert found.methods == ("clipcov", "clipcov_cov_inter")
    assert found.name == "clipcov_without_clipcov_cov_inter"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "clipcov & magic",
            "CLIPCOV_COMBINATIONS has 'clipcov & magic': 'magic' cannot be combined; choose two of clipcov",
        ),
        ("full - clipcov", "'full' cannot be combined; choose two of clipcov, clip_score, .* random$"),
        ("clipcov_cov | random", "'clipcov_cov' cannot be combined"),
        ("clipcov & clipcov", "that is one method; choose two of"),
        ("clipcov + random", "write two methods with one of & | - between them, such as clipcov & semdedup"),
        ("clipcov", "write two methods with one of"),
        ("clipcov & random & semdedup", "write two methods with one of"),
        ("clipcov | random, &", "CLIPCOV_COMBINATIONS has '&': write two methods"),
    ],
)
def test_a_combination_that_is_not_understood_is_named_with_the_remedy(text, words):
    with pytest.raises(ValueError, match=words):
        combinations(text)


def test_a_combination_may_be_trained_by_itself():
    choices = {"CLIPCOV_COMBINATIONS": CHOICES, "CLIPCOV_TRAINED_METHODS": "random, clipcov_or_metaclip"}
    assert with_choices(DEMO, choices).trained.methods == ("random", "clipcov_or_metaclip")
    with pytest.raises(ValueError, match="CLIPCOV_TRAINED_METHODS has 'clipcov_or_metaclip': write any of clipcov, "):
        with_choices(DEMO, {"CLIPCOV_TRAINED_METHODS": "clipcov_or_metaclip"})


def test_a_combination_with_c_rho_is_selected_again_once_the_partly_trained_model_is_there(monkeypatch):
    for second in ("c_rho", "random"):
        combination = Combination("clipcov", "&", second)
        monkeypatch.setitem(COMBINED, combination.name, combination)
    with dg.DagsterInstance.ephemeral() as instance:
        assert is_ready(instance, "clipcov_and_random", "crawl-1")
        assert not is_ready(instance, "clipcov_and_c_rho", "crawl-1")
        instance.report_runless_asset_event(dg.AssetMaterialization("partial_checkpoint", partition="crawl-1"))
        assert is_ready(instance, "clipcov_and_c_rho", "crawl-1")


def in_a_process_of_its_own(program, **environment):
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


ROWS_OF_ASSETS = """
import dagster as dg
from clipcov_assets.automation import policy_in_words
from clipcov_assets.definitions import defs
dg.Definitions.validate_loadable(defs())
for spec in defs().resolve_all_asset_specs():
    name = spec.key.to_user_string()
    if name.startswith("clipcov_and_semdedup"):
        print(name, *sorted(dep.asset_key.to_user_string() for dep in spec.deps))
        assert spec.owners and spec.kinds and spec.code_version and len(spec.description) > 60
        assert (spec.automation_condition is None) is name.endswith("_export")
    if name == "comparison":
        assert "clipcov_and_semdedup_scorecard" in {dep.asset_key.to_user_string() for dep in spec.deps}
checks = {
    (key.asset_key.to_user_string(), key.name): check.get_spec_for_check_key(key).blocking
    for check in defs().asset_checks for key in check.check_keys
}
assert checks["clipcov_and_semdedup_subset", "combines_its_subsets"]
assert ("clipcov_and_semdedup_subset", "head_of_its_ranking") not in checks
assert checks["clipcov_and_semdedup_checkpoint", "finite_losses"]
assert ("clipcov_and_semdedup_scorecard", "above_chance") in checks
assert policy_in_words("clipcov_and_semdedup").startswith("Trained by itself")
"""


def test_each_combination_is_a_row_of_assets_with_checks_of_its_own():
    printed = in_a_process_of_its_own(
        ROWS_OF_ASSETS, CLIPCOV_COMBINATIONS="clipcov & semdedup", CLIPCOV_TRAINED_METHODS="clipcov_and_semdedup"
    )
    assert sorted(printed.splitlines()) == [
        "clipcov_and_semdedup_checkpoint clipcov_and_semdedup_subset",
        "clipcov_and_semdedup_export clipcov_and_semdedup_subset",
        "clipcov_and_semdedup_scorecard clipcov_and_semdedup_checkpoint",
        "clipcov_and_semdedup_subset clipcov_subset semdedup_subset",
    ]


ROAD = """
from clipcov_assets.demo import road
steps = [one for step in road("crawl-1") for one in step.assets]
print(steps.index("semdedup_subset") < steps.index("clipcov_and_semdedup_subset") < steps.index("comparison"))
print(steps.count("clipcov_and_semdedup_subset"))
"""


def test_the_demo_combines_subsets_after_those_of_their_methods():
    assert in_a_process_of_its_own(ROAD, CLIPCOV_COMBINATIONS="clipcov & semdedup").split() == ["True", "2"]
