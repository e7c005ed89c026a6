"""What is asked of a subset: the objective and double greedy, on the head of a ranking that holds half the pool."""

from collections.abc import Mapping

from benchmarks.floors import embedding_bytes
from benchmarks.measure import Benchmark, Floor, Line, Measurement, Work, in_words, scaled
from benchmarks.pools import head, size_in_bytes
from benchmarks.ranking import WARM_UP_ROWS
from benchmarks.works.complete_ranking import PAIRS, skewed_pool
from clipcov_assets.core import METHODS, Pool, double_greedy, objective


def prepare(case: str, scale: float) -> Work:
    """Rank the pool, untimed; the case is the function that is asked about the ranking's first half."""
    columns = skewed_pool(scale)
    n, width = columns["image_embeddings"].shape
    pool = Pool(**columns)
    half = METHODS["clipcov"](pool, max(1, n // 2)).order
    ask = {"objective": objective, "double_greedy": double_greedy}[case]
    few = Pool(**head(columns, WARM_UP_ROWS))
    return Work(
        set_up=lambda: Pool(**columns),
        call=lambda pool: ask(pool, half),
        floor=FLOORS[case](embedding_bytes(columns), n, width),
        inputs=size_in_bytes(columns),
        warm_up=lambda: ask(few, few.by_uid[::2]),
        facts=lambda answer: {"answer": answer if case == "objective" else answer[1], "subset": len(half)},
    )


FLOORS = {
    # 2 d additions a pair of the pool; 2 d additions and sim(e, e), 2 d, a pair of the subset
    "objective": lambda size, n, width: Floor(
        "every embedding is read once, for the means of the classes", bytes=size, operations=4.0 * n * width
    ),
    # 2 d additions a pair of the pool; two gains (4 d each) and two sums (2 d each) a pair of the subset
    "double_greedy": lambda size, n, width: Floor(
        "every embedding is read once, for the means of the classes; two gains a pair of the subset",
        bytes=size,
        operations=8.0 * n * width,
    ),
}


def lines(measured: Mapping[str, Measurement], scale: float) -> list[Line]:
    """Return a line for each function."""
    value, removed = measured["objective"], measured["double_greedy"]
    pairs = f"of {value.facts['subset']:,} picks, {scaled(PAIRS, scale):,} x 512 float32"
    return [
        Line(f"`objective` {pairs}", in_words(value.median), measurement=value),
        Line(
            f"`double_greedy` {pairs}",
            in_words(removed.median),
            measurement=removed,
            note=f"removes {removed.facts['answer']:,} pairs",
        ),
    ]


BENCHMARK = Benchmark("objective and double greedy of a subset of 100,000", tuple(FLOORS), prepare, lines)
