from datetime import timedelta

import dagster as dg
import lancedb
import pyarrow as pa
import pytest

from clipcov_assets.export.lineage_text import Place
from clipcov_assets.lineage import (
    CHANGED,
    GONE,
    OTHER_PROXY,
    OTHER_VERSION,
    TWO_CONTENTS,
    UNRECORDED,
    lineage_metadata,
    lineage_of,
    reached_from_crawl,
    reached_from_pair,
)
from clipcov_assets.pool_tables import PooledCrawl, pooled_crawls_metadata
from clipcov_assets.provenance import Input
from tests.histories import PROXY, SCORECARD, Past, crawl, pairs, pool, two_crawls

NOUNS = ("subset", "checkpoint", "scorecard")


@pytest.fixture
def past(tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        yield Past(tmp_path, instance)


def trace(past, asset=SCORECARD[0], partition=SCORECARD[1], **options):
    return lineage_of(past.instance, past.store, asset, partition, **options)


def place(lineage, asset, partition):
    (found,) = [one for one in lineage.nodes if (one.asset, one.partition) == (asset, partition)]
    return found


def forget(past, asset, partition):
    """Write a table again and forget what it was before."""
    name = past.store.write(asset, partition, pairs("a")).name
    lancedb.connect(past.store.uri).open_table(name).optimize(cleanup_older_than=timedelta(milliseconds=5))


def faults(lineage):
    return [(place.asset, place.partition, fault.kind) for place, fault in lineage.faults]


def test_a_scorecard_is_followed_back_to_its_deliveries(past):
    two_crawls(past)
    lineage = trace(past)
    assert lineage.faults == []
    found = {(place.asset, place.partition) for place in lineage.nodes}
    assert len(found) == len(lineage.nodes) == 14
    assert {("raw_pairs", "crawl-1"), ("proxy_checkpoint", None), ("clipcov_class_ranking", "crawl-2|s01")} <= found
    scorecard = lineage.nodes[lineage.root]
    assert (scorecard.code_version, scorecard.lance_version) == ("1", "1")
    assert scorecard.inputs == (Place("clipcov_checkpoint", "crawl-2|f20", "checkpoint"),)
    assert lineage.nodes[scorecard.inputs[0]].facts == {"recipe_hash": "r1"}


def test_the_materialization_that_was_used_is_found_behind_newer_ones(past):
    two_crawls(past)
    for number in range(3):
        past.make("clipcov_subset", "crawl-2|f20", f"newer {number}", [], rows=pairs("a"))
    lineage = trace(past)
    assert faults(lineage) == [("clipcov_subset", "crawl-2|f20", CHANGED)]
    ((place, fault),) = lineage.faults
    assert place.data_version == "subset"
    assert lineage.nodes[place].inputs == (Place("clipcov_ranking", "crawl-2", "ranking"),)
    assert "has changed since" in fault.words
    assert "newer 2" in fault.words


def test_the_search_goes_on_page_by_page_and_has_an_end(past, monkeypatch):
    two_crawls(past)
    for number in range(7):
        past.make("clipcov_subset", "crawl-2|f20", f"newer {number}")
    monkeypatch.setattr("clipcov_assets.lineage.PAGE", 2)
    assert faults(trace(past)) == [("clipcov_subset", "crawl-2|f20", CHANGED)]
    monkeypatch.setattr("clipcov_assets.lineage.MOST_SEARCHED", 4)
    assert faults(trace(past)) == [("clipcov_subset", "crawl-2|f20", UNRECORDED)]


def test_equal_content_again_is_no_fault(past):
    two_crawls(past)
    past.make("raw_pairs", "crawl-1", "raw crawl-1", rows=pairs("a", "b", "c"))
    lineage = trace(past)
    assert lineage.faults == []
    assert lineage.nodes[place(lineage, "raw_pairs", "crawl-1")].lance_version == "1"


@pytest.mark.parametrize("asset", ["raw_pairs", "embeddings", "latent_classes"])
def test_an_earlier_crawl_of_a_pool_that_was_made_anew_has_changed_since(past, asset):
    two_crawls(past)
    past.make(asset, "crawl-1", "other content", [])
    lineage = trace(past)
    assert faults(lineage) == [(asset, "crawl-1", CHANGED)]


def test_an_earlier_crawl_of_a_pool_that_can_no_longer_be_read_is_named(past):
    two_crawls(past)
    forget(past, "latent_classes", "crawl-1")
    assert faults(trace(past)) == [("latent_classes", "crawl-1", GONE)]


def test_an_earlier_crawl_of_which_a_pool_records_no_content_is_named(past):
    first = crawl(past, "crawl-1", None, "a")
    own = crawl(past, "crawl-2", Input("proxy_checkpoint", None, PROXY[:16], "", {}), "b")
    versions = {"raw_pairs": 1, "latent_classes": 1}
    table = pooled_crawls_metadata([PooledCrawl(tables[0].partition, 1, 1, versions) for tables in (first, own)])
    past.make("pool", "crawl-2", "pool", own, rows=pairs(), table=table)
    assert faults(trace(past, "pool", "crawl-2")) == [("latent_classes", "crawl-1", UNRECORDED)]


def test_a_version_that_is_gone_is_named(past):
    two_crawls(past)
    forget(past, "pool", "crawl-2")
    lineage = trace(past)
    assert faults(lineage) == [("pool", "crawl-2", GONE)]
    assert "Lance version 1" in lineage.faults[0][1].words
    # What else the pool held stood in its table.
    assert ("latent_classes", "crawl-1") not in {(one.asset, one.partition) for one in lineage.nodes}


def test_embeddings_of_another_proxy_than_they_name_are_found(past):
    past.make("proxy_checkpoint", None, PROXY[:16], [], sha256="feedface")
    proxy = Input("proxy_checkpoint", None, PROXY[:16], "", {})
    pool(past, "pool", crawl(past, "crawl-1", proxy, "a"), crawl(past, "crawl-2", proxy, "b"))
    lineage = trace(past, "pool", "crawl-2")
    tables = [
        (asset, name, OTHER_PROXY) for name in ("crawl-1", "crawl-2") for asset in ("embeddings", "latent_classes")
    ]
    assert sorted(faults(lineage)) == sorted(tables)
    assert "of proxy abcdefabcdef, but it names the proxy_checkpoint feedface" in lineage.faults[0][1].words


def test_a_table_is_looked_at_as_it_was_when_it_was_used(past):
    two_crawls(past)
    past.store.write("embeddings", "crawl-2", pairs("c", "d", "e"), {"proxy_sha256": "feedface"})
    assert trace(past).faults == []


def test_a_proxy_that_was_replaced_has_changed_since(past):
    two_crawls(past)
    past.make("proxy_checkpoint", None, "another", [], sha256="another proxy")
    assert faults(trace(past)) == [("proxy_checkpoint", None, CHANGED)]


def test_one_input_with_two_contents_is_found(past):
    two_crawls(past)
    past.make("proxy_checkpoint", None, "another", [], sha256=PROXY)
    other = Input("proxy_checkpoint", None, "another", "", {})
    first = crawl(past, "crawl-1", Input("proxy_checkpoint", None, PROXY[:16], "", {}), "a")
    pool(past, "pool of two proxies", first, crawl(past, "crawl-3", other, "f"))
    found = faults(trace(past, "pool", "crawl-3"))
    assert found.count(("proxy_checkpoint", None, TWO_CONTENTS)) == 2


def test_a_pool_that_reads_another_version_than_it_records_is_found(past):
    tables = crawl(past, "crawl-1", None, "a", "b")
    pooled = PooledCrawl("crawl-1", 2, 2, {"raw_pairs": 1, "latent_classes": 7, "class_statistics": 1})
    past.make("pool", "crawl-1", "pool", tables, rows=pairs("a"), table=pooled_crawls_metadata([pooled]))
    lineage = trace(past, "pool", "crawl-1")
    assert faults(lineage) == [("pool", "crawl-1", OTHER_VERSION)]
    assert "latent_classes of crawl-1 at Lance version 7, but records version 1" in lineage.faults[0][1].words


def test_inputs_that_are_not_recorded_are_named(past):
    lost = Input("clipcov_subset", "crawl-1|f20", "lost", "", {})
    past.make("clipcov_checkpoint", "crawl-1|f20", "checkpoint", [lost])
    lineage = trace(past, "clipcov_checkpoint", "crawl-1|f20")
    assert faults(lineage) == [("clipcov_subset", "crawl-1|f20", UNRECORDED)]
    past.make("clipcov_checkpoint", "crawl-1|f40", "by hand")
    assert faults(trace(past, "clipcov_checkpoint", "crawl-1|f40")) == [
        ("clipcov_checkpoint", "crawl-1|f40", UNRECORDED)
    ]


def test_deliveries_and_a_proxy_from_elsewhere_have_no_inputs_and_are_in_order(past):
    past.make("raw_pairs", "crawl-1", "raw")
    past.make("proxy_checkpoint", None, "proxy")
    assert trace(past, "raw_pairs", "crawl-1").faults == trace(past, "proxy_checkpoint", None).faults == []


def test_the_code_that_is_defined_now_stands_beside_the_one_that_was_used(past):
    two_crawls(past)
    lineage = trace(past, code_now={"pool": "2"})
    (pool,) = [node for node in lineage.nodes.values() if node.place.asset == "pool"]
    assert (pool.code_version, pool.code_now) == ("1", "2")
    assert lineage.faults == []


@pytest.mark.parametrize(
    ("asset", "partition", "words"),
    [
        ("clipcov_scorecrad", None, "there are .*'clipcov_scorecard'"),
        ("clipcov_scorecard", "crawl-9|f20", "it is there for 'crawl-2|f20'"),
        ("clipcov_scorecard", None, "without a partition: it is there for"),
        ("proxy_checkpoint", "crawl-1", "leave 'crawl-1' away"),
    ],
)
def test_what_was_never_materialized_is_answered_with_what_was(past, asset, partition, words):
    two_crawls(past)
    with pytest.raises(ValueError, match=words):
        trace(past, asset, partition)


def test_a_long_history_is_asked_in_few_questions(past, monkeypatch):
    proxy = Input("proxy_checkpoint", None, PROXY[:16], "", {})
    past.make("proxy_checkpoint", None, PROXY[:16])
    crawls = []
    for number in range(100):
        name = f"crawl-{number}"
        raw = past.make("raw_pairs", name, f"raw {number}")
        embedded = past.make("embeddings", name, f"embedded {number}", [raw, proxy])
        crawls.append([raw, embedded, past.make("latent_classes", name, f"classes {number}", [embedded, proxy])])
    pooled = pool(past, "pool", *crawls)
    asked = []
    ask = past.instance.fetch_materializations
    monkeypatch.setattr(past.instance, "fetch_materializations", lambda *a, **b: asked.append(a) or ask(*a, **b))
    lineage = trace(past, "pool", "crawl-99")
    assert len(lineage.nodes) == 302
    assert lineage.faults == []
    assert len(asked) <= 6
    metadata = lineage_metadata(past.instance, past.store, "clipcov_ranking", "crawl-99", [pooled])
    assert len(metadata["lineage_nodes"].value["nodes"]) == 6  # ranking, pool, tables of its own crawl, and proxy


def test_a_result_that_is_being_made_carries_its_lineage(past):
    two_crawls(past)
    checkpoint = Input("clipcov_checkpoint", "crawl-2|f20", "checkpoint", "", {})
    metadata = lineage_metadata(past.instance, past.store, "clipcov_scorecard", "crawl-2|f20", [checkpoint])
    assert metadata["lineage_faults"].value == 0
    assert "**embeddings** crawl-2" in metadata["lineage"].value
    assert "**embeddings** crawl-1" not in metadata["lineage"].value
    nodes = metadata["lineage_nodes"].value["nodes"]
    assert len(nodes) == 12
    assert nodes[0]["configuration"]["CLIPCOV_SCALE"] == "tiny"


def test_a_result_that_is_being_made_names_what_has_changed_of_earlier_crawls(past):
    two_crawls(past)
    past.make("embeddings", "crawl-1", "embedded otherwise")
    checkpoint = Input("clipcov_checkpoint", "crawl-2|f20", "checkpoint", "", {})
    metadata = lineage_metadata(past.instance, past.store, "clipcov_scorecard", "crawl-2|f20", [checkpoint])
    assert metadata["lineage_faults"].value == 1
    assert "**embeddings** crawl-1" in metadata["lineage"].value
    assert "has changed since" in metadata["lineage"].value


def held(reach):
    return {(one.place.asset, one.place.partition): one.pairs for one in reach.held}


def test_what_holds_pairs_of_a_crawl_is_found_with_how_many(past):
    two_crawls(past)
    second = reached_from_crawl(past.instance, past.store, "crawl-2")
    assert held(second) == {
        ("pool", "crawl-2"): 2,
        **{(f"clipcov_{noun}", "crawl-2|f20"): 1 for noun in NOUNS},
    }
    first = held(reached_from_crawl(past.instance, past.store, "crawl-1"))
    assert first[("pool", "crawl-2")] == 3
    assert first[("proxy_checkpoint", None)] == 3


def test_what_holds_a_pair_is_found(past):
    two_crawls(past)
    chosen = reached_from_pair(past.instance, past.store, "d")
    assert chosen.delivered_by == ("crawl-2",)
    assert set(held(chosen)) == {("pool", "crawl-2"), *((f"clipcov_{n}", SCORECARD[1]) for n in NOUNS)}
    assert set(held(reached_from_pair(past.instance, past.store, "e"))) == {("pool", "crawl-2")}
    assert reached_from_pair(past.instance, past.store, "c").delivered_by == ("crawl-1", "crawl-2")


def test_a_model_still_holds_a_pair_that_was_taken_out_of_everything_else(past):
    two_crawls(past)
    past.make("raw_pairs", "crawl-2", "without d", rows=pairs("c", "e"))
    rows = pa.table({"uid": ["a", "b"], "crawl": ["crawl-1"] * 2})
    past.make("pool", "crawl-2", "without d", [], rows=rows)
    past.make("clipcov_subset", "crawl-2|f20", "without d", [Input("pool", "crawl-2", "without d", "", {})], rows=rows)
    found = reached_from_pair(past.instance, past.store, "d")
    assert found.delivered_by == ()
    assert set(held(found)) == {(f"clipcov_{noun}", "crawl-2|f20") for noun in ("checkpoint", "scorecard")}


def test_what_cannot_be_said_any_more_is_said_to_be_unknown(past):
    two_crawls(past)
    past.make("clipcov_scorecard", "crawl-2|f40", "by hand")
    found = reached_from_crawl(past.instance, past.store, "crawl-2")
    assert held(found)[("clipcov_scorecard", "crawl-2|f40")] is None
    assert [place.partition for place, _ in found.faults] == ["crawl-2|f40"]


def test_a_subset_is_read_for_a_pair_even_if_its_pool_is_gone(past):
    two_crawls(past)
    forget(past, "pool", "crawl-2")
    found = held(reached_from_pair(past.instance, past.store, "d"))
    assert found[("pool", "crawl-2")] is None
    assert found[("clipcov_checkpoint", "crawl-2|f20")] == 1


@pytest.mark.parametrize("reached", [reached_from_crawl, reached_from_pair])
def test_an_unknown_crawl_or_pair_is_a_mistake(past, reached):
    two_crawls(past)
    with pytest.raises(ValueError, match=r"no .*'no' such'|no .*no' such"):
        reached(past.instance, past.store, "no' such")
