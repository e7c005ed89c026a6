"""The whole graph at a tiny scale: two crawls from deliveries to the comparison, nothing replaced."""

import html
import shutil

import dagster as dg
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from mlflow.tracking import MlflowClient

from clipcov_assets.assets.comparison import thinned
from clipcov_assets.core import METHODS
from clipcov_assets.demo import road
from clipcov_assets.export.escape import escape_markdown
from clipcov_assets.lineage import lineage_of
from clipcov_assets.partitions import FRACTIONS, fractions_of, of_crawl
from clipcov_assets.pool_tables import load_pool
from clipcov_assets.tables import CURVE
from tests.deliveries import deliver, evaluation_set, image, retrieval_set
from tests.world import Machine

CRAWLS = ("crawl-1", "crawl-2")
NUMBERS = (dg.IntMetadataValue, dg.FloatMetadataValue)
TO_SEE = (dg.TableMetadataValue, dg.MarkdownMetadataValue, dg.UrlMetadataValue)
# 60 pairs, one of them damaged; then 50 of which 10 are known already.
DELIVERED = {"crawl-1": range(60), "crawl-2": range(50, 100)}


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    home = tmp_path_factory.mktemp("world")
    deliver(home / "crawls/crawl-1", DELIVERED["crawl-1"], spoiled={7: image(7)[:50]})
    deliver(home / "crawls/crawl-2", DELIVERED["crawl-2"])
    evaluation_set(home / "eval/colours", range(200, 240))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("crawl", list(CRAWLS))
        machine = Machine(home, instance)
        for crawl in CRAWLS:
            for step in road(crawl):
                if step.assets != ("proxy_checkpoint",) or crawl == "crawl-1":
                    machine.materialize(*step.assets, partition=step.partition)
        yield machine


def uids(machine, asset, partition):
    return machine.store.read(asset, partition, ["uid"])["uid"].to_pylist()


def test_every_pair_is_stored_or_in_quarantine_with_its_reason(machine):
    assert machine.store.row_count("raw_pairs", "crawl-1") == 59
    (fault,) = machine.store.read("quarantine", "crawl-1").to_pylist()
    assert (fault["uid"], fault["reason"]) == (f"{7:032x}", "image_corrupt")
    assert machine.metadata("raw_pairs", "crawl-1")["quarantined/image_corrupt"] == 1


def test_the_second_pool_holds_the_first_crawl_too_joined_by_uid(machine):
    pool = machine.store.read("pool", "crawl-2")
    assert len(pool) == 99
    assert pc.count_distinct(pool["uid"]).as_py() == 99
    owners = dict(zip(pool["uid"].to_pylist(), pool["crawl"].to_pylist(), strict=True))
    assert owners[f"{55:032x}"] == "crawl-1"
    assert owners[f"{65:032x}"] == "crawl-2"
    assert machine.metadata("pool", "crawl-2")["already_known"] == 10


def test_embeddings_are_unit_rows_of_one_proxy(machine):
    proxy = machine.metadata("proxy_checkpoint")["sha256"]
    for crawl in CRAWLS:
        assert machine.store.metadata("embeddings", crawl)["proxy_sha256"] == proxy
        rows = np.stack(machine.store.read("embeddings", crawl)["image_embedding"].to_numpy())
        assert np.linalg.norm(rows.astype(np.float32), axis=1) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "full"])
@pytest.mark.parametrize("crawl", CRAWLS)
def test_a_subset_is_the_head_of_its_ranking(machine, method, crawl):
    ranking = machine.store.read(f"{method}_ranking", crawl).sort_by("rank")["uid"].to_pylist()
    assert sorted(ranking) == sorted(uids(machine, "pool", crawl))
    for key, fraction in FRACTIONS.items():
        subset = uids(machine, f"{method}_subset", of_crawl(crawl, key))
        assert subset == ranking[: int(fraction * len(ranking))]


def test_the_sharded_clipcov_ranking_equals_the_librarys(machine):
    pool = load_pool(machine.store, "crawl-2", METHODS["clipcov"].reads)
    ranked = METHODS["clipcov"](pool, len(pool))
    assert uids(machine, "clipcov_ranking", "crawl-2") == pool.uid[ranked.order].tolist()


