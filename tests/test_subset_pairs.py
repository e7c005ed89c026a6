import numpy as np
import pytest

from clipcov_assets import subset_pairs
from clipcov_assets.subset_pairs import SubsetPairs
from tests.subsets import ASSET, PARTITION, raw_pair, two_crawls, write_crawl, write_subset

COLUMNS = ["uid", "caption", "image"]


@pytest.fixture
def pairs(tmp_path):
    return SubsetPairs(two_crawls(tmp_path), ASSET, PARTITION)


@pytest.mark.parametrize("run_pairs", [1, 4, 100])
def test_runs_give_the_pairs_of_several_crawls_in_the_order_asked_for(pairs, monkeypatch, run_pairs):
    monkeypatch.setattr(subset_pairs, "RUN_PAIRS", run_pairs)
    places = np.random.default_rng(0).permutation(15)
    found = [row for run in pairs.stream(places, COLUMNS) for row in run.to_pylist()]
    wanted = [raw_pair(int(uid, 16)) for uid in pairs.rows["uid"].take(places).to_pylist()]
    assert found == [{name: row[name] for name in COLUMNS} for row in wanted]


def test_large_images_are_read_a_few_at_a_time(pairs, monkeypatch):
    largest = max(pairs.rows["bytes"].to_pylist())
    monkeypatch.setattr(subset_pairs, "RUN_BYTES", 3 * largest)
    runs = list(pairs.stream(np.arange(15), ["image"]))
    sizes = [sum(len(image) for image in run["image"].to_pylist()) for run in runs]
    assert max(sizes) <= 3 * largest
    assert len(runs) > 4
    monkeypatch.setattr(subset_pairs, "RUN_BYTES", 1)
    assert [len(run) for run in pairs.stream(np.arange(15), ["image"])] == [1] * 15
    assert [len(run) for run in pairs.stream(np.arange(15), ["caption"])] == [15]


def test_a_pair_that_two_crawls_deliver_is_that_of_the_older_one(pairs):
    shared = pairs.rows["uid"].to_pylist().index(f"{17:032x}")
    assert pairs.rows["crawl"][shared].as_py() == "crawl-1"


def test_the_pairs_are_those_that_the_pool_recorded_even_if_a_crawl_was_ingested_again(tmp_path):
    store = two_crawls(tmp_path)
    write_crawl(store, "crawl-1", [raw_pair(seed, caption="another") for seed in range(18)])
    (run,) = SubsetPairs(store, ASSET, PARTITION).stream(np.arange(15), ["caption"])
    assert "another" not in run["caption"].to_pylist()


def test_a_pair_without_an_image_has_no_bytes(tmp_path):
    row = raw_pair(0, image=None)
    rows = SubsetPairs(write_subset(tmp_path, {"crawl-2": [row]}, [row["uid"]]), ASSET, PARTITION).rows
    assert rows["bytes"].to_pylist() == [0]
    assert rows["content"].to_pylist() == [row["content"]]


def test_a_pair_that_is_not_in_the_pool_is_named(tmp_path):
    store = write_subset(tmp_path, {"crawl-2": [raw_pair(0)]}, ["0" * 32, "nobody"])
    with pytest.raises(ValueError, match="nobody"):
        SubsetPairs(store, ASSET, PARTITION)
