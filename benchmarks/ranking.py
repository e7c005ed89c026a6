"""Rankings as timed work: columns and a method enter, work that ranks a fresh pool leaves."""

from collections.abc import Callable
from typing import Any

from benchmarks.measure import Floor, Work
from benchmarks.pools import Columns, head, size_in_bytes
from clipcov_assets.core import METHODS, Pool, Ranking

WARM_UP_ROWS = 2_000


def ranking_work(
    method: str,
    columns: Columns,
    floor: Floor,
    *,
    facts: Callable[[Ranking], dict[str, Any]] = lambda ranking: {},
    **own: Any,  # noqa: ANN401
) -> Work:
    """Return the complete ranking of a pool; making and checking the pool is not timed.

    Args:
        method: A key of `METHODS`.
        columns: Of the pool.
        floor: Of the ranking.
        facts: What the report wants to know of the ranking.
        own: The method's own parameters.
    """

    def rank(pool: Pool) -> Ranking:
        return METHODS[method](pool, len(pool), **own)

    return Work(
        set_up=lambda: Pool(**columns),
        call=rank,
        floor=floor,
        inputs=size_in_bytes(columns),
        warm_up=lambda: rank(Pool(**head(columns, WARM_UP_ROWS))),
        facts=facts,
    )
