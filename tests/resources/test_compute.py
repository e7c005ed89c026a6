import pytest

from resources.compute import Compute


@pytest.mark.parametrize(("side", "pairs"), [(32, 1_024), (224, 111), (2_000, 16)])
def test_a_batch_is_as_large_as_memory_allows(side, pairs):
    assert Compute(device="cpu").resolved_batch_size((side, side)) == pairs


def test_a_batch_size_that_is_given_is_kept():
    assert Compute(device="cpu", batch_size=3).resolved_batch_size((224, 224)) == 3


def test_a_cpu_computes_exactly_unless_told_otherwise():
    assert Compute(device="cpu").resolved_precision() == "float32"
    assert Compute(device="cpu", precision="bfloat16").resolved_precision() == "bfloat16"


def test_an_unknown_precision_is_named():
    with pytest.raises(ValueError, match="compute.precision is 'float8'"):
        Compute(precision="float8").resolved_precision()


def test_there_is_a_worker_a_core_unless_a_number_is_given():
    assert Compute().resolved_workers() >= 1
    assert Compute(workers=7).resolved_workers() == 7