def test_a_subset_reports_what_it_keeps_and_what_changed(machine):
    found = machine.metadata("clipcov_subset", "crawl-2|f50")
    assert found["pairs"] == 49
    assert found["cross_covariance_error"] > 0
    assert 0 <= found["overlap/random"] <= 1
    assert found["kept"] + found["added"] == 49
    before = machine.metadata("clipcov_subset", "crawl-1|f50")["pairs"]
    assert found["previous_crawl"] == "crawl-1"
    assert found["kept"] + found["dropped"] == before
    assert found["kept_share"] == pytest.approx(found["kept"] / before, rel=1e-3)
    whole = machine.metadata("full_subset", "crawl-2|f100")
    assert whole["cross_covariance_error"] == pytest.approx(0, abs=1e-6)
    assert whole["class_coverage"] == 1


def test_a_ranking_keeps_the_reasons_for_its_picks(machine):
    rows = machine.store.read("semdedup_ranking", "crawl-2").sort_by("rank").to_pylist()
    seen = {row["uid"] for row in rows}
    assert all((row["partner"] is None) is (row["gain"] == 0) for row in rows)
    assert all(row["partner"] in seen for row in rows if row["partner"])
    curve = machine.metadata("semdedup_ranking", "crawl-2")["epsilon_curve"]
    assert [row["kept"] for row in curve] == [sum(row["gain"] >= one["epsilon"] - 1 for row in rows) for one in curve]
    pairs = machine.store.read("raw_pairs", "crawl-1", ["uid", "caption"]).to_pylist()
    captions = {row["uid"]: row["caption"] for row in pairs}
    for row in machine.store.read("metaclip_ranking", "crawl-1").to_pylist():
        assert row["entry"] is None or row["entry"] in captions[row["uid"]]


def test_a_subset_reports_the_threshold_that_it_implies(machine):
    last = machine.store.read("semdedup_subset", "crawl-2|f50").sort_by("rank")["gain"][-1].as_py()
    assert machine.metadata("semdedup_subset", "crawl-2|f50")["implied_epsilon"] == pytest.approx(1 + last)
    assert machine.metadata("metaclip_subset", "crawl-2|f50")["implied_t"] > 0
    assert "implied_epsilon" not in machine.metadata("random_subset", "crawl-2|f50")


def test_every_scorecard_covers_every_image_of_every_set(machine):
    for method in METHODS:
        for key in fractions_of(method):
            partition = of_crawl("crawl-2", key)
            predictions = machine.store.read(f"{method}_scorecard", partition)
            assert len(predictions) == 40
            scores = {row["metric"]: row for row in machine.store.read(f"{method}_scores", partition).to_pylist()}
            hits = sum(row["label"] == row["predicted"] for row in predictions.to_pylist())
            assert scores["acc1"]["value"] == pytest.approx(hits / 40)
            assert scores["acc1"]["low"] <= scores["acc1"]["value"] <= scores["acc1"]["high"]
            assert scores["acc1"]["chance"] == 0.25


@pytest.fixture(scope="module")
def runs(machine):
    client = MlflowClient(machine.resources["tracker"].tracking_uri)
    (experiment,) = [one for one in client.search_experiments() if one.name == "clipcov-assets"]
    return client.search_runs([experiment.experiment_id], max_results=1000)


def test_mlflow_has_one_finished_run_for_each_checkpoint(machine, runs):
    client = MlflowClient(machine.resources["tracker"].tracking_uri)
    trained = [run for run in runs if "clipcov.seed" in run.data.tags]
    partitions = [(run.data.tags["dagster.asset"], run.data.tags.get("dagster.partition")) for run in trained]
    expected = 1 + len(CRAWLS) * (1 + sum(len(fractions_of(method)) for method in METHODS))
    assert len(partitions) == len(set(partitions)) == expected
    assert {run.info.status for run in runs} == {"FINISHED"}
    scored = [
        run
        for run in trained
        if run.data.tags.get("clipcov.method") == "clipcov" and "colours/acc1" in run.data.metrics
    ]
    assert len(scored) == len(CRAWLS) * len(FRACTIONS)
    for run in scored:
        curve = client.get_metric_history(run.info.run_id, "loss")
        assert curve[-1].step == run.data.metrics["samples_seen"]
        assert {"seed", "architecture", "batch_size", "epochs", "recipe_hash", "weights_sha256"} <= set(run.data.params)
        (dataset,) = run.inputs.dataset_inputs
        partition = run.data.tags["dagster.partition"]
        assert dataset.dataset.name == f"clipcov_subset/{partition}"
        assert dataset.dataset.digest == machine.data_version("clipcov_subset", partition)
        assert [one.path for one in client.list_artifacts(run.info.run_id)] == ["checkpoint", "scorecard"]


