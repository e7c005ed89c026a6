"""Sizes and repeats of a toy."""

import pytest

from benchmarks import measure


@pytest.fixture(autouse=True)
def one_run_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "LEAST_RUNS", 1)
    monkeypatch.setattr(measure, "MOST_RUNS", 1)
    monkeypatch.setattr(measure, "REPEATS", 1)
