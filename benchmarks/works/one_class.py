"""Half of one latent class, ours against the lazy graph cuts of apricot and submodlib.

With one class, F_ClipCov is (1/n) (sum over i in V, j in S of s_ij - 1/2 sum over i, j in S of s_ij) + sum over j in
S of m_j: graph cut and a number for each pair. Both peers can be told to maximise it. submodlib's graph cut with lambda
1/2 is n times that, apricot's with alpha 2 is 2 n times that, and a pair's number goes into the diagonal, where 2 n m_j
adds n m_j to the one and 2 n m_j to the other. So all sides have the same greedy order, for the class term alone
("graph cut") and for all terms ("F_ClipCov").

Ours starts from embeddings. So do the peers, whose time includes the n x n matrix that they need; "from matrix" finds
it made, so that the peer's own code is timed alone.
"""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.floors import of_clipcov
from benchmarks.measure import Benchmark, Floor, Line, Measurement, Work, in_words, scaled, three_digits
from benchmarks.pools import Columns, clip_like, head, size_in_bytes
from clipcov_assets.core import METHODS, Pool

Array = NDArray[Any]

PAIRS, WARM_UP_PAIRS, ALPHA = 5_000, 64, 0.5
BARS = {"apricot": 30, "submodlib": 100}  # times ours
OBJECTIVES = {"graph cut": ("class",), "F_ClipCov": ("class", "self", "label", "class_reg", "inter")}
OURS, FROM_MATRIX, COMPILATION = "clipcov", "from matrix", "apricot, compilation"


def by_clipcov(columns: Columns, picks: int, objective: str) -> Array:
    """Return (picks,) rows in our order; the pool is made and checked as well."""
    return METHODS["clipcov"](Pool(**columns), picks, alpha=ALPHA, terms=OBJECTIVES[objective]).order


def by_apricot(matrix: Array, picks: int) -> Array:
    """Return (picks,) rows in the order of apricot's lazy greedy."""
    from apricot import GraphCutSelection

    order: Array = GraphCutSelection(picks, metric="precomputed", alpha=2, optimizer="lazy").fit(matrix).ranking
    return order


def by_submodlib(matrix: Array, picks: int) -> Array:
    """Return (picks,) rows in the order of submodlib's lazy greedy."""
    from submodlib import GraphCutFunction

    function = GraphCutFunction(n=len(matrix), mode="dense", lambdaVal=0.5, separate_rep=False, ggsijs=matrix)
    chosen = function.maximize(
        budget=picks,
        optimizer="LazyGreedy",
        stopIfZeroGain=False,
        stopIfNegativeGain=False,
        show_progress=False,
    )
    return np.array([row for row, _ in chosen])


def apricot_compilation(matrix: Array, picks: int) -> None:
    """Compile, as every fit of apricot does, the kernel of its streaming optimizer, which lazy greedy never calls."""
    from apricot.functions.graphCut import calculate_gains_sieve, sieve_dtypes

    calculate_gains_sieve(sieve_dtypes, True, True, False)


PEERS: dict[str, Callable[[Array, int], Array]] = {"apricot": by_apricot, "submodlib": by_submodlib}


def similarities(columns: Columns, objective: str) -> Array:
    """Return (n, n) float64 sim(i, j) of Definition 4.1, with the other terms of the objective in the diagonal.

    There is no other class, and so no inter term.
    """
    images, texts = columns["image_embeddings"], columns["text_embeddings"]
    products = (images @ texts.T).astype(np.float64)  # the product is faster in float32; both peers compute in float64
    matrix: Array = products + products.T
    if objective == "F_ClipCov":
        n = len(matrix)
        labels = texts.astype(np.float64) @ columns["class_embeddings"][0].astype(np.float64)
        own = np.diag(matrix) + ALPHA * (1 - 1 / n) * labels - matrix.sum(axis=1) / n**2
        matrix[np.diag_indices(n)] += 2 * n * own
    return matrix


