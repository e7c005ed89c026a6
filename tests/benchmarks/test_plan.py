import io
import os
import re
import runpy
import sys
import time
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import pytest
import yaml

from benchmarks import plan, plan_rates
from benchmarks.plan import PROXIES, SIZES, Origin, Quantity, Rates
from benchmarks.pools import equal_sizes
from benchmarks.tables import CRAWL, write_pool
from resources.lance_store import LanceStore
from resources.text_columns import narrowed

CC3M, CC12M, MEDIUM, LARGE, XLARGE = SIZES
WIDTH = PROXIES["ViT-B-32"].width
ORIGIN = re.compile(r"(measured|given|assumed|from measured|(given|assumed): [a-z_]+(, [a-z_]+)*)$")


def rates(**values: float) -> Rates:
    return plan.default_rates(PROXIES["ViT-B-32"]).replaced(values, Origin.GIVEN, "the test")


@cache
def printed(*arguments: str) -> str:
    with redirect_stdout(io.StringIO()) as out:
        plan.main(arguments)
    return out.getvalue()


def test_bytes_of_a_pair_are_those_of_a_real_store(tmp_path: Path) -> None:
    pairs = 3_000
    write_pool(str(tmp_path), equal_sizes(pairs, 10))
    store, rows = LanceStore(uri=str(tmp_path)), plan.row_bytes(rates(), 512)
    for asset in ("embeddings", "latent_classes", "pool"):
        expected = rows[asset.replace("_", " ")].value
        (stored,) = narrowed(store.read(asset, CRAWL))
        assert stored.nbytes / pairs == pytest.approx(expected, rel=0.02)
        files = (tmp_path / f"{asset}.{CRAWL}.lance").rglob("*")
        assert sum(file.stat().st_size for file in files if file.is_file()) / pairs < 1.01 * expected


def test_raw_pairs_are_their_images_and_the_bytes_around_them() -> None:
    row = plan.row_bytes(rates(image_bytes=20_000, caption_bytes=50, uid_bytes=32), 512)["raw pairs"]
    assert row.value == 20_000 + 8 + 50 + 4 + 32 + 4 + 34 + 8 + 16


def test_crawls_add_up_to_the_pool_and_each_brings_a_pool_of_its_own() -> None:
    found = {one.name: one for one in plan.stored(CC12M, rates(crawls=4), WIDTH)}
    raw, pool = found["raw pairs"], found["pool"]
    assert raw.total.value == pytest.approx(4 * raw.crawl.value)
    assert pool.total.value == pytest.approx(pool.crawl.value * (1 / 4 + 2 / 4 + 3 / 4 + 1))


@pytest.mark.parametrize(("workers", "seconds"), [(1, 12.0), (2, 7.0), (3, 5.0), (9, 5.0)])
def test_a_worker_that_is_free_takes_the_next_task(workers: int, seconds: float) -> None:
    assert plan.makespan([5, 3, 2, 2], workers) == seconds


def test_ranking_takes_less_time_with_workers_until_the_largest_class_bounds_it() -> None:
    known = rates(largest_class=0.05, rank_speedup=2, at_once=4_096)
    times = [plan.ranking(LARGE.pairs, 1_000, count, known, WIDTH).value for count in (1, 4, 16, 64, 512, 4_096)]
    bound = plan.rank_seconds(LARGE.pairs, known, WIDTH).max()
    assert times == sorted(times, reverse=True)
    assert times[1] == pytest.approx(times[0] / 4, rel=0.2)
    assert times[-1] == times[-2] == pytest.approx(bound)


def test_more_workers_than_class_shards_have_nothing_to_do() -> None:
    known = rates(largest_class=0.001, at_once=512)
    of = {count: plan.ranking(LARGE.pairs, 64, count, known, WIDTH).value for count in (64, 512)}
    assert of[64] == of[512] > plan.ranking(LARGE.pairs, 512, 512, known, WIDTH).value


def test_more_workers_than_shards_that_dagster_runs_at_once_have_nothing_to_do() -> None:
    few, many = rates(largest_class=0.001, at_once=4), rates(largest_class=0.001, at_once=64)
    of = {count: plan.ranking(CC12M.pairs, 64, count, few, WIDTH) for count in (4, 64)}
    assert of[4].value == of[64].value > plan.ranking(CC12M.pairs, 64, 64, many, WIDTH).value
    assert "at_once" in of[64].uses


def test_as_many_shards_run_at_once_as_the_instance_lets_runs() -> None:
    instance = yaml.safe_load((Path(__file__).parents[2] / "dagster.yaml").read_text())
    assert rates()["at_once"].value == instance["concurrency"]["runs"]["max_concurrent_runs"]


def test_two_workers_are_as_much_faster_than_one_as_was_measured() -> None:
    known = rates(largest_class=0.001, classes=1_000, rank_speedup=1.6)
    one, two = (plan.ranking(CC12M.pairs, 64, count, known, WIDTH).value for count in (1, 2))
    assert one / two == pytest.approx(1.6, rel=0.01)


