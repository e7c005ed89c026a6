"""A pool of several crawls, kept in tables, is the pool that the core would make of them in memory."""

import shutil

import numpy as np
import pyarrow as pa
import pytest

from clipcov_assets.assets.latent_classes import ClassOrder
from clipcov_assets.assets.pool import JoinedCrawls
from clipcov_assets.core import METHODS
from clipcov_assets.core.class_pairs import class_loader
from clipcov_assets.core.covariance import cross_products
from clipcov_assets.core.greedy import merge_class_rankings, rank_classes
from clipcov_assets.core.similarity import clip_scores
from clipcov_assets.core.statistics import class_statistics
from clipcov_assets.pool_tables import (
    CLASS_EMBEDDINGS,
    CRAWL_PRODUCTS,
    CRAWL_STATISTICS,
    POOL_PRODUCTS,
    POOL_STATISTICS,
    PooledClasses,
    class_names,
    cross_product_rows,
    list_column,
    load_cross_products,
    load_pool,
    places_of,
    pooled_crawls,
    statistics_rows,
)
from clipcov_assets.tables import (
    CLASS_RANKING,
    RANKING,
    REASONS,
    class_embeddings_schema,
    embeddings_schema,
    ranking_schema,
)
from resources.lance_store import LanceStore
from resources.text_columns import wide

CLASSES, WIDTH = 5, 8
PAIRS = {"crawl-1": range(60), "crawl-2": range(50, 130), "crawl-3": range(40, 60)}


def unit_rows(seed, count):
    rows = np.random.default_rng(seed).normal(size=(count, WIDTH)) + 2 * np.eye(WIDTH)[0]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


CLASS_ROWS = unit_rows(9, CLASSES).astype(np.float32)


def write_crawl(store, crawl, pairs, *, spoil=None):
    """The tables of a crawl: pair i has the same embeddings and class whichever crawl brings it; class 3 is empty."""
    random = np.random.default_rng(0)
    pairs = random.permutation(pairs)
    image, text = unit_rows(1, 200)[pairs], unit_rows(2, 200)[pairs]
    if spoil is not None:
        image[spoil[0]] = spoil[1]
    uid = [f"{pair:04d}" for pair in pairs]
    label = np.array([0, 1, 2, 4])[pairs % 4]
    content = pa.array([f"{pair:016d}".encode() for pair in pairs], pa.binary(16))
    columns = [uid, content, list_column(image), list_column(text), clip_scores(image, text)]
    store.write("embeddings", crawl, pa.table(columns, schema=embeddings_schema(WIDTH)))
    labels = pa.table({"uid": uid, "latent_class": pa.array(label, pa.int32()), "margin": label.astype(np.float32)})
    labels = labels.append_column("place", pa.array(np.arange(len(uid))))
    labels = labels.sort_by([("latent_class", "ascending"), ("uid", "ascending")])
    rows = ClassOrder(store, crawl, labels, (CLASSES, WIDTH))
    store.write("latent_classes", crawl, rows.reader())
    store.write(CRAWL_STATISTICS, crawl, statistics_rows(rows.statistics))
    store.write(CRAWL_PRODUCTS, crawl, cross_product_rows(rows.products))
    names = pa.array(range(CLASSES), pa.int32()), [str(k) for k in range(CLASSES)], list_column(CLASS_ROWS)
    store.write(CLASS_EMBEDDINGS, crawl, pa.table(names, schema=class_embeddings_schema(WIDTH)))
    captions = pa.table({"uid": uid, "caption": [f"caption of {one}" for one in uid]})
    store.write("raw_pairs", crawl, captions.take(random.permutation(len(uid))))


@pytest.fixture
def store(tmp_path):
    return LanceStore(uri=str(tmp_path))


@pytest.fixture
def pooled(store):
    for crawl, pairs in PAIRS.items():
        write_crawl(store, crawl, pairs)
    JoinedCrawls(store, list(PAIRS)).write(store, "crawl-3")
    return store