def test_the_runs_of_a_method_and_crawl_stand_under_one_parent(runs):
    names = {run.info.run_id: run.info.run_name for run in runs}
    for run in runs:
        tags = run.data.tags
        if tags.get("clipcov.method") == "clipcov" and "clipcov.seed" in tags:
            assert names[tags["mlflow.parentRunId"]] == f"{tags['clipcov.crawl']} clipcov"
    assert sum(name == "crawl-2 clipcov" for name in names.values()) == 1
    assert sum(name == "crawl-2 comparison" for name in names.values()) == 1


def test_a_scorecard_tells_under_which_conditions_its_models_were_trained(machine):
    found = machine.metadata("clipcov_scorecard", "crawl-2|f50")
    (training,) = machine.store.read("clipcov_trainings", "crawl-2|f50").to_pylist()
    for name in ("samples_seen", "warmup_share", "max_learning_rate"):
        assert found[name] == pytest.approx(training[name], rel=1e-3)
    assert training["warmup_share"] == 0.1
    assert (training["pairs"], training["devices"], training["device"]) == (49, 1, "cpu")


def test_an_average_that_papers_report_stays_empty_and_says_which_sets_are_missing(machine):
    rows = {row["group"]: row for row in machine.store.read("clipcov_groups", "crawl-2|f50").to_pylist()}
    assert rows["shift5"]["value"] is None
    assert "ImageNet-V2" in rows["shift5"]["reason"]


def test_the_comparison_holds_every_method_and_fraction(machine):
    rows = machine.store.read("comparison", "crawl-2").to_pylist()
    compared = {(row["method"], row["fraction"]) for row in rows}
    assert compared == {(method, fraction) for method in METHODS for fraction in fractions_of(method).values()}
    metadata = machine.metadata("comparison", "crawl-2")
    assert metadata["scorecards_missing"] == 0
    assert "\n\n### Accuracy against subset size\n\n![" in metadata["comparison"]
    assert metadata["comparison"].count("](data:image/png;base64,") == 5


def test_the_comparison_opens_with_what_it_says_in_words(machine):
    metadata = machine.metadata("comparison", "crawl-2")
    said = metadata["in_words"]
    assert said.startswith(("ClipCov at ", "No size of ClipCov "))
    assert said.endswith(f"Scorecards missing: none of {metadata['scorecards']}.")
    assert metadata["comparison"].startswith(escape_markdown(said))
    sections = (machine.home / "reports/comparisons/crawl-2.html").read_text().split("<section")
    assert html.escape(said) in next(section for section in sections if "<h2>crawl-2</h2>" in section)
    assert metadata["report"] == "http://127.0.0.1:3001/comparisons/crawl-2.html"
    assert metadata["accuracy_curves"] == "http://127.0.0.1:3001/comparisons/crawl-2/accuracy_curves.png"


def test_the_comparison_leads_to_every_subset_gallery_scorecard_and_run(machine):
    text = machine.metadata("comparison", "crawl-2")["comparison"]
    for method in METHODS:
        for fraction in fractions_of(method):
            partition = f"crawl-2%7C{fraction}"
            for noun in ("subset", "scorecard"):
                assert f"/assets/{method}_{noun}?view=partitions&partition={partition})" in text
            gallery = f"galleries/crawl-2/{fraction}/{method}_subset.html"
            assert f"[gallery](http://127.0.0.1:3001/{gallery})" in text
            assert (machine.home / "reports" / gallery).is_file()
            for training in machine.store.read(f"{method}_trainings", of_crawl("crawl-2", fraction)).to_pylist():
                assert f"[seed 0](http://127.0.0.1:5000/#/runs/{training['mlflow_run_id']})" in text


def test_clipcov_is_compared_with_every_other_method_image_by_image(machine):
    rows = machine.store.read("differences", "crawl-2").to_pylist()
    others = set(METHODS) - {"clipcov", "full"}
    assert {(row["other"], row["fraction"]) for row in rows} == {
        (other, fraction) for other in others for fraction in fractions_of("clipcov").values()
    }
    scores = {
        (row["method"], row["fraction"], row["evaluation_set"]): row["value"]
        for row in machine.store.read("comparison", "crawl-2").to_pylist()
        if row["metric"] == "acc1"
    }
    for row in rows:
        ours, theirs = (scores[method, row["fraction"], row["evaluation_set"]] for method in ("clipcov", row["other"]))
        assert row["difference"] == pytest.approx(ours - theirs)
        assert row["adjusted_p_value"] >= row["p_value"]
    assert "clipcov against random" in machine.metadata("comparison", "crawl-2")["differences"]