def test_classes_share_the_pool() -> None:
    sizes = plan.class_sizes(1_000, rates(largest_class=0.25, classes=4))
    assert sizes.tolist() == [250, 250, 250, 250]


def test_embedding_waits_for_decoding_where_too_few_cores_decode() -> None:
    known = rates(embed=1_000, decode=100, cores_of_gpu=2, decode_speedup=2, lance_write=1e30)
    assert plan.embedding(1e6, 1, known, WIDTH).value == pytest.approx(1e6 / 200)
    enough = known.replaced({"cores_of_gpu": 20}, Origin.GIVEN, "")
    assert plan.embedding(1e6, 4, enough, WIDTH).value == pytest.approx(1e6 / 4_000)


def test_the_table_that_one_process_writes_bounds_embedding() -> None:
    known = rates(lance_write=1e9)
    least = plan.row_bytes(known, WIDTH)["embeddings"].value * LARGE.pairs / 1e9
    assert least < plan.embedding(LARGE.pairs, 100_000, known, WIDTH).value < 1.01 * least


def test_a_step_of_one_process_takes_as_long_with_any_number_of_workers() -> None:
    for step in plan.steps(CC12M, rates(), WIDTH):
        assert (step.seconds(512).value < step.seconds(1).value) is step.divided
        assert step.where in plan.WHERE


def test_a_training_of_so_many_samples_sees_a_large_subset_less_than_once() -> None:
    found = {(one.budget, one.fraction): one for one in plan.trainings(LARGE, rates(train=1_000))}
    one = found["comparable", 0.1]
    assert (one.samples, one.epochs, one.hours.value) == (12.8e6, 0.1, pytest.approx(12.8e6 / 3.6e6))


def test_arithmetic_remembers_every_rate() -> None:
    a, b = Quantity(6, frozenset("a")), Quantity(3, frozenset("b"))
    assert (a + b, a * b, a / b, 1 / b) == (
        Quantity(9, frozenset("ab")),
        Quantity(18, frozenset("ab")),
        Quantity(2, frozenset("ab")),
        Quantity(1 / 3, frozenset("b")),
    )
    assert plan.largest(a, b, 7) == Quantity(7, frozenset("ab"))


def test_a_computed_number_is_as_sure_as_its_weakest_rate() -> None:
    known = rates(embed=3_000).replaced({"decode": 400}, Origin.MEASURED, "this run")
    assert known.origin(known["decode"] * 2) == "from measured"
    assert known.origin(known["decode"] * known["embed"]) == "given: embed"
    assert known.origin(known["decode"] * known["embed"] + known["train"]) == "assumed: train"
    assert known.origin(plan.quantity(3)) == "given"


def test_a_limit_is_the_pool_that_just_fits() -> None:
    found = plan.largest_pool(lambda pairs: pairs * Quantity(500, frozenset("a")), Quantity(1e12, frozenset("b")))
    assert found.value == pytest.approx(2e9, rel=1e-3)
    assert found.uses == {"a", "b"}


def test_limits_grow_with_the_memory_and_are_sorted() -> None:
    name = "memory of one process: semdedup, k-means"
    small, large = (plan.limits(MEDIUM, rates(memory=memory), WIDTH, 64) for memory in (1e11, 1e12))
    fits = [next(one.pairs.value for one in found if one.what == name) for found in (small, large)]
    assert fits[1] == pytest.approx(10 * fits[0], rel=1e-2)
    assert [one.pairs.value for one in small] == sorted(one.pairs.value for one in small)
    assert all(one.remedy for one in small)


def test_only_memory_and_time_limit_a_pool_before_places_outgrow_32_bits() -> None:
    limits = {one.what: one.pairs.value for one in plan.limits(MEDIUM, rates(), WIDTH, 64)}
    counts = {what: pairs for what, pairs in limits.items() if not what.startswith(("memory of", "more than a day"))}
    assert counts == {"places of pairs in 32 bits (pool_tables.places_of)": 2**31}


GIVEN = ("--rate", "embed=1000", "--proxy", "ViT-B-32", "--workers", "1,8")


def test_every_printed_line_says_where_it_comes_from() -> None:
    lines = printed(*GIVEN).splitlines()
    starts = [place for place, line in enumerate(lines) if line.endswith("  origin")]
    rows = [line for start in starts for line in lines[start + 1 : lines.index("", start)]]
    assert len(rows) > 150
    assert [row for row in rows if ORIGIN.search(row) is None] == []
    assert "measured" not in {row.split()[-1] for row in rows}, "nothing was measured"


def test_the_tables_take_the_place_of_earlier_ones_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "scaling.md"
    page.write_text(f"Before.\n{plan.BEGIN}\nan earlier run\n{plan.END}\nAfter.\n")
    monkeypatch.setattr(plan, "PAGE", page)
    plan.main(["--write", "--workers", "1"])
    before, written, after = re.split(f"{plan.BEGIN}|{plan.END}", page.read_text())
    assert (before, after) == ("Before.\n", "\nAfter.\n")
    rows = [line.strip("| ") for line in written.splitlines() if line.startswith("| ") and not line.startswith("| -")]
    assert [row for row in rows if ORIGIN.search(row) is None and not row.endswith("origin")] == []
    assert "an earlier run" not in written