def test_each_pair_is_pooled_once_with_the_oldest_crawl_that_brought_it(pooled):
    rows = pooled.read("pool", "crawl-3").to_pylist()
    assert sorted(row["uid"] for row in rows) == [f"{pair:04d}" for pair in range(130)]
    assert {row["uid"] for row in rows if row["crawl"] == "crawl-2"} == {f"{pair:04d}" for pair in range(60, 130)}
    assert [one.new_pairs for one in pooled_crawls(pooled, "crawl-3")] == [60, 70, 0]
    assert [(row["latent_class"], row["uid"]) for row in rows] == sorted((r["latent_class"], r["uid"]) for r in rows)


def test_text_of_a_whole_pool_is_held_with_offsets_that_reach_beyond_2_gib(pooled):
    held = [JoinedCrawls(pooled, list(PAIRS)).rows.schema, CLASS_RANKING, RANKING, ranking_schema(REASONS)]
    assert held == [wide(schema) for schema in held]


def test_pairs_are_found_among_more_than_2_gib_of_uids():
    """Long uids of zeros, which take no memory, and null ones, which take no time to compare."""
    offsets, null = np.array([0, 2**28], np.int32), bytes(1)
    buffers = [pa.py_buffer(buffer) for buffer in (null, offsets, bytes(2**28))]
    uid = pa.chunked_array([*[pa.Array.from_buffers(pa.string(), 1, buffers)] * 8, pa.array(["u1"])])
    assert places_of(pa.chunked_array([["u1"]]), uid, "the pool").to_pylist() == [8]


def test_a_class_read_from_the_crawls_is_the_class_of_the_pool(pooled):
    classes, pool = PooledClasses(pooled, "crawl-3"), load_pool(pooled, "crawl-3", METHODS["clipcov"].reads)
    runs, load = class_loader(pool)
    assert runs == [[0], [1], [2], [4]]
    for run in runs:
        (found,), (expected,) = classes.load(run), load(run)
        uid = pool.uid[found.uid].tolist()
        assert uid == sorted(uid) == pool.uid[pool.by_uid[expected.uid]].tolist()
        np.testing.assert_array_equal(found.pairs, expected.pairs)


def test_a_crawl_that_has_no_pair_in_a_class_is_not_opened_for_it(pooled, tmp_path):
    shutil.rmtree(tmp_path / f"latent_classes.{list(PAIRS)[-1]}.lance")  # older crawls brought all of its pairs
    assert [one.latent_class for one in PooledClasses(pooled, "crawl-3").load([0, 1])] == [0, 1]


def test_the_names_of_the_classes_are_in_their_order(pooled):
    rows = pooled.read(CLASS_EMBEDDINGS, "crawl-3")
    pooled.write(CLASS_EMBEDDINGS, "crawl-3", rows.sort_by([("latent_class", "descending")]))
    assert class_names(pooled, "crawl-3") == ("0", "1", "2", "3", "4")


def test_small_neighbouring_classes_are_read_together(pooled, monkeypatch):
    classes = PooledClasses(pooled, "crawl-3")
    assert classes.runs() == [[0, 1, 2, 4]]
    assert classes.runs([0, 2, 4]) == [[0], [2, 4]]
    together, alone = list(classes.load([0, 1, 2, 4])), [one for k in (0, 1, 2, 4) for one in classes.load([k])]
    for one, other in zip(together, alone, strict=True):
        assert one.latent_class == other.latent_class
        np.testing.assert_array_equal(one.uid, other.uid)
        np.testing.assert_array_equal(one.pairs, other.pairs)
    monkeypatch.setattr("clipcov_assets.pool_tables.ROWS_AT_ONCE", 70)
    assert classes.runs() == [[0, 1], [2, 4]]
    for one, other in zip(PooledClasses(pooled, "crawl-3").load([0, 1]), together, strict=False):
        np.testing.assert_array_equal(one.pairs, other.pairs)


