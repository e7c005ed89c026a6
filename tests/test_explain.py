from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from clipcov_assets.core.selection import METHODS
from clipcov_assets.core.set_algebra import Combination
from clipcov_assets.explain import askable, explain, newest_pool, pools
from clipcov_assets.export.pair_page import Absence, CombinedCut, Cut, SetAside
from clipcov_assets.methods import RANKED
from clipcov_assets.partitions import FRACTIONS, of_crawl
from clipcov_assets.scales import SCALE
from resources.lance_store import LanceStore
from tests.ranked_pool import (
    CLASSES,
    DAMAGED,
    IMAGES,
    TEXTS,
    catalog_of,
    combine,
    known,
    rank,
    ranked_pool,
    uid_of,
    write_crawl,
)

ABLATION = "clipcov_cov_inter_label"
PAIRS = 70
COMBINATIONS = [Combination("clipcov", operator, "semdedup") for operator in "&|-"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = ranked_pool(tmp_path_factory.mktemp("home"), *METHODS, ABLATION)
    for combination in COMBINATIONS:
        combine(store, combination, "crawl-2")
    with known(*COMBINATIONS):
        yield store


@pytest.fixture
def own_store(tmp_path):
    """A store that a test may change."""
    return ranked_pool(tmp_path, "clipcov")


def ask(store, uid, **about):
    return explain(store, catalog_of(store), uid, **about)


def ranking(store, method):
    return store.read(f"{method}_ranking", "crawl-2").sort_by("rank").to_pylist()


def number_of(uid):
    return int(uid, 16)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "full"])