def test_the_page_has_the_marks_between_which_the_tables_belong() -> None:
    page = (Path(__file__).parents[2] / "docs/scaling.md").read_text()
    assert page.index(plan.BEGIN) < page.index(plan.END)


def test_a_rate_that_is_given_takes_the_place_of_an_assumption() -> None:
    assert re.search(r"GPU hours of the model +0\.9 +3\.5 .* given: embed\n", printed(*GIVEN))


@pytest.mark.parametrize("text", ["embed", "embed=", "embed=0", "embed=-1", "embed=nan", "embed=inf", "=3"])
def test_a_rate_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(SystemExit):
        plan.main(["--rate", text])


def test_an_unknown_rate_ends_with_an_error_that_lists_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["plan", "--rate", "speed=3"])
    with pytest.raises(SystemExit, match="error: unknown rate 'speed': choose from embed,"):
        runpy.run_path(str(plan.__file__), run_name="__main__")


@pytest.mark.parametrize("text", ["", "0", "1,,2", "many"])
def test_workers_are_numbers(text: str) -> None:
    with pytest.raises(SystemExit):
        plan.main(["--workers", text])


def test_what_is_measured_on_names_is_what_the_assets_do(tmp_path: Path) -> None:
    plan_rates.write_names(str(tmp_path), 300)
    for work in plan_rates.NAMES.values():
        work(str(tmp_path), 300)
    store = LanceStore(uri=str(tmp_path))
    everyone = sorted(store.read("pool", CRAWL, ["uid"])["uid"].to_pylist())
    for method in ("clipcov", "random", "clip_score", "metaclip"):
        assert sorted(store.read(f"{method}_ranking", CRAWL, ["uid"])["uid"].to_pylist()) == everyone
    assert sorted(store.read("pool", "joined", ["uid"])["uid"].to_pylist()) == everyone


def test_rates_of_embeddings_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (str(tmp_path / name) for name in ("few", "many"))
    monkeypatch.setattr(plan_rates, "SMALL", 200)
    monkeypatch.setattr(plan_rates, "WIDE_PAIRS", 400)
    for uri, pairs in ((few, 200), (many, 400)):
        write_pool(uri, equal_sizes(pairs, 4))
    plan_rates.rank_shard(many, [0, 1])
    found = {
        **plan_rates.lance_rates(many),
        **plan_rates.semdedup_rates(few, many),
        "subset": plan_rates.subset_rate(few, many),
    }
    assert set(found) <= set(rates().known)
    assert all(value > 0 for name, value in found.items() if name != "images_memory")


def test_the_time_of_a_class_grows_with_an_exponent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_rates, "CLASS_SIZES", (500, 1_000, 4_000))
    found = plan_rates.class_kernel()
    assert set(found) == {"class_exponent", "class_seconds"}
    assert 0.5 < found["class_exponent"] < 3


def test_workers_keep_to_a_core_each_and_run_at_once() -> None:
    with plan_rates.Workers(2) as workers:
        assert len(workers.call(os.sched_getaffinity, 0)) == 1
        assert 0.5 <= workers.seconds(time.sleep, [(0.5,), (0.5,)]) < 1


def test_sizes_are_those_that_were_published() -> None:
    assert [round(size.pairs / 1e6, 1) for size in SIZES] == [3.3, 12.4, 128, 1_280, 12_800]
    assert all(size.why for size in SIZES)


def test_k_means_compares_every_image_with_every_centroid_21_times() -> None:
    assert plan_rates.kmeans_operations(100, 8) == 2 * 8 * 100 * 10 * 21


def test_each_size_is_told_what_breaks_first() -> None:
    told = printed(*GIVEN)
    worker = r"memory of a worker: clipcov, class shards, at \d\d\.\d million pairs \(assumed: .*worker_memory\)"
    assert re.search(rf"nothing breaks; the next limit is: {worker}", told[told.index("CC12M, ") :])
    assert re.search(rf"the first to break is: {worker}", told[told.index("DataComp medium, ") :])


def test_what_two_workers_fall_short_of_is_the_serial_part() -> None:
    shares = [plan.amdahl(Quantity(1.6), count).value for count in (1, 2, 10**9)]
    assert shares == pytest.approx([1, 1 / 1.6, 0.25])
    assert plan.amdahl(Quantity(2.1), 4).value == 0.25


def test_workers_never_make_a_ranking_slower() -> None:
    for speedup in (0.8, 1.05, 1.9):
        known = rates(largest_class=0.16, rank_speedup=speedup, at_once=512)
        times = [plan.ranking(CC12M.pairs, 64, count, known, WIDTH).value for count in (1, 2, 8, 64, 512)]
        assert times == sorted(times, reverse=True)
