"""MetaCLIP's complete ranking: every entry in every caption."""

from collections.abc import Mapping

import numpy as np

from benchmarks.measure import Benchmark, Floor, Line, Measurement, Work, in_words, scaled
from benchmarks.pools import captions_and_entries, uids
from benchmarks.ranking import ranking_work

CAPTIONS, ENTRIES, BAR = 1_000_000, 100_000, 60.0


def prepare(case: str, scale: float) -> Work:
    """Make captions, and entries that are found in them; looking the entries up includes building their index."""
    captions, entries = captions_and_entries(scaled(CAPTIONS, scale), scaled(ENTRIES, scale))
    columns = {"uid": uids(len(captions), np.random.default_rng(0)), "captions": captions}
    letters = sum(map(len, captions)) + sum(map(len, entries))
    return ranking_work(
        "metaclip",
        columns,
        Floor("every letter of the captions and the entries is read once", bytes=letters),
        facts=lambda ranking: {"matched": float((ranking.gains >= -len(captions)).mean())},
        entries=entries,
    )


def lines(measured: Mapping[str, Measurement], scale: float) -> list[Line]:
    """Return one line."""
    ranking = measured["ranking"]
    return [
        Line(
            f"metaclip, {scaled(CAPTIONS, scale):,} captions of 8 to 20 words, {scaled(ENTRIES, scale):,} entries",
            in_words(ranking.median),
            f"{BAR:g} s",
            ranking.median <= BAR,
            ranking,
            note=f"{ranking.facts['matched']:.1%} of the captions hold an entry",
        )
    ]


BENCHMARK = Benchmark("metaclip, 1,000,000 captions", ("ranking",), prepare, lines)
