"""What Dagster shows of the drift of a pool, from tables that the project's own functions wrote."""

import math
import shutil

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from clipcov_assets.assets.pool import JoinedCrawls
from clipcov_assets.core.covariance import cross_products
from clipcov_assets.core.drift import Drift, PoolSums
from clipcov_assets.core.statistics import sums_by_class
from clipcov_assets.drifts import drift_metadata
from clipcov_assets.pool_tables import CLASS_EMBEDDINGS, list_column, statistics_rows
from clipcov_assets.tables import class_embeddings_schema
from resources.lance_store import LanceStore
from tests.ranked_pool import CLASSES, IMAGES, NAMES, TEXTS, WIDTH, write_crawl

DELIVERED = {"crawl-1": range(40), "crawl-2": range(20), "crawl-3": range(30, 90, 2)}
NUMBERS = ("class_shares", "image_centres", "text_centres", "cross_covariance")


def pool_until(store, crawl):
    JoinedCrawls(store, [one for one in DELIVERED if one <= crawl]).write(store, crawl)


def sums_of(pairs):
    """The sums of some pairs, straight from their embeddings."""
    number = np.array(pairs)
    image, text = IMAGES[number], TEXTS[number]
    return PoolSums(sums_by_class(image, text, number % len(CLASSES), len(CLASSES)), cross_products(image, text))


def set_proxy(store, crawl, proxy):
    store.write("latent_classes", crawl, store.read("latent_classes", crawl), {"proxy_sha256": proxy})


@pytest.fixture
def store(tmp_path):
    """Three crawls, of which the second brings nothing new, and the pools as of the first and the third."""
    store = LanceStore(uri=str(tmp_path))
    for crawl, pairs in DELIVERED.items():
        write_crawl(store, crawl, pairs)
    pool_until(store, "crawl-1")
    pool_until(store, "crawl-3")
    return store


def test_the_first_pool_has_nothing_to_be_compared_with(store):
    assert drift_metadata(store, "crawl-1") == {}


def test_a_pool_is_compared_with_the_newest_earlier_one_that_is_there(store):
    found = drift_metadata(store, "crawl-3")
    assert found["drift/previous_crawl"] == "crawl-1"
    drift = Drift(sums_of(range(40)), sums_of([*range(40), *range(40, 90, 2)]))
    for name in NUMBERS:
        assert found[f"drift/{name}"] == pytest.approx(getattr(drift, name), rel=1e-3)
    pool_until(store, "crawl-2")
    assert drift_metadata(store, "crawl-3")["drift/previous_crawl"] == "crawl-2"


def test_the_new_pairs_alone_are_compared_with_the_pool_before(store):
    found = drift_metadata(store, "crawl-3")
    drift = Drift(sums_of(range(40)), sums_of(range(40, 90, 2)))
    for name in NUMBERS:
        assert found[f"new_crawl/{name}"] == pytest.approx(getattr(drift, name), rel=1e-3)
        assert found[f"new_crawl/{name}"] >= found[f"drift/{name}"]


def test_a_crawl_without_new_pairs_changes_nothing_and_is_not_foreign(store):
    pool_until(store, "crawl-2")
    found = drift_metadata(store, "crawl-2")
    assert [found[f"drift/{name}"] for name in NUMBERS] == [0] * 4
    assert found["new_crawl/remark"] == "not compared: the pool as of crawl-1 holds all of its pairs"
    assert "new_crawl/class_shares" not in found
    assert found["drift/moved_most"] == "none"


def test_the_classes_that_gained_and_lost_are_listed_by_name(store):
    found = drift_metadata(store, "crawl-3")["drift/classes"]
    assert isinstance(found, dg.TableMetadataValue)
    rows = [record.data for record in found.records]
    counts = {row["latent_class"]: (row["pairs_before"], row["pairs"]) for row in rows}
    assert counts == {"cats": (14, 22), "dogs": (13, 22), "<b>cows</b>": (13, 21)}
    changes = [row["share_change"] for row in rows]
    assert changes == sorted((one for one in changes if one > 0), reverse=True) + sorted(
        one for one in changes if one < 0
    )
    assert sum(changes) == pytest.approx(0, abs=1e-4)
    for row in rows:
        assert row["share_change"] == pytest.approx(row["share"] - row["share_before"], abs=1e-4)
        assert 0 < row["image_distance"] < 2


