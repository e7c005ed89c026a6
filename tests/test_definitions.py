import os
import subprocess
import sys

import dagster as dg
import pytest

from clipcov_assets.definitions import defs, resources
from clipcov_assets.pooling import CRAWL_CHECKS

METHODS = ("clipcov", "clip_score", "c_rho", "semdedup", "metaclip", "random")
GROUPS = ("1_crawls", "2_pool", "3_rankings", "4_subsets", "5_checkpoints", "6_scorecards", "7_exports")
SINGLE = (
    "raw_pairs",
    "proxy_checkpoint",
    "embeddings",
    "latent_classes",
    "pool",
    "clipcov_class_ranking",
    "partial_checkpoint",
    "comparison",
)


@pytest.fixture(scope="module")
def specs():
    return {spec.key.to_user_string(): spec for spec in defs().resolve_all_asset_specs()}


def test_the_graph_has_exactly_the_assets_of_the_road(specs):
    ranked = {f"{method}_ranking" for method in METHODS}
    nouns = ("subset", "export", "checkpoint", "scorecard")
    of_subsets = {f"{method}_{noun}" for method in (*METHODS, "full") for noun in nouns}
    assert set(specs) == {*SINGLE, *ranked, *of_subsets}


def test_the_definitions_are_loadable():
    dg.Definitions.validate_loadable(defs())


@pytest.mark.parametrize("scale", ["demo", "demo_table3", "cc3m", "cc3m_table2", "cc12m"])
def test_every_scale_loads(scale):
    program = (
        "import dagster as dg; from clipcov_assets.definitions import defs; dg.Definitions.validate_loadable(defs())"
    )
    environment = {**os.environ, "CLIPCOV_SCALE": scale}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_every_asset_tells_its_reader_what_it_is(specs):
    for name, spec in specs.items():
        assert len(spec.description or "") > 60, name
        assert spec.owners, name
        assert spec.kinds, name
        assert spec.code_version, name
        assert spec.group_name in GROUPS, name
        assert "clipcov/stage" in spec.tags, name
        # An export is made when a person asks for it, all else by itself.
        assert (spec.automation_condition is None) is name.endswith("_export"), name
        if name != "proxy_checkpoint":
            assert spec.partitions_def is not None, name


def test_groups_follow_the_road_and_never_point_back(specs):
    for name, spec in specs.items():
        for dep in spec.deps:
            before = specs[dep.asset_key.to_user_string()]
            assert before.group_name <= spec.group_name, f"{before.key} -> {name}"


def test_every_method_has_its_own_inputs(specs):
    def inputs(name):
        return {dep.asset_key.to_user_string() for dep in specs[name].deps}

    assert inputs("random_ranking") == {"pool"}
    assert inputs("metaclip_ranking") == {"pool", "raw_pairs"}
    assert inputs("c_rho_ranking") == {"pool", "raw_pairs", "partial_checkpoint"}
    assert inputs("clipcov_ranking") == {"clipcov_class_ranking"}
    assert inputs("full_subset") == {"pool"}


def test_the_checks_that_guard_the_next_step_block_it():
    checks = {
        (key.asset_key.to_user_string(), key.name): check.get_spec_for_check_key(key).blocking
        for check in defs().asset_checks or []
        for key in check.check_keys
    }
    assert checks["embeddings", "unit_and_finite"]
    assert checks["pool", "unique_pool_uids"]
    assert checks["clipcov_subset", "head_of_its_ranking"]
    assert checks["full_checkpoint", "finite_losses"]
    assert not checks["clipcov_scorecard", "above_chance"]


def test_a_pool_takes_in_no_crawl_of_which_a_blocking_check_failed():
    blocking = {}
    for check in defs().asset_checks or []:
        for key in check.check_keys:
            asset = key.asset_key.to_user_string()
            if asset in ("raw_pairs", "embeddings", "latent_classes") and check.get_spec_for_check_key(key).blocking:
                blocking.setdefault(asset, set()).add(key.name)
    assert {asset: set(names) for asset, names in CRAWL_CHECKS.items()} == blocking


def test_loading_the_graph_imports_no_heavy_library():
    program = (
        "import sys; from clipcov_assets.definitions import defs; defs();"
        "print([m for m in ('torch', 'open_clip', 'lancedb', 'mlflow', 'matplotlib', 'faiss') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "Warning" not in done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [("CLIPCOV_COMPUTE", "slurm", "Input should be 'local' or 'ray'"), ("CLIPCOV_RAY_CPUS", "two", "a valid number")],
)
def test_a_setting_that_says_nothing_is_named(monkeypatch, variable, value, words):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=f"{variable} is '{value}': .*{words}"):
        resources()


def test_what_is_dear_is_done_here_unless_a_cluster_is_named(monkeypatch):
    assert not resources()["compute"].on_cluster
    monkeypatch.setenv("CLIPCOV_COMPUTE", "ray")
    monkeypatch.setenv("CLIPCOV_RAY_GPUS", "0.5")
    compute = resources()["compute"]
    assert (compute.on_cluster, compute.ray_address, compute.ray_gpus) == (True, "", 0.5)