def test_the_ranking_out_of_the_tables_is_the_librarys(pooled):
    classes, pool = PooledClasses(pooled, "crawl-3"), load_pool(pooled, "crawl-3", METHODS["clipcov"].reads)
    ranked = rank_classes(classes.runs(), classes.load, classes.statistics, classes.class_embeddings)
    merged = merge_class_rankings([ranked], len(pool), uid=np.arange(len(pool)))
    assert merged.order.tolist() == METHODS["clipcov"](pool, len(pool)).order.tolist()


def test_the_statistics_of_the_crawls_add_up_without_the_pairs_that_came_twice(pooled):
    pool = load_pool(pooled, "crawl-3", METHODS["clipcov"].reads)
    added, whole = PooledClasses(pooled, "crawl-3").statistics, class_statistics(pool)
    np.testing.assert_array_equal(added.counts, whole.counts)
    np.testing.assert_allclose(added.image_sums, whole.image_sums, atol=1e-12)
    np.testing.assert_allclose(added.text_sums, whole.text_sums, atol=1e-12)
    products = load_cross_products(pooled, POOL_PRODUCTS, "crawl-3")
    np.testing.assert_allclose(products, cross_products(pool.image_embeddings, pool.text_embeddings), atol=1e-12)


def test_columns_of_the_pool_belong_to_its_uids(pooled):
    pool = load_pool(pooled, "crawl-3", ["captions", "clip_score", "image_embeddings", "text_embeddings"])
    assert list(pool.captions) == [f"caption of {uid}" for uid in pool.uid]
    np.testing.assert_array_equal(pool.clip_score, clip_scores(pool.image_embeddings, pool.text_embeddings))


def test_a_pool_reads_its_crawls_as_they_were(pooled):
    before = next(PooledClasses(pooled, "crawl-3").load([0])).pairs
    write_crawl(pooled, "crawl-1", range(140, 180))
    np.testing.assert_array_equal(next(PooledClasses(pooled, "crawl-3").load([0])).pairs, before)


@pytest.mark.parametrize(("value", "words"), [(np.nan, "is not finite"), (0.5, "has length 1.414, not 1")])
def test_a_spoiled_embedding_is_named_with_its_crawl(store, value, words):
    write_crawl(store, "crawl-1", range(40), spoil=(7, value))
    JoinedCrawls(store, ["crawl-1"]).write(store, "crawl-1")
    classes = PooledClasses(store, "crawl-1")
    uid = store.read("embeddings", "crawl-1", ["uid"])["uid"][7].as_py()
    with pytest.raises(ValueError, match=f"image_embedding of uid {uid} in latent_classes of crawl-1 {words}"):
        rank_classes(classes.runs(), classes.load, classes.statistics, classes.class_embeddings)


def test_a_pair_that_its_crawl_has_lost_is_named(pooled):
    rows = pooled.read("pool", "crawl-3").to_pylist()
    rows[0]["uid"] = "0000-lost"
    metadata = pooled.metadata("pool", "crawl-3")
    pooled.write("pool", "crawl-3", pa.Table.from_pylist(rows, pooled.read("pool", "crawl-3").schema), metadata)
    with pytest.raises(ValueError, match="pair 0000-lost of the pool is not in latent_classes of crawl-1"):
        list(PooledClasses(pooled, "crawl-3").load([0]))
    with pytest.raises(ValueError, match="pair 0000-lost of the pool is not in raw_pairs of crawl-1"):
        load_pool(pooled, "crawl-3", ["captions"])


def test_statistics_of_another_table_are_refused(pooled):
    pooled.write("pool", "crawl-3", pooled.read("pool", "crawl-3").slice(1), pooled.metadata("pool", "crawl-3"))
    with pytest.raises(ValueError, match=r"pool.crawl-3 has 129 rows and its statistics 130: materialize it again"):
        PooledClasses(pooled, "crawl-3")


def pools_of(store, *, day_by_day):
    """The pool as of crawl-3, either after those of the crawls before it or at once."""
    for crawl, pairs in PAIRS.items():
        write_crawl(store, crawl, pairs)
    for count in range(1 if day_by_day else len(PAIRS), len(PAIRS) + 1):
        crawls = list(PAIRS)[:count]
        JoinedCrawls(store, crawls, lambda name: {"raw_pairs": f"version of {name}"}).write(store, crawls[-1])
    return store


