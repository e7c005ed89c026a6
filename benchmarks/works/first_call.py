"""What the first call costs a new process, from the start of Python to its end: imports, compilation, ranking."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.measure import Benchmark, Floor, Line, Measurement, Work, best_of, in_words, scaled
from benchmarks.pools import clip_like, equal_sizes, size_in_bytes

PAIRS, CLASSES, BAR = 10_000, 10, 5.0
IMPORTS = "import numpy, numba"
SCRIPT = """
import sys
import numpy as np
from clipcov_assets.core import METHODS, Pool
pool = Pool(**np.load(sys.argv[1]))
METHODS["clipcov"](pool, len(pool))
"""


def prepare(case: str, scale: float) -> Work:
    """Write a pool to a temporary file; "empty cache" gives every run a cache of compiled kernels of its own."""
    columns = clip_like(equal_sizes(scaled(PAIRS, scale), CLASSES))
    directory = tempfile.TemporaryDirectory()
    cache = Path(directory.name, "cache")
    np.savez(Path(directory.name, "pool.npz"), **columns)

    def start(cache: Path) -> None:
        run_python(SCRIPT, f"{directory.name}/pool.npz", cache=cache)

    empty = case == "empty cache"
    return Work(
        set_up=lambda: Path(tempfile.mkdtemp(dir=directory.name)) if empty else cache,
        call=start,
        floor=Floor(
            f"a process that does nothing but `{IMPORTS}`, measured in the same run",
            seconds=best_of(lambda: run_python(IMPORTS, cache=cache)),
        ),
        inputs=size_in_bytes(columns),
        warm_up=lambda: None if empty else start(cache),
        in_children=True,
    )


def run_python(script: str, *arguments: str, cache: Path) -> None:
    """Run a script in a new process and wait for its end."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    subprocess.run([sys.executable, "-c", script, *arguments], env=environment, check=True)


def lines(measured: Mapping[str, Measurement], scale: float) -> list[Line]:
    """Return a line for each state of the cache."""
    return [
        Line(
            f"first call of a new process, {scaled(PAIRS, scale):,} pairs, {case} of kernels",
            in_words(measured[case].median),
            f"{BAR:g} s",
            measured[case].median <= BAR,
            measured[case],
        )
        for case in BENCHMARK.cases
    ]


BENCHMARK = Benchmark("first call of a new process, 10,000 pairs", ("empty cache", "full cache"), prepare, lines)
