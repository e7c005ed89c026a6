import pickle

import numpy as np
import polars as pl
import pytest

from clipcov_assets.ingest import parquet_rows
from clipcov_assets.ingest.datacomp import FORMAT
from clipcov_assets.ingest.delivery import DeliveryError, DeliveryOptions, Reason, content_uid


def unit_rows(n, d, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def write(directory, name="part", n=5, *, models=("b32", "l14"), save=np.savez, rows=None, **arrays):
    directory.mkdir(parents=True, exist_ok=True)
    columns = {
        "uid": [f"{name}{number:031x}" for number in range(n)],
        "url": ["https://example.org/1.jpg"] * n,
        "text": [f"caption {number}" for number in range(n)],
        "original_width": [5] * n,
    }
    pl.DataFrame(columns | (rows or {})).write_parquet(directory / f"{name}.parquet")
    for seed, model in enumerate(models):
        for part in ("img", "txt"):
            arrays.setdefault(f"{model}_{part}", unit_rows(n, 8 * (seed + 1), seed + (part == "txt") * 10))
    save(directory / f"{name}.npz", **arrays)
    return arrays


@pytest.fixture
def read(make):
    def read(directory, **options):
        shards = pickle.loads(pickle.dumps(FORMAT.shards(directory, DeliveryOptions(**options))))
        return [make.read(shard) for shard in shards]

    return read


def outcomes(shards):
    return [outcome for shard in shards for outcome in shard.outcomes]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_embeddings_belong_to_their_rows_in_every_shard(tmp_path, read, monkeypatch, save):
    monkeypatch.setattr(parquet_rows, "ROWS_A_RUN", 700)
    arrays = write(tmp_path / "metadata", n=2500, save=save)
    assert FORMAT.is_here(tmp_path)
    shards = read(tmp_path)
    assert len(shards) == 3
    pairs = [pair for shard in shards for pair in shard.pairs]
    assert [pair.place.row for pair in pairs] == list(range(2500))
    assert pairs[7].uid == f"part{7:031x}" and pairs[7].caption == "caption 7" and pairs[7].image is None
    for part, name in enumerate(("b32_img", "b32_txt")):
        np.testing.assert_array_equal([pair.embeddings[part] for pair in pairs], arrays[name])
        assert pairs[0].embeddings[part].dtype == np.float16


def test_the_options_choose_the_model_else_the_only_one_else_b32(tmp_path, read):
    write(tmp_path / "both")
    write(tmp_path / "one", models=("l14",))
    write(tmp_path / "other", models=("h14", "l14"))
    width = lambda name, **options: outcomes(read(tmp_path / name, **options))[0].embeddings[0].shape  # noqa: E731
    assert width("both", embeddings="l14") == (16,)
    assert width("one") == (8,)
    (both,) = read(tmp_path / "both")
    assert both.pairs[0].embeddings[0].shape == (8,)
    assert "b32 is taken over" in both.remarks[0]
    with pytest.raises(DeliveryError, match="h14, l14"):
        read(tmp_path / "other")
    with pytest.raises(DeliveryError, match="'h14'.*b32, l14"):
        read(tmp_path / "both", embeddings="h14")


def test_without_embeddings_the_images_are_missing(tmp_path, read):
    write(tmp_path)
    assert {fault.reason for fault in outcomes(read(tmp_path, embeddings="none"))} == {Reason.IMAGE_MISSING}


@pytest.mark.parametrize("n", [4, 6])
def test_counts_that_differ_leave_no_row_to_trust(tmp_path, read, n):
    write(tmp_path, models=("b32",), b32_img=unit_rows(n, 8))
    faults = outcomes(read(tmp_path))
    assert [fault.reason for fault in faults] == [Reason.EMBEDDING_MISSING] * 5
    assert f"part.npz has {n} rows, part.parquet has 5" in faults[0].detail


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(5, np.float16),
        np.zeros((5, 8), np.int8),
        np.zeros((5, 0), np.float16),
        np.asfortranarray(unit_rows(5, 8)),
        np.array([[object()] * 8] * 5),
        unit_rows(5, 9),
    ],
)
def test_arrays_that_are_no_rows_of_floats_are_refused(tmp_path, read, array):
    write(tmp_path, models=("b32",), b32_img=array)
    assert {fault.reason for fault in outcomes(read(tmp_path))} == {Reason.EMBEDDING_MISSING}


def test_an_npz_that_is_missing_or_damaged_spares_the_other_files(tmp_path, read):
    for name in "abcde":
        write(tmp_path, name, models=("b32",))
    (tmp_path / "b.npz").unlink()
    (tmp_path / "c.npz").write_bytes((tmp_path / "c.npz").read_bytes()[:-30])
    damaged = bytearray((tmp_path / "d.npz").read_bytes())
    damaged[30 + len("b32_img.npy") :][:10] = b"x"
    (tmp_path / "d.npz").write_bytes(damaged.replace(b"NUMPY", b"MUMPY"))
    write(tmp_path, "e", models=("l14",))
    shards = read(tmp_path)
    assert [len(shard.pairs) for shard in shards] == [5, 0, 0, 0, 0]
    assert {fault.reason for shard in shards for fault in shard.faults} == {Reason.EMBEDDING_MISSING}


def test_a_row_that_is_not_finite_or_not_unit_is_invalid(tmp_path, read):
    image, text = unit_rows(5, 8), unit_rows(5, 8, 1).astype(np.float32)
    image[0, 3], image[1] = np.nan, image[1] * np.float16(1.05)
    text[2], text[3] = 0, 1e30
    write(tmp_path, models=("b32",), b32_img=image, b32_txt=text)
    results = outcomes(read(tmp_path))
    assert [getattr(result, "reason", None) for result in results] == [Reason.EMBEDDING_INVALID] * 4 + [None]
    assert results[0].uid == f"part{0:031x}"


def test_a_pair_without_a_uid_is_named_by_its_embedding(tmp_path, read):
    arrays = write(
        tmp_path, rows={"uid": [None, "", "ok", "two\nlines", "x" * 200], "text": ["a", "b", None, "d", "e"]}
    )
    results = outcomes(read(tmp_path))
    assert results[0].uid == content_uid(arrays["b32_img"][0].tobytes(), "a")
    assert [getattr(result, "reason", None) for result in results] == [
        None,
        None,
        Reason.CAPTION_MISSING,
        Reason.METADATA_INVALID,
        Reason.METADATA_INVALID,
    ]


def test_a_parquet_that_is_missing_is_an_obstacle_and_one_cut_short_a_fault(tmp_path, read):
    write(tmp_path, "a")
    write(tmp_path, "b")
    (tmp_path / "b.parquet").write_bytes((tmp_path / "b.parquet").read_bytes()[:-9])
    assert FORMAT.obstacle(tmp_path) is None
    assert [fault.reason for shard in read(tmp_path) for fault in shard.faults] == [Reason.ROW_UNREADABLE]
    (tmp_path / "b.parquet").unlink()
    assert "b.npz has no b.parquet" in (FORMAT.obstacle(tmp_path) or "")


def test_a_fingerprint_changes_with_the_embeddings_that_are_taken(tmp_path):
    fingerprint = lambda: FORMAT.shards(tmp_path, DeliveryOptions())[0].fingerprint()  # noqa: E731
    write(tmp_path)
    before = fingerprint()
    write(tmp_path, l14_img=unit_rows(5, 16, 77))
    assert fingerprint() == before
    write(tmp_path, b32_txt=unit_rows(5, 8, 77))
    assert fingerprint() != before