def test_a_pool_that_goes_on_from_the_one_before_is_byte_for_byte_the_pool_of_all_its_crawls(tmp_path):
    once, daily = (pools_of(LanceStore(uri=str(tmp_path / str(way))), day_by_day=way) for way in (False, True))
    assert once.read("pool", "crawl-3").equals(daily.read("pool", "crawl-3"))
    for table in (POOL_STATISTICS, POOL_PRODUCTS):
        assert once.read(table, "crawl-3").equals(daily.read(table, "crawl-3"))
    assert pooled_crawls(once, "crawl-3") == pooled_crawls(daily, "crawl-3")
    assert [one.data_versions for one in pooled_crawls(daily, "crawl-3")] == [
        {"raw_pairs": f"version of {crawl}"} for crawl in PAIRS
    ]


def joined(store, monkeypatch):
    """Crawls whose pairs are read for the pool as of crawl-3."""
    read, added = JoinedCrawls._add, []
    monkeypatch.setattr(JoinedCrawls, "_add", lambda self, *given: (added.append(given[1]), read(self, *given))[1])
    JoinedCrawls(store, list(PAIRS)).write(store, "crawl-3")
    return added


def test_only_crawls_that_are_new_are_read(tmp_path, monkeypatch):
    store = pools_of(LanceStore(uri=str(tmp_path)), day_by_day=True)
    assert joined(store, monkeypatch) == ["crawl-3"]


def test_a_crawl_that_was_classified_again_is_read_again_and_so_are_those_after_it(tmp_path, monkeypatch):
    store = pools_of(LanceStore(uri=str(tmp_path)), day_by_day=True)
    write_crawl(store, "crawl-2", range(50, 120))
    assert joined(store, monkeypatch) == ["crawl-2", "crawl-3"]
    assert len(store.read("pool", "crawl-3")) == 120


def test_a_crawl_that_comes_late_joins_the_pools_after_it(tmp_path, monkeypatch):
    store = pools_of(LanceStore(uri=str(tmp_path)), day_by_day=True)
    write_crawl(store, "crawl-0", range(150, 160))
    JoinedCrawls(store, ["crawl-0", *PAIRS]).write(store, "crawl-3")
    assert len(store.read("pool", "crawl-3")) == 140
    assert [one.crawl for one in pooled_crawls(store, "crawl-3")] == ["crawl-0", *PAIRS]


def test_sums_of_a_pool_that_was_never_finished_are_not_gone_on_from(tmp_path):
    store = pools_of(LanceStore(uri=str(tmp_path)), day_by_day=True)
    expected = store.read(POOL_STATISTICS, "crawl-3")
    store.write(POOL_STATISTICS, "crawl-2", expected)
    JoinedCrawls(store, list(PAIRS)).write(store, "crawl-3")
    assert store.read(POOL_STATISTICS, "crawl-3").equals(expected)


def test_a_pool_remembers_its_crawls_at_every_version(pooled):
    before = pooled.version("pool", "crawl-3")
    JoinedCrawls(pooled, ["crawl-1", "crawl-3"]).write(pooled, "crawl-3")
    assert [one.crawl for one in pooled_crawls(pooled, "crawl-3")] == ["crawl-1", "crawl-3"]
    assert [one.crawl for one in pooled_crawls(pooled, "crawl-3", version=before)] == list(PAIRS)


def test_a_crawl_without_tables_is_left_out_unless_the_pool_is_its_own(store):
    write_crawl(store, "crawl-2", range(40))
    found = JoinedCrawls(store, ["crawl-1", "crawl-2"])
    assert [one.crawl for one in found.crawls] == ["crawl-2"]
    with pytest.raises(KeyError, match="class_embeddings for partition crawl-3 first"):
        JoinedCrawls(store, ["crawl-2", "crawl-3"])