def test_every_derived_partition_says_where_it_came_from(machine):
    (record,) = machine.metadata("clipcov_subset", "crawl-2|f50")["provenance"]
    assert (record["asset"], record["partition"]) == ("clipcov_ranking", "crawl-2")
    assert record["data_version"] == machine.data_version("clipcov_ranking", "crawl-2")
    assert record["lance_version"] == str(machine.store.version("clipcov_ranking", "crawl-2"))


def test_a_scorecard_is_followed_back_to_both_crawls_of_its_pool(machine):
    lineage = lineage_of(machine.instance, machine.store, "clipcov_scorecard", "crawl-2|f50")
    assert lineage.faults == []
    followed = {
        place.partition for place, node in lineage.nodes.items() if place.asset == "latent_classes" and node.run
    }
    assert followed == set(CRAWLS)
    assert machine.metadata("clipcov_scorecard", "crawl-2|f50")["lineage_faults"] == 0


def test_materializing_again_gives_the_same_bytes(machine):
    for asset, partition in (
        ("raw_pairs", "crawl-1"),
        ("embeddings", "crawl-1"),
        ("pool", "crawl-2"),
        ("semdedup_ranking", "crawl-2"),
        ("clipcov_subset", "crawl-2|f20"),
        ("clipcov_checkpoint", "crawl-2|f20"),
        ("clipcov_scorecard", "crawl-2|f20"),
    ):
        before = machine.data_version(asset, partition)
        machine.materialize(asset, partition=partition)
        assert machine.data_version(asset, partition) == before, asset


def test_several_seeds_of_a_partition_are_one_setting_away_and_their_spread_is_told(machine):
    partition = of_crawl("crawl-1", "f20")
    (before,) = machine.store.read("random_trainings", partition).to_pylist()
    machine.materialize("random_checkpoint", partition=partition, config={"random_checkpoint": {"seeds": [0, 7]}})
    trainings = machine.store.read("random_trainings", partition).to_pylist()
    assert [one["seed"] for one in trainings] == [0, 7]
    assert trainings[0]["sha256"] == before["sha256"] != trainings[1]["sha256"]
    machine.materialize("random_scorecard", partition=partition)
    hits = (
        pl.DataFrame(machine.store.read("random_scorecard", partition))
        .group_by("seed")
        .agg(acc1=(pl.col("rank_of_label") == 0).mean())
    )
    (acc1,) = [row for row in machine.store.read("random_scores", partition).to_pylist() if row["metric"] == "acc1"]
    assert acc1["seeds"] == 2
    assert acc1["value"] == pytest.approx(hits["acc1"].mean())
    assert acc1["seed_deviation"] == pytest.approx(hits["acc1"].std())
    machine.materialize("comparison", partition="crawl-1")
    assert "seeds" in machine.metadata("comparison", "crawl-1")["comparison"]


def test_a_retrieval_set_is_scored_beside_the_others(machine):
    partition, folder = of_crawl("crawl-1", "f20"), machine.home / "eval/captions"
    retrieval_set(folder, range(300, 312))
    machine.materialize("random_scorecard", partition=partition)
    shutil.rmtree(folder)
    rows = {
        row["metric"]: row
        for row in machine.store.read("random_scores", partition).to_pylist()
        if row["evaluation_set"] == "captions"
    }
    assert set(rows) == {
        "mean_recall_at_1",
        *(f"{side}_recall_at_{k}" for side in ("text", "image") for k in (1, 5, 10)),
    }
    assert [name for name, row in rows.items() if row["is_main"]] == ["mean_recall_at_1"]
    assert rows["image_recall_at_1"]["chance"] == pytest.approx(1 / 12)


def shown(machine, asset):
    """The metadata of the newest materialization of an asset, whatever the partition."""
    wanted = dg.AssetRecordsFilter(dg.AssetKey(asset))
    return machine.instance.fetch_materializations(wanted, limit=1).records[0].asset_materialization.metadata


@pytest.fixture(scope="module")
def made(machine):
    return [key.to_user_string() for key in machine.instance.all_asset_keys()]


def test_every_asset_shows_a_number_that_plots_and_something_to_look_at_or_to_follow(machine, made):
    assert len(made) > 30
    for asset in set(made) - {"proxy_checkpoint"}:
        values = shown(machine, asset).items()
        assert any(isinstance(value, NUMBERS) for name, value in values if not name.startswith("dagster/")), asset
        assert any(isinstance(value, TO_SEE) for name, value in values if name != "provenance"), asset