def prepare(case: str, scale: float) -> Work:
    """Make one class; its rows have rising uids, so that all sides break ties alike."""
    columns = clip_like([scaled(PAIRS, scale)])
    n, width = columns["image_embeddings"].shape
    columns["uid"] = np.arange(n)
    picks, few = max(1, n // 2), min(n, WARM_UP_PAIRS)
    side, objective, *start = case.split(", ") if case != COMPILATION else ("apricot", "graph cut", FROM_MATRIX)
    given, sample = (similarities(columns, objective), np.eye(few)) if start else (columns, head(columns, few))
    floor = Floor("every similarity is read once, for the sums of rows", bytes=8.0 * n**2, operations=1.0 * n**2)

    def select(given: Any, picks: int) -> Any:  # noqa: ANN401
        if case == COMPILATION:
            return apricot_compilation(given, picks)
        if side == OURS:
            return by_clipcov(given, picks, objective)
        return PEERS[side](given if start else similarities(given, objective), picks)

    if side == OURS:
        floor = of_clipcov(columns)
    elif not start:
        why = "the matrix is one product of embeddings, written once"
        floor = Floor(why, bytes=8.0 * n**2, operations=2.0 * n**2 * width)
    return Work(
        set_up=lambda: given,
        call=lambda given: select(given, picks),
        floor=floor,
        inputs=size_in_bytes(columns),
        warm_up=lambda: select(sample, 1),
        facts=lambda order: {"order": order},
    )


def lines(measured: Mapping[str, Measurement], scale: float) -> list[Line]:
    """Return ours, each peer, and how many times as long as ours it takes, for each objective."""
    n = scaled(PAIRS, scale)
    found = []
    for objective in OBJECTIVES:
        work = f"{objective}, {max(1, n // 2):,} picks from a class of {n:,} x 512"
        for side in (OURS, *BARS):
            if f"{side}, {objective}" in measured:
                one = measured[f"{side}, {objective}"]
                found.append(Line(f"{side}, {work}", in_words(one.median), measurement=one))
        found += [comparison(peer, objective, measured) for peer in BARS]
    return found


def comparison(peer: str, objective: str, measured: Mapping[str, Measurement]) -> Line:
    """Return how many times as long as ours a peer takes, and whether both did the same work."""
    work, bar = f"{peer} over {OURS}, {objective}, from embeddings", f"{BARS[peer]} x"
    if f"{peer}, {objective}" not in measured:
        return Line(work, "not measured", bar, note=f"{peer} is not installed here, or has no release for this python")
    ours, whole = measured[f"{OURS}, {objective}"], measured[f"{peer}, {objective}"]
    alone = measured[f"{peer}, {objective}, {FROM_MATRIX}"].median
    ratio = whole.median / ours.median
    notes = [
        agreement(ours.facts["order"], whole.facts["order"]),
        f"from a ready matrix it takes {in_words(alone)}, {three_digits(alone / ours.median)} x",
    ]
    if peer == "apricot":
        compilation = measured[COMPILATION].median
        without = [three_digits((seconds - compilation) / ours.median) for seconds in (whole.median, alone)]
        notes.append(
            f"in every fit {in_words(compilation)} go to compiling a kernel that lazy greedy never calls; without it "
            f"the ratios are {without[0]} x and {without[1]} x"
        )
    return Line(work, f"{three_digits(ratio)} x", bar, ratio >= BARS[peer], note="; ".join(notes))


def agreement(ours: Array, theirs: Array) -> str:
    """Return in words how far two orders agree; a pick that one side does not make agrees with nothing."""
    in_place = sum(a == b for a, b in zip(ours, theirs, strict=False)) / max(len(ours), len(theirs))
    shared = len(np.intersect1d(ours, theirs)) / max(len(ours), len(theirs))
    return f"{in_place:.2%} of the picks are the same pair at the same place, {shared:.2%} are in both subsets"


CASES = tuple(
    case
    for case in (
        *(f"{side}, {objective}" for objective in OBJECTIVES for side in (OURS, *PEERS)),
        *(f"{peer}, {objective}, {FROM_MATRIX}" for objective in OBJECTIVES for peer in PEERS),
        COMPILATION,
    )
    if case.startswith(OURS) or find_spec(case.partition(",")[0])
)

BENCHMARK = Benchmark("clipcov against apricot and submodlib, one class of 5,000", CASES, prepare, lines)