def test_a_pair_has_the_rank_and_the_gain_of_its_ranking_and_a_verdict_for_each_size(store, method):
    rows = ranking(store, method)
    for row in (rows[0], rows[PAIRS // 3], rows[-1]):
        found = ask(store, row["uid"], method=method, crawl="crawl-2")
        assert (found.rank, found.gain, found.pool_pairs) == (row["rank"], row["gain"], PAIRS)
        sizes = [int(fraction * PAIRS) for fraction in FRACTIONS.values()]
        last_gains = [rows[size - 1]["gain"] for size in sizes]
        assert found.cuts == tuple(map(Cut, FRACTIONS.values(), sizes, last_gains))


def test_a_pair_is_shown_as_the_oldest_crawl_brought_it(store):
    found = ask(store, uid_of(35), method="random", crawl="crawl-2")
    assert (found.brought_by, found.place) == ("crawl-1", "crawl-1.tar, key 00000035")
    assert found.pair.caption == "picture of class 3, number 35"
    assert found.pair.image == store.read("raw_pairs", "crawl-1")["image"][35].as_py()
    assert found.latent_class == CLASSES[35 % 3]
    assert found.clip_score == pytest.approx(IMAGES[35].astype(float) @ TEXTS[35].astype(float))


@pytest.mark.parametrize("method", ["clipcov", ABLATION])
def test_the_terms_of_every_pair_add_up_to_its_gain(store, method):
    terms = RANKED[method].rank
    expected = getattr(terms, "keywords", {}).get("terms", ("class", "self", "label", "class_reg", "inter"))
    for row in ranking(store, method)[::14]:
        picks = ask(store, row["uid"], method=method, crawl="crawl-2").class_picks
        assert sum(picks.terms.values()) == pytest.approx(row["gain"], abs=1e-6)
        assert set(picks.terms) == set(expected)


def test_the_picks_before_a_pair_are_those_of_its_class(store):
    rows = ranking(store, "clipcov")
    row = rows[50]
    own = number_of(row["uid"])
    before = [one for one in rows[:50] if number_of(one["uid"]) % 3 == own % 3]
    picks = ask(store, row["uid"], method="clipcov", crawl="crawl-2").class_picks
    assert (picks.before, picks.pairs) == (len(before), len([pair for pair in range(PAIRS) if pair % 3 == own % 3]))
    assert [one.pair.uid for one in picks.last] == [one["uid"] for one in before[::-1][: len(picks.last)]]
    assert [one.rank for one in picks.last] == [one["rank"] for one in before[::-1][: len(picks.last)]]
    images, texts = IMAGES.astype(float), TEXTS.astype(float)
    similarity = {
        one["uid"]: images[own] @ texts[number_of(one["uid"])] + texts[own] @ images[number_of(one["uid"])]
        for one in before
    }
    closest = sorted(similarity, key=lambda uid: -similarity[uid])[: len(picks.most_similar)]
    assert [one.pair.uid for one in picks.most_similar] == closest
    assert [one.similarity for one in picks.most_similar] == pytest.approx([similarity[uid] for uid in closest])
    assert all(f"number {number_of(one.pair.uid)}" in one.pair.caption for one in picks.last)
    assert picks.covered == pytest.approx(sum(similarity.values()) / picks.pairs)


def test_the_first_pick_has_none_before_it(store):
    picks = ask(store, ranking(store, "clipcov")[0]["uid"], method="clipcov", crawl="crawl-2").class_picks
    assert (picks.before, picks.covered, picks.last, picks.most_similar) == (0, 0, (), ())


def test_a_duplicate_names_the_pair_that_it_duplicates_with_the_cosine_of_both_images(store):
    rows = ranking(store, "semdedup")
    rank_of = {row["uid"]: row["rank"] for row in rows}
    partner = ask(store, rows[-1]["uid"], method="semdedup", crawl="crawl-2").partner
    assert partner.pair.uid == rows[-1]["partner"]
    assert partner.rank == rank_of[partner.pair.uid]
    cosine = IMAGES[number_of(rows[-1]["uid"])].astype(float) @ IMAGES[number_of(partner.pair.uid)].astype(float)
    assert (partner.measure, partner.similarity) == ("cosine", pytest.approx(cosine, abs=1e-6))
    assert ask(store, rows[0]["uid"], method="semdedup", crawl="crawl-2").partner is None


def test_metaclip_names_the_entry_that_let_a_pair_in(store):
    row = ranking(store, "metaclip")[3]
    found = ask(store, row["uid"], method="metaclip", crawl="crawl-2")
    assert found.entry == row["entry"] and found.entry in found.pair.caption


def test_every_pair_of_the_pool_is_in_the_full_subset(store):
    found = ask(store, uid_of(69), method="full", crawl="crawl-2")
    assert found.cuts == (Cut(1.0, PAIRS, 0.0),)
    assert found.rank == 69


def test_the_own_parameters_of_the_scale_are_those_of_the_terms(own_store, monkeypatch):
    for own in ({"inter": "sum", "alpha": "auto"}, {"variant": "released"}):
        rank(own_store, "clipcov", "crawl-2", own)
        monkeypatch.setattr("clipcov_assets.explain.SCALE", replace(SCALE, method_parameters={"clipcov": own}))
        found = ask(own_store, uid_of(5), method="clipcov", crawl="crawl-2")
        if "variant" in own:
            assert (found.class_picks.terms, found.class_picks.covered) == ({}, None)
        else:
            assert sum(found.class_picks.terms.values()) == pytest.approx(found.gain, rel=1e-5)


def test_a_damaged_pair_is_found_in_quarantine_with_the_reason(store):
    fault = SetAside("crawl-1", "00002.tar, key 00000007", "image_corrupt", "truncated")
    assert ask(store, uid_of(DAMAGED), method="clipcov", crawl="crawl-2") == Absence(
        uid_of(DAMAGED), "crawl-2", set_aside=(fault,), withdrawn={}, left_out=(), changed=(), later=()
    )


def test_a_pair_that_the_pool_lacks_is_found_in_the_crawls_with_the_reason(own_store):
    own_store.write("quarantine", "crawl-1", own_store.read("quarantine", "crawl-2"))
    for crawl in ("crawl-0", "crawl-1", "crawl-3", "crawl-4"):
        write_crawl(own_store, crawl, range(100, 120))
    nothing = {"set_aside": (), "withdrawn": {}}
    absence = Absence(
        uid_of(110), "crawl-2", **nothing, left_out=("crawl-0",), changed=("crawl-1",), later=("crawl-3", "crawl-4")
    )
    assert ask(own_store, uid_of(110), method="clipcov", crawl="crawl-2") == absence
    for crawl in ("crawl-0", "crawl-3"):
        catalog_of(own_store).withdraw(crawl, "licence revoked")
    withdrawn = {"crawl-0": "licence revoked", "crawl-3": "licence revoked"}
    assert ask(own_store, uid_of(110), method="clipcov", crawl="crawl-2") == replace(
        absence, withdrawn=withdrawn, left_out=(), later=("crawl-4",)
    )


def test_the_newest_pool_is_none_of_a_crawl_that_was_withdrawn_which_may_still_be_asked(own_store):
    catalog = catalog_of(own_store)
    catalog.withdraw("crawl-2", "licence revoked")
    assert (pools(own_store, catalog), newest_pool(own_store, catalog)) == (["crawl-1"], "crawl-1")
    assert ask(own_store, uid_of(1), method="clipcov", crawl="crawl-2").pool_pairs == PAIRS


@pytest.mark.parametrize("combination", COMBINATIONS, ids=lambda one: one.name)
def test_a_combination_is_explained_by_its_two_methods(store, combination):
    partition = of_crawl("crawl-2", next(iter(FRACTIONS)))
    first, second, held = (
        set(store.read(f"{name}_subset", partition)["uid"].to_pylist())
        for name in (*combination.methods, combination.name)
    )
    for uid in (min(first & second), min(second - first)):
        found = ask(store, uid, method=combination.name, crawl="crawl-2")
        assert (found.name, found.first.method, found.second.method) == (combination.name, "clipcov", "semdedup")
        assert found.cuts[0] == CombinedCut(next(iter(FRACTIONS.values())), len(held), uid in held)
        inside = [one.cuts[0].holds(one.rank) for one in (found.first, found.second)]
        assert inside == [uid in first, uid in second]


def test_a_combination_that_was_made_from_other_subsets_is_named(own_store):
    rank(own_store, "semdedup", "crawl-2")
    combination, partition = COMBINATIONS[0], of_crawl("crawl-2", next(iter(FRACTIONS)))
    with known(combination):
        asked = ask(own_store, uid_of(1), method=combination.name, crawl="crawl-2")
        assert [cut.size for cut in asked.cuts] == [None] * len(FRACTIONS)
        combine(own_store, combination, "crawl-2")
        uid = own_store.read(f"{combination.name}_subset", partition)["uid"][0].as_py()
        rows = own_store.read(f"{combination.name}_subset", partition)
        own_store.write(f"{combination.name}_subset", partition, rows.slice(1))
        with pytest.raises(ValueError, match="clipcov_and_semdedup_subset of .* was made from other subsets: .* again"):
            ask(own_store, uid, method=combination.name, crawl="crawl-2")


def test_a_pair_is_shown_as_the_pool_recorded_it_even_if_its_crawl_was_ingested_again(own_store):
    rows = own_store.read("raw_pairs", "crawl-1")
    own_store.write("raw_pairs", "crawl-1", rows.set_column(1, "caption", pa.array(["another"] * len(rows))))
    assert "number 5" in ask(own_store, uid_of(5), method="clipcov", crawl="crawl-2").pair.caption


@pytest.mark.parametrize("uid", ["nobody", "x' OR '1' = '1"])
def test_a_pair_that_no_crawl_knows_is_an_error_that_says_where_to_look(store, uid):
    with pytest.raises(KeyError, match="no crawl knows pair .*: look for its uid .* or ingest the crawl"):
        ask(store, uid, method="clipcov", crawl="crawl-2")


@pytest.mark.parametrize(
    ("method", "crawl", "words"),
    [
        ("charm", "crawl-2", "unknown selection method 'charm': choose one of clipcov, "),
        ("clipcov", "../crawl-2", "crawl name '../crawl-2' is not allowed"),
        ("clipcov", "crawl-9", "crawl 'crawl-9' has no pool: choose one of crawl-1, crawl-2"),
        ("clipcov", "crawl-1", "materialize clipcov_ranking for partition crawl-1"),
    ],
)
def test_what_cannot_be_asked_is_named(store, method, crawl, words):
    with pytest.raises((KeyError, ValueError), match=words):
        ask(store, uid_of(1), method=method, crawl=crawl)


def test_a_subset_that_is_not_made_has_no_verdict(tmp_path):
    store = ranked_pool(tmp_path)
    rows = pa.table({"uid": [uid_of(pair) for pair in range(PAIRS)], "rank": range(PAIRS), "gain": [0.5] * PAIRS})
    store.write("random_ranking", "crawl-2", rows)
    assert ask(store, uid_of(1), method="random", crawl="crawl-2").cuts == tuple(map(Cut, FRACTIONS.values()))


def test_tables_that_do_not_belong_together_are_named(own_store):
    rows = own_store.read("clipcov_ranking", "crawl-2")
    uid = rows["uid"][0].as_py()
    own_store.write("clipcov_ranking", "crawl-2", rows.slice(1))
    with pytest.raises(ValueError, match=f"clipcov_ranking of crawl-2 lacks pair '{uid}' of the pool.*again"):
        ask(own_store, uid, method="clipcov", crawl="crawl-2")
    own_store.write("clipcov_ranking", "crawl-2", rows.set_column(2, "gain", pa.array(np.ones(PAIRS, np.float32))))
    with pytest.raises(ValueError, match=f"clipcov_ranking of crawl-2 gives pair '{uid}' a gain of 1.000000"):
        ask(own_store, uid, method="clipcov", crawl="crawl-2")
    own_store.write("clipcov_ranking", "crawl-2", rows)
    partition = of_crawl("crawl-2", next(iter(FRACTIONS)))
    own_store.write("clipcov_subset", partition, rows.slice(3, 10))
    with pytest.raises(ValueError, match="clipcov_subset of .* was made from another ranking: materialize it again"):
        ask(own_store, uid, method="clipcov", crawl="crawl-2")


def test_a_partner_that_the_pool_has_lost_is_named(tmp_path):
    store = ranked_pool(tmp_path, "semdedup")
    row = ranking(store, "semdedup")[-1]
    pool = store.read("pool", "crawl-2")
    store.write(
        "pool", "crawl-2", pool.filter(pc.not_equal(pool["uid"], row["partner"])), store.metadata("pool", "crawl-2")
    )
    with pytest.raises(ValueError, match=f"semdedup_ranking of crawl-2 names '{row['partner']}', which the pool lacks"):
        ask(store, row["uid"], method="semdedup", crawl="crawl-2")


def test_pools_and_what_can_be_asked_about_them_are_listed(store, tmp_path):
    catalog = catalog_of(store)
    assert (pools(store, catalog), newest_pool(store, catalog)) == (["crawl-1", "crawl-2"], "crawl-2")
    assert askable(store, "crawl-2") == [*METHODS, ABLATION, *(one.name for one in COMBINATIONS)]
    assert askable(store, "crawl-1") == []
    with pytest.raises(KeyError, match="no crawl has a pool in .*: materialize pool"):
        newest_pool(LanceStore(uri=str(tmp_path / "empty")), catalog)
