"""Every check passes on what the assets wrote, and fails on what somebody spoiled."""

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from clipcov_assets import checks
from clipcov_assets.pool_tables import PooledCrawl, list_column, pooled_crawls_metadata
from clipcov_assets.tables import CURVE, POOL, RANKING, SCORES, embeddings_schema
from resources.crawl_catalog import CrawlCatalog
from resources.lance_store import LanceStore

CRAWL = "crawl-1"
UID = [f"{place:02d}" for place in range(10)]


@pytest.fixture
def store(tmp_path):
    return LanceStore(uri=str(tmp_path))


def run(check, store, partition=CRAWL, **metadata):
    """Evaluate one check on what the test wrote, after an asset of that name that writes nothing."""
    (key,) = check.check_keys

    @dg.asset(key=key.asset_key, partitions_def=check.get_spec_for_check_key(key).partitions_def)
    def written_by_the_test():
        return dg.MaterializeResult(metadata=metadata)

    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("crawl", [CRAWL])
        result = dg.materialize(
            [written_by_the_test, check],
            instance=instance,
            partition_key=partition,
            resources={"store": store, "catalog": CrawlCatalog(directory="", most_quarantined=0.2)},
            raise_on_error=False,
        )
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def write_pool(store, uid=UID):
    rows = {
        "uid": uid,
        "crawl": [CRAWL] * len(uid),
        "latent_class": [0] * len(uid),
        "clip_score": [0.5] * len(uid),
    }
    pooled = [PooledCrawl(CRAWL, len(UID), len(UID), {})]
    store.write("pool", CRAWL, pa.table(rows, schema=POOL), pooled_crawls_metadata(pooled))


def write_ranking(store, name, partition, uid, ranks=None):
    ranks = range(len(uid)) if ranks is None else ranks
    rows = {"uid": uid, "rank": list(ranks), "gain": [0.0] * len(uid)}
    store.write(name, partition, pa.table(rows, schema=RANKING))


@pytest.mark.parametrize(("uid", "passed"), [(UID, True), ([*UID[:9], UID[0]], False)])
def test_a_repeated_uid_is_found(store, uid, passed):
    store.write("raw_pairs", CRAWL, pa.table({"uid": uid}))
    write_pool(store, uid)
    assert run(checks.unique_uids, store).passed is passed
    assert run(checks.unique_pool_uids, store).passed is passed


@pytest.mark.parametrize(("delivered", "passed"), [(10, True), (11, False), (9, False)])
def test_a_pair_that_is_neither_stored_nor_in_quarantine_is_found(store, delivered, passed):
    store.write("raw_pairs", CRAWL, pa.table({"uid": UID[:8]}))
    store.write("quarantine", CRAWL, pa.table({"uid": UID[8:]}))
    assert run(checks.pairs_accounted_for, store, pairs_in=delivered, pairs_already_known=0).passed is passed
    assert run(checks.pairs_accounted_for, store, pairs_in=delivered + 3, pairs_already_known=3).passed is passed


@pytest.mark.parametrize(("quarantined", "passed"), [(2, True), (3, False)])
def test_a_crawl_with_more_than_the_allowed_share_of_quarantined_pairs_goes_no_further(store, quarantined, passed):
    store.write("raw_pairs", CRAWL, pa.table({"uid": UID[quarantined:]}))
    store.write("quarantine", CRAWL, pa.table({"uid": UID[:quarantined]}))
    evaluation = run(checks.few_quarantined, store)
    assert evaluation.passed is passed
    assert evaluation.blocking


@pytest.mark.parametrize(("embedded", "passed"), [(10, True), (9, False)])
def test_a_pair_without_an_embedding_is_found(store, embedded, passed):
    store.write("raw_pairs", CRAWL, pa.table({"uid": UID}))
    store.write("embeddings", CRAWL, pa.table({"uid": UID[:embedded]}))
    assert run(checks.one_embedding_a_pair, store).passed is passed