def test_a_class_that_a_side_lacks_has_no_distance(tmp_path):
    store = LanceStore(uri=str(tmp_path))
    write_crawl(store, "crawl-1", range(0, 30, 3))
    write_crawl(store, "crawl-2", range(10))
    for crawls in (["crawl-1"], ["crawl-1", "crawl-2"]):
        JoinedCrawls(store, crawls).write(store, crawls[-1])
    rows = {one.data["latent_class"]: one.data for one in drift_metadata(store, "crawl-2")["drift/classes"].records}
    assert (rows["dogs"]["pairs_before"], rows["dogs"]["image_distance"]) == (0, None)
    assert rows["cats"]["image_distance"] == 0
    assert drift_metadata(store, "crawl-2")["new_crawl/class_shares"] == 1
    assert "new_crawl/image_centres" not in drift_metadata(store, "crawl-2")


def test_every_number_can_be_plotted(tmp_path):
    store = LanceStore(uri=str(tmp_path))
    write_crawl(store, "crawl-1", range(1))
    write_crawl(store, "crawl-2", range(20))
    for crawls in (["crawl-1"], ["crawl-1", "crawl-2"]):
        JoinedCrawls(store, crawls).write(store, crawls[-1])
    found = drift_metadata(store, "crawl-2")
    assert "drift/cross_covariance" not in found  # one pair does not vary, and anything is infinitely far from that
    numbers = [value for value in found.values() if isinstance(value, int | float)]
    assert numbers
    assert all(math.isfinite(number) for number in numbers)


def test_pools_of_two_proxies_are_not_compared_even_where_the_earlier_one_is_not_made_again_yet(store):
    for crawl in DELIVERED:
        set_proxy(store, crawl, "a" * 64)
    for crawl in ("crawl-1", "crawl-3"):
        pool_until(store, crawl)
    assert "drift/class_shares" in drift_metadata(store, "crawl-3")
    for crawl in DELIVERED:
        set_proxy(store, crawl, "b" * 64)
    pool_until(store, "crawl-3")
    found = drift_metadata(store, "crawl-3")
    assert set(found) == {"drift/previous_crawl", "drift/remark"}
    assert (
        "crawl-1 is embedded by proxy aaaaaaaaaaaa of width 6, this one by proxy bbbbbbbbbbbb" in found["drift/remark"]
    )


def test_pools_of_two_widths_are_not_compared(store):
    store.write(
        "pool_statistics", "crawl-1", statistics_rows(sums_by_class(*[np.ones((1, 4))] * 2, np.zeros(1, int), 3))
    )
    assert "of width 4, this one by" in drift_metadata(store, "crawl-3")["drift/remark"]


def test_pools_of_other_latent_classes_are_not_compared(store):
    rows = sums_by_class(*[np.ones((1, WIDTH))] * 2, np.zeros(1, int), 2)
    names = pa.array(range(2), pa.int32()), ["birds", "dogs"], list_column(NAMES[:2])
    store.write("pool_statistics", "crawl-1", statistics_rows(rows))
    store.write(CLASS_EMBEDDINGS, "crawl-1", pa.table(names, schema=class_embeddings_schema(WIDTH)))
    found = drift_metadata(store, "crawl-3")
    assert set(found) == {"drift/previous_crawl", "drift/remark"}
    assert "the pool as of crawl-1 has 2 latent classes, this one 3" in found["drift/remark"]


def test_new_pairs_are_not_told_apart_where_an_earlier_crawl_was_made_again(store):
    write_crawl(store, "crawl-1", range(10, 40))
    pool_until(store, "crawl-3")
    found = drift_metadata(store, "crawl-3")
    assert found["drift/class_shares"] > 0
    assert "came, went or was made again" in found["new_crawl/remark"]
    assert "new_crawl/class_shares" not in found


def test_a_pool_before_that_is_half_there_is_remarked_and_stops_nothing(store, tmp_path):
    shutil.rmtree(tmp_path / "pool_cross_products.crawl-1.lance")
    found = drift_metadata(store, "crawl-3")
    assert "pool_cross_products.crawl-1 is not in" in found["drift/remark"]