def test_no_number_is_shown_with_more_digits_than_people_read(machine, made):
    raw = {
        (asset, name)
        for asset in set(made) - {"pool", "proxy_checkpoint"}
        for name, value in shown(machine, asset).items()
        # An implied threshold is for use with a method's own program, and must give the same subset there.
        if isinstance(value, dg.FloatMetadataValue)
        and not name.startswith("implied_")
        and value.value != float(f"{value.value:.8g}")
    }
    assert raw == set()


def test_pictures_in_metadata_are_few_and_small(machine, made):
    for asset in set(made) - {"comparison"}:  # its charts are what it is for
        for name, value in shown(machine, asset).items():
            if isinstance(value, dg.MarkdownMetadataValue):
                assert value.value.count("](data:image") <= 8, f"{asset}: {name}"
                assert len(value.value) < 60_000, f"{asset}: {name}"


def rows_shown(gallery):
    """The lines of a gallery in Markdown as people read them."""
    return [html.unescape(line) for line in gallery.splitlines()[2:]]


def test_embeddings_show_the_pairs_of_both_ends_of_their_scores(machine):
    scores = sorted(machine.store.read("embeddings", "crawl-1", ["clip_score"])["clip_score"].to_pylist())
    metadata = machine.metadata("embeddings", "crawl-1")
    for end, expected in (("lowest", scores[:4]), ("highest", scores[:-5:-1])):
        lines = rows_shown(metadata[f"{end}_scored_pairs"])
        assert len(lines) == 4
        for line, score in zip(lines, expected, strict=True):
            assert f"| {score:.3f}: picture of class " in line
        assert metadata[f"{end}_clip_score"] == pytest.approx(expected[0], rel=1e-3)


def test_latent_classes_show_the_pairs_that_they_are_least_sure_of(machine):
    rows = machine.store.read("latent_classes", "crawl-1", ["uid", "margin", "latent_class"]).sort_by("margin")
    names = machine.store.read("class_embeddings", "crawl-1").to_pylist()
    name_of = {row["latent_class"]: row["name"] for row in names}
    lines = rows_shown(machine.metadata("latent_classes", "crawl-1")["least_sure_pairs"])
    assert len(lines) == 8
    (least,) = rows.slice(0, 1).to_pylist()
    assert f"| {name_of[least['latent_class']]}, by {least['margin']:.4f}: picture of class " in lines[0]


def test_a_ranking_shows_its_first_picks_and_says_why_the_first_is_the_first(machine):
    first = machine.store.read("clipcov_ranking", "crawl-2").sort_by("rank").slice(0, 8).to_pylist()
    captions = {
        row["uid"]: row["caption"]
        for crawl in CRAWLS
        for row in machine.store.read("raw_pairs", crawl, ["uid", "caption"]).to_pylist()
    }
    metadata = machine.metadata("clipcov_ranking", "crawl-2")
    lines = rows_shown(metadata["first_picks"])
    assert [f": {captions[row['uid']]} |" in line for row, line in zip(first, lines, strict=True)] == [True] * 8
    assert metadata["why_the_first"].endswith(f"/pair?uid={first[0]['uid']}&method=clipcov&crawl=crawl-2")


def test_a_class_ranking_shows_how_gains_fall_inside_its_classes(machine):
    found = machine.metadata("clipcov_class_ranking", of_crawl("crawl-2", "s00"))
    assert sum(row["pairs"] for row in found["largest_classes"]) == found["pairs"]
    assert all(row["first_gain"] >= row["last_gain"] for row in found["largest_classes"])


def test_a_long_learning_curve_is_thinned_seed_by_seed_and_keeps_its_ends():
    steps = np.tile(np.arange(1, 2001) * 64, 2)
    numbers = {name: np.linspace(2, 1, 4000) for name in ("loss", "learning_rate", "samples_per_second")}
    curve = pa.table({"seed": np.repeat([0, 7], 2000), "samples_seen": steps, **numbers}, schema=CURVE)
    for seed, rows in pl.DataFrame(thinned(curve)).group_by("seed", maintain_order=True):
        assert len(rows) == rows["samples_seen"].n_unique() == 500, seed
        assert (rows["samples_seen"][0], rows["samples_seen"][-1]) == (64, 128_000)
        assert rows["samples_seen"].is_sorted()
        assert rows["samples_seen"].diff().max() <= 5 * 64
    assert thinned(curve.slice(0, 300)).equals(curve.slice(0, 300))
    assert thinned(curve.slice(0, 0)).num_rows == 0
