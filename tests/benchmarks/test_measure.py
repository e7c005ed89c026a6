import os
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks import measure
from benchmarks.measure import Floor, Measurement, Work, in_fresh_process, in_words, run

MEBIBYTE = 2**20


def sleepy(case: str, scale: float) -> Work:
    made: list[str] = []

    def set_up() -> int:
        time.sleep(0.2)
        made.append(case)
        return len(made)

    return Work(
        set_up, call=lambda which: time.sleep(0.01) or which, floor=Floor("sleep"), facts=lambda run: {"run": run}
    )


def test_setting_up_is_anew_for_every_run_and_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "LEAST_RUNS", 3)
    slept = run(sleepy, "case", 1.0)
    assert len(slept.seconds) == slept.facts["run"] == 3
    assert 0.01 <= slept.median < 0.1


def test_the_median_run_counts() -> None:
    assert Measurement((5.0, 1.0, 2.0), 0, 0, Floor("")).median == 2.0


def peak_after(mebibytes: int) -> tuple[int, int]:
    np.ones(mebibytes * MEBIBYTE, np.int8)
    return os.getpid(), measure.peak_memory()


def test_each_measurement_has_a_process_of_its_own_and_its_own_peak() -> None:
    large, small = (in_fresh_process(peak_after, mebibytes) for mebibytes in (200, 1))
    assert len({large[0], small[0], os.getpid()}) == 3
    assert large[1] - small[1] > 150 * MEBIBYTE


def test_memory_of_children_counts_only_where_they_do_the_work() -> None:
    before = measure.peak_memory()
    subprocess.run([sys.executable, "-c", f"b'x' * {300 * MEBIBYTE}"], check=True)
    assert measure.peak_memory(in_children=True) > 300 * MEBIBYTE
    assert measure.peak_memory() - before < 100 * MEBIBYTE


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0000123, "0.0123 ms"), (0.4567, "457 ms"), (1, "1.00 s"), (12.34, "12.3 s"), (1234.5, "1,234 s")],
)
def test_durations_have_three_digits(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
