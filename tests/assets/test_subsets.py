"""What Dagster shows of a subset, with the pool, the rankings and the crawls that it was made from."""

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from clipcov_assets.assets.pool import JoinedCrawls
from clipcov_assets.assets.subsets import describe_subset, subset_asset
from clipcov_assets.tables import RANKING
from resources.lance_store import LanceStore
from resources.report_shelf import ReportShelf
from tests.ranked_pool import CLASSES, rank, uid_of, write_crawl

CRAWLS = ("crawl-1", "crawl-2", "crawl-3")
DELIVERED = {"crawl-1": range(20), "crawl-2": range(20, 30), "crawl-3": range(30, 40)}


def pool_of(store, *crawls):
    JoinedCrawls(store, list(crawls)).write(store, crawls[-1])


def write_picks(store, crawl, pairs, *, asset="random_subset"):
    """Store a subset of f50: the pairs in the order of their ranks."""
    return store.write(asset, f"{crawl}|f50", picks(pairs))


def picks(pairs):
    columns = {
        "uid": [uid_of(pair) for pair in pairs],
        "rank": range(len(pairs)),
        "gain": np.linspace(1, 0, len(pairs)),
    }
    return pa.table(columns).cast(RANKING)


def describe(store, pairs, *, method="random"):
    return describe_subset(store, method, "crawl-3", "f50", picks(pairs))


def churn_of(found):
    return {record.data["latent_class"]: record.data for record in found["churn"].records}


@pytest.fixture
def store(tmp_path):
    """Three crawls of 20, 10 and 10 pairs, pair i of class i % 3; the first and the last have a pool."""
    store = LanceStore(uri=str(tmp_path / "lance"))
    for crawl, pairs in DELIVERED.items():
        write_crawl(store, crawl, pairs)
    pool_of(store, "crawl-1")
    pool_of(store, *CRAWLS)
    return store


def test_the_first_subset_of_its_kind_has_no_churn(store):
    assert not {"previous_crawl", "kept", "churn"} & describe(store, range(20)).keys()


def test_a_subset_is_compared_with_the_newest_earlier_crawl_that_has_it(store):
    write_picks(store, "crawl-1", range(10))
    found = describe(store, range(5, 25))
    assert found["previous_crawl"] == "crawl-1"
    assert (found["kept"], found["added"], found["dropped"]) == (5, 15, 5)
    assert (found["kept_share"], found["jaccard"]) == (0.5, 0.2)
    write_picks(store, "crawl-2", range(5, 15))
    found = describe(store, range(5, 25))
    assert (found["previous_crawl"], found["kept_share"]) == ("crawl-2", 1)


def test_a_later_crawl_another_fraction_and_another_method_are_no_earlier_subset(store):
    write_picks(store, "crawl-3", range(10))
    write_picks(store, "crawl-1", range(10), asset="clipcov_subset")
    store.write("random_subset", "crawl-1|f20", picks(range(4)))
    assert "previous_crawl" not in describe(store, range(20))


def test_change_is_told_class_by_class_those_with_most_of_it_first(store):
    write_picks(store, "crawl-1", [0, 3, 6, 1, 4])
    found = describe(store, [0, 1, 4, 7, 2])
    # Cats are pairs 0, 3, 6, dogs 1, 4, 7, and cows 2.
    rows = [tuple(record.data.values()) for record in found["churn"].records]
    assert rows == [("cats", 3, 1, 1, 0, 2), ("dogs", 2, 3, 2, 1, 0), ("<b>cows</b>", 0, 1, 0, 1, 0)]
    assert [column.name for column in found["churn"].schema.columns] == list(found["churn"].records[0].data)


def test_a_pair_is_dropped_because_it_fell_below_the_cut_or_because_its_crawl_was_withdrawn(store):
    pool_of(store, "crawl-1", "crawl-2")
    write_picks(store, "crawl-2", [0, 1, 20, 21, 22])
    # Pairs 20 to 29 are delivered no more.
    write_crawl(store, "crawl-2", range(20))
    pool_of(store, *CRAWLS)
    found = describe(store, [0, 30, 31])
    assert (found["dropped"], found["dropped/below_the_cut"], found["dropped/withdrawn"]) == (4, 1, 3)
    assert {name: row["dropped"] for name, row in churn_of(found).items()} == {"cats": 1, "dogs": 2, "<b>cows</b>": 1}


def test_withdrawn_pairs_whose_class_nobody_knows_any_more_are_counted_too(store):
    write_picks(store, "crawl-1", [0, 100, 101])
    found = describe(store, [0, 3])
    assert found["dropped/withdrawn"] == 2
    assert (churn_of(found)["unknown"]["before"], churn_of(found)["unknown"]["dropped"]) == (2, 2)
    write_picks(store, "crawl-2", [0, 100, 101])  # there is no pool of crawl-2
    assert churn_of(describe(store, [0, 3]))["unknown"]["dropped"] == 2


def test_a_subset_that_is_no_head_of_a_ranking_is_described_too(store):
    rank(store, "random", "crawl-3")
    found = describe(store, range(0, 40, 4), method="common_to_both")
    assert (found["pairs"], found["latent_classes_covered"]) == (10, len(CLASSES))
    assert 0 <= found["overlap/random"] <= 1
    assert not [name for name in found if name.startswith("implied_")]
    write_picks(store, "crawl-1", range(5), asset="common_to_both_subset")
    assert describe(store, range(0, 40, 4), method="common_to_both")["kept"] == 2


def test_a_pair_that_is_not_in_the_pool_is_named(store):
    with pytest.raises(ValueError, match=f"pair {uid_of(77)} of the pool is not in the pool of crawl-3"):
        describe(store, [0, 77])


@pytest.fixture
def materialize(store, tmp_path):
    """Materialize the subset of random at f50 of crawl-3."""
    rank(store, "random", "crawl-3")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("crawl", list(CRAWLS))
        instance.report_runless_asset_event(dg.AssetMaterialization("random_ranking", partition="crawl-3"))

        def run():
            result = dg.materialize(
                [subset_asset("random")],
                partition_key="crawl-3|f50",
                instance=instance,
                resources={"store": store, "shelf": ReportShelf(directory=str(tmp_path / "reports"))},
            )
            (done,) = result.asset_materializations_for_node("random_subset")
            return result, done.metadata

        yield run


def test_a_subset_links_to_its_gallery(materialize, tmp_path):
    _, metadata = materialize()
    assert metadata["pairs"].value == 20
    assert metadata["gallery"].value == "http://127.0.0.1:3001/galleries/crawl-3/f50/random_subset.html"
    page = (tmp_path / "reports/galleries/crawl-3/f50/random_subset.html").read_text()
    assert "picture of class" in page


def test_a_gallery_that_cannot_be_made_costs_a_warning_and_not_the_subset(materialize, store, tmp_path, capfd):
    (tmp_path / "reports").write_text("a file where the shelf should be")
    result, metadata = materialize()
    assert result.success
    assert "gallery" not in metadata
    assert store.row_count("random_subset", "crawl-3|f50") == 20
    assert "no gallery of random_subset crawl-3|f50: " in capfd.readouterr().err
