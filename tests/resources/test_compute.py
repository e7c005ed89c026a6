import pytest

from clipcov_assets.core.recipe import Execution
from resources.compute import Compute


@pytest.mark.parametrize(("side", "pairs"), [(32, 512), (224, 55), (2_000, 16)])
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
    assert Compute(backend="ray", ray_cpus=3).resolved_workers() == 3  # a part
    assert Compute(backend="ray").resolved_workers() == Compute().resolved_workers()  # what is done here all the same


def test_a_training_on_a_cpu_uses_one_device_unless_more_are_asked_for():
    assert Compute(device="cpu").resolved_devices() == 1
    assert Compute(device="cpu", devices=2).resolved_devices() == 2


def test_a_training_is_run_as_the_machine_is_told():
    found = Compute(device="cpu", precision="bfloat16", micro_batch=64, checkpoint_activations=True).execution()
    assert found == Execution(device="cpu", precision="bfloat16", micro_batch=64, checkpoint_activations=True)


def test_no_training_has_float16():
    with pytest.raises(ValueError, match="compute.precision is 'float16', which is for encoders only"):
        Compute(device="cpu", precision="float16").execution()
