import numpy as np
import pytest

from clipcov_assets.export.subset_files.export_format import ExportError
from tests.subsets import export, raw_pair, two_crawls, write_subset

UIDS = ("ffffffffffffffff0000000000000001", "0000000000000001ffffffffffffffff", "8000000000000000" * 2)


def test_uids_are_a_sorted_array_of_upper_and_lower_halves(tmp_path):
    store = write_subset(tmp_path, {"crawl-2": [raw_pair(n, uid=uid) for n, uid in enumerate(UIDS)]}, UIDS)
    (done,) = export(store, tmp_path / "out", "datacomp")
    found = np.load(done.directory / "uids.npy", mmap_mode="r", allow_pickle=False)
    expected = np.array([(int(uid[:16], 16), int(uid[16:], 16)) for uid in UIDS], np.dtype("u8,u8"))
    expected.sort()
    assert found.dtype == np.dtype("u8,u8")
    assert np.array_equal(found, expected)


def test_the_resharders_bisection_finds_the_chosen_uids_and_no_others(tmp_path):
    (done,) = export(two_crawls(tmp_path), tmp_path / "out", "datacomp")
    subset = np.load(done.directory / "uids.npy")
    keys = np.array([divmod(seed, 2**64) for seed in range(30)], np.dtype("u8,u8"))
    copies = [int(np.searchsorted(subset, key, "right") - np.searchsorted(subset, key, "left")) for key in keys]
    assert copies == [seed % 2 for seed in range(30)]


@pytest.mark.parametrize("uid", ["cat-1", "0" * 31, "0" * 33, "0" * 31 + "g", "0" * 32 + "\n"])
def test_another_uid_is_named_with_the_remedy_and_nothing_is_written(tmp_path, uid):
    store = write_subset(tmp_path, {"crawl-2": [raw_pair(0), raw_pair(1, uid=uid)]}, [raw_pair(0)["uid"], uid])
    with pytest.raises(ExportError, match="1 of 2 are not, first") as refused:
        export(store, tmp_path / "out", "parquet", "datacomp")
    assert repr(uid) in str(refused.value)
    assert "parquet, keys or webdataset" in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_uids_that_differ_in_case_alone_are_refused(tmp_path):
    uids = ["ab" * 16, "AB" * 16]
    store = write_subset(tmp_path, {"crawl-2": [raw_pair(n, uid=uid) for n, uid in enumerate(uids)]}, uids)
    with pytest.raises(ExportError, match=uids[0]):
        export(store, tmp_path / "out", "datacomp")
