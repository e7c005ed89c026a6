from dataclasses import replace

import numpy as np
import pytest

from benchmarks import measure
from benchmarks.measure import Benchmark, Floor, Measurement
from benchmarks.pools import clip_like
from benchmarks.works import BENCHMARKS, embedding, evaluation, first_call, growth, one_class, training
from clipcov_assets import core
from clipcov_assets.core import Pool

TOY = 0.002
ON_DISK = {"out_of_core", "ingest", "embedding", "export", "training"}
ONLY_IN_NOTES = {case for case in one_class.CASES if case.endswith((one_class.FROM_MATRIX, one_class.COMPILATION))}


def measured(benchmark: Benchmark) -> dict[str, Measurement]:
    return {case: measure.run(benchmark.prepare, case, TOY) for case in benchmark.cases}


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name not in ("first_call", "year")])
def test_a_benchmark_measures_every_case_against_a_floor(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "LEAST_RUNS", 1)
    for works in (embedding, evaluation, training):  # to make ViT-B/32 takes longer than to measure it in small
        for case, model in works.CASES.items():
            monkeypatch.setitem(works.CASES, case, model._replace(architecture="demo"))
    found = measured(BENCHMARKS[name])
    assert all(case.median > 0 and case.peak > case.inputs for case in found.values())
    assert all(bool(case.inputs) is (name not in ON_DISK) for case in found.values())
    assert all(case.floor.bytes > 0 for case in found.values())
    lines = BENCHMARKS[name].lines(found, TOY)
    in_the_table = {id(line.measurement) for line in lines if line.measurement}
    assert in_the_table == {id(one) for case, one in found.items() if case not in ONLY_IN_NOTES}
    assert all(line.holds is not None for line in lines if line.bar and line.measured != "not measured")


def test_a_first_call_counts_the_whole_process() -> None:
    call = measure.run(first_call.prepare, "empty cache", TOY)
    assert call.median > call.floor.seconds > 0.05
    assert len(first_call.lines(dict.fromkeys(first_call.BENCHMARK.cases, call), TOY)) == 2


@pytest.mark.parametrize("objective", one_class.OBJECTIVES)
@pytest.mark.parametrize("peer", one_class.PEERS)
def test_peers_make_the_picks_that_we_make(peer: str, objective: str) -> None:
    pytest.importorskip(peer, reason="`make bench` installs the peers")
    cases = [f"{side}, {objective}{start}" for side, start in (("clipcov", ""), (peer, ""), (peer, ", from matrix"))]
    ours, *theirs = (measure.run(one_class.prepare, case, 0.05).facts["order"].tolist() for case in cases)
    assert theirs == [ours, ours]


@pytest.mark.parametrize("objective", one_class.OBJECTIVES)
def test_the_graph_cut_of_the_matrix_is_n_times_our_objective(objective: str) -> None:
    columns = clip_like([30], width=64, seed=5)
    chosen, terms = np.array([3, 7, 20, 21]), one_class.OBJECTIVES[objective]
    matrix = one_class.similarities(columns, objective)
    graph_cut = matrix[:, chosen].sum() - matrix[np.ix_(chosen, chosen)].sum() / 2
    assert graph_cut == pytest.approx(30 * core.objective(Pool(**columns), chosen, alpha=0.5, terms=terms), rel=1e-5)


def test_a_peer_is_compared_with_ours_from_embeddings() -> None:
    ours = Measurement((1.0, 9.0, 2.0), 0, 0, Floor("", bytes=1), {"order": np.arange(4)})
    theirs = replace(ours, seconds=(70.0,), facts={"order": np.array([0, 1, 3, 5])})
    found = {
        "clipcov, graph cut": ours,
        "apricot, graph cut": theirs,
        "apricot, graph cut, from matrix": replace(theirs, seconds=(50.0,)),
        one_class.COMPILATION: replace(theirs, seconds=(10.0,)),
    }
    apricot = one_class.comparison("apricot", "graph cut", found)
    assert (apricot.measured, apricot.bar, apricot.holds) == ("35.0 x", "30 x", True)
    assert "50.00% of the picks are the same pair at the same place, 75.00% are in both" in apricot.note
    assert "from a ready matrix it takes 50.0 s, 25.0 x" in apricot.note
    assert "30.0 x and 20.0 x" in apricot.note
    submodlib = one_class.comparison("submodlib", "graph cut", found)
    assert (submodlib.measured, submodlib.holds) == ("not measured", None)


def test_linear_growth_has_exponent_1_and_quadratic_2() -> None:
    assert growth.exponent([10, 100, 1000], [1, 10, 100]) == pytest.approx(1)
    assert growth.exponent([10, 100, 1000], [1, 100, 10_000]) == pytest.approx(2)
