import os

import pytest

from clipcov_assets.core.cores import core_count


@pytest.mark.parametrize(("told", "cores"), [("3", 3), ("4,2", 4), ("", None), ("0", None), ("many", None)])
def test_a_process_uses_the_cores_that_it_is_given_or_all(monkeypatch, told, cores):
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert core_count() == (cores or os.cpu_count())


def test_a_process_that_is_told_nothing_uses_all_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert core_count() == os.cpu_count()