@pytest.mark.parametrize(("factor", "passed"), [(1.0, True), (1.01, False), (np.nan, False), (0.0, False)])
def test_an_embedding_that_is_not_of_unit_length_is_found(store, factor, passed):
    rows = np.eye(4, dtype=np.float16)
    spoiled = rows.copy()
    spoiled[2] *= factor
    table = {"uid": UID[:4], "image_embedding": list_column(rows), "text_embedding": list_column(spoiled)}
    table |= {"content": [bytes(16)] * 4, "clip_score": [1.0] * 4}
    store.write("embeddings", CRAWL, pa.table(table, schema=embeddings_schema(4)))
    assert run(checks.unit_and_finite, store).passed is passed


@pytest.mark.parametrize(("classified", "passed"), [(10, True), (9, False)])
def test_a_pair_without_a_latent_class_is_found(store, classified, passed):
    store.write("embeddings", CRAWL, pa.table({"uid": UID}))
    store.write("latent_classes", CRAWL, pa.table({"uid": UID[:classified], "latent_class": [0] * classified}))
    assert run(checks.one_class_a_pair, store).passed is passed


@pytest.mark.parametrize(("pooled", "passed"), [(UID, True), (UID[:9], False)])
def test_a_pair_lost_on_the_way_into_the_pool_is_found(store, pooled, passed):
    write_pool(store, pooled)
    assert run(checks.pool_counts_match, store).passed is passed


@pytest.mark.parametrize(
    ("uid", "ranks", "passed"),
    [
        (UID[::-1], None, True),
        (UID[:9], None, False),
        ([*UID[:9], "stranger"], None, False),
        (UID, [*range(9), 10], False),
    ],
)
def test_a_ranking_that_is_not_the_whole_pool_is_found(store, uid, ranks, passed):
    write_pool(store)
    write_ranking(store, "random_ranking", CRAWL, uid, ranks)
    assert run(checks.ranking_check("random"), store).passed is passed


@pytest.mark.parametrize(
    ("subset", "passed"),
    [
        (UID[:5], True),
        (UID[:4], False),  # too short
        (UID[:6], False),  # too long
        ([*UID[:4], UID[7]], False),  # not the head
        ([*UID[:4], "stranger"], False),  # outside the pool
    ],
)
def test_a_subset_that_is_not_the_head_of_its_ranking_is_found(store, subset, passed):
    write_pool(store)
    write_ranking(store, "random_ranking", CRAWL, UID)
    write_ranking(store, "random_subset", f"{CRAWL}|f50", subset)
    assert run(checks.subset_check("random"), store, f"{CRAWL}|f50").passed is passed


@pytest.mark.parametrize(("losses", "passed"), [([2.0, 1.0], True), ([2.0, np.nan], False), ([], False)])
def test_a_loss_that_is_not_finite_is_found(store, losses, passed):
    rows = {"seed": [0] * len(losses), "samples_seen": list(range(len(losses))), "loss": losses}
    rows |= {name: [1.0] * len(losses) for name in ("learning_rate", "samples_per_second")}
    store.write("partial_checkpoint", CRAWL, pa.table(rows, schema=CURVE))
    check = checks.loss_check("partial_checkpoint", checks.crawls)
    assert run(check, store).passed is passed


@pytest.mark.parametrize(("low", "passed"), [(0.3, True), (0.25, False)])
def test_a_scorecard_at_chance_is_a_warning_that_names_the_set(store, low, passed):
    row = {"crawl": CRAWL, "method": "random", "fraction": 0.5, "pairs": 5, "evaluation_set": "colours"}
    row |= {"metric": "acc1", "is_main": True, "value": 0.5, "low": low, "high": 0.7, "chance": 0.25, "images": 40}
    store.write("random_scores", f"{CRAWL}|f50", pa.Table.from_pylist([row], schema=SCORES))
    found = run(checks.scorecard_check("random"), store, f"{CRAWL}|f50")
    assert found.passed is passed
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert found.metadata["not_above_chance"].value == ("none" if passed else "colours")
