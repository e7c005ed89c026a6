"""One measurement: a case of a benchmark enters, a fresh process times it, seconds and peak memory leave."""

import gc
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Short work is repeated until its median is worth something, long work three times.
LEAST_RUNS, MOST_RUNS, ENOUGH_SECONDS = 3, 15, 10.0
REPEATS = 7


@dataclass(frozen=True)
class Floor:
    """What no method that does this work can avoid; the slowest of the three is the floor in seconds.

    Args:
        why: What is counted, in one sentence.
        bytes: Moved between memory and cores at least once.
        operations: float32 additions and multiplications.
        seconds: Measured in the same run, where neither bytes nor operations say it.
    """

    why: str
    bytes: float = 0.0
    operations: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Work:
    """A prepared piece of work.

    Args:
        set_up: Makes what `call` takes, anew for every run and not timed: a fresh object has nothing cached.
        call: What is timed.
        floor: Of one call.
        inputs: Bytes of the inputs, which the peak memory includes.
        warm_up: Runs once before all, so that kernels are compiled and libraries loaded.
        facts: What the report wants to know of the result.
        in_children: Whether the call does its work in processes that it starts, whose memory counts then.
        once: Whether the call is so long that one run has to do.
    """

    set_up: Callable[[], Any]
    call: Callable[[Any], Any]
    floor: Floor
    inputs: int = 0
    warm_up: Callable[[], object] = lambda: None
    facts: Callable[[Any], dict[str, Any]] = lambda result: {}
    in_children: bool = False
    once: bool = False


@dataclass(frozen=True)
class Measurement:
    """What a fresh process measured.

    Attributes:
        seconds: One a run.
        peak: Bytes of resident memory at the highest, inputs and their preparation included.
        inputs: Bytes of the inputs.
        floor: Of one run.
        facts: Of the last run's result.
    """

    seconds: tuple[float, ...]
    peak: int
    inputs: int
    floor: Floor
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Seconds of the median run."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Line:
    """One line of the report.

    Args:
        work: What was measured.
        measured: The figure, with its unit.
        bar: The figure to hold, or "" where there is none.
        holds: Whether it does.
        measurement: Gives memory, floor and gap; None for a line that compares others.
        note: What a reader must know to believe the figure.
    """

    work: str
    measured: str
    bar: str = ""
    holds: bool | None = None
    measurement: Measurement | None = None
    note: str = ""


@dataclass(frozen=True)
class Benchmark:
    """A subject to measure, case by case.

    Args:
        summary: One sentence for the command line.
        cases: Each is measured in a process of its own.
        prepare: From a case and a scale (1 is the full size) to the work. A function of a module, so that a
            fresh process finds it.
        lines: From the measurements of all cases and the scale to lines of the report.
        environment: Variables that are set for the processes that measure it.
    """

    summary: str
    cases: tuple[str, ...]
    prepare: Callable[[str, float], Work]
    lines: Callable[[Mapping[str, Measurement], float], list[Line]]
    environment: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment, which processes that are started meanwhile inherit."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def measure(prepare: Callable[[str, float], Work], case: str, scale: float) -> Measurement:
    """Time one case in a fresh process, which holds nothing that an earlier one left."""
    measurement: Measurement = in_fresh_process(run, prepare, case, scale)
    return measurement


def in_fresh_process(function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401
    """Return what a function of a module returns in a process that was started for it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return executor.submit(function, *arguments).result()


def run(prepare: Callable[[str, float], Work], case: str, scale: float) -> Measurement:
    """Prepare a case and time it in this process."""
    work = prepare(case, scale)
    work.warm_up()
    seconds: list[float] = []
    result = None
    least, most = (1, 1) if work.once else (LEAST_RUNS, MOST_RUNS)
    while len(seconds) < least or (len(seconds) < most and sum(seconds) < ENOUGH_SECONDS * scale):
        result = None  # the last run's result must not count into this one's memory
        inputs = work.set_up()
        gc.collect()
        start = time.perf_counter()
        result = work.call(inputs)
        seconds.append(time.perf_counter() - start)
    return Measurement(
        tuple(seconds), peak_memory(in_children=work.in_children), work.inputs, work.floor, work.facts(result)
    )


def best_of(call: Callable[[], object]) -> float:
    """Return the seconds of the fastest of several runs: a rate of the machine, not a measurement."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def peak_memory(*, in_children: bool = False) -> int:
    """Return the highest resident memory in bytes of this process, or of the largest of its ended children.

    Linux counts what the starting process held for its child, except in /proc; where that is read, it tells the
    process's own peak.
    """
    status = Path("/proc/self/status")
    if not in_children and status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_CHILDREN if in_children else resource.RUSAGE_SELF).ru_maxrss


def scaled(count: int, scale: float) -> int:
    """Return a count at this scale, at least 1."""
    return max(1, round(count * scale))


def in_words(seconds: float) -> str:
    """Return a duration with three digits."""
    return f"{three_digits(seconds)} s" if seconds >= 1 else f"{three_digits(1000 * seconds)} ms"


def three_digits(number: float) -> str:
    """Return a number with three digits, trailing zeros included, and never with an exponent above 1."""
    decimals = 2 if number < 10 else 1 if number < 100 else 0
    return f"{number:,.{decimals}f}" if number >= 1 else f"{number:.3g}"
