import pickle

import numpy as np
import polars as pl
import pytest

from clipcov_assets.ingest.clip_retrieval import FORMAT
from clipcov_assets.ingest.delivery import DeliveryError, DeliveryOptions, Reason, content_uid


def unit_rows(n, d, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def write(directory, number=0, n=4, **columns):
    for name in ("img_emb", "text_emb", "metadata"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(("img_emb", "text_emb")):
        np.save(directory / name / f"{name}_{number}.npy", unit_rows(n, 8, seed + 10 * number))
    rows = {"image_path": [f"{row:09d}" for row in range(n)], "caption": [f"caption {row}" for row in range(n)]}
    pl.DataFrame(rows | columns).write_parquet(directory / "metadata" / f"metadata_{number}.parquet")


@pytest.fixture
def read(make):
    def read(directory, **options):
        shards = pickle.loads(pickle.dumps(FORMAT.shards(directory, DeliveryOptions(**options))))
        return [make.read(shard) for shard in shards]

    return read


def test_parts_are_joined_by_number_and_rows_by_position(tmp_path, read):
    for number in (0, 2, 10):
        write(tmp_path, number, uid=[f"{number}-{row}" for row in range(4)])
    assert FORMAT.is_here(tmp_path)
    assert FORMAT.obstacle(tmp_path) is None
    shards = read(tmp_path)
    assert [shard.pairs[3].uid for shard in shards] == ["0-3", "2-3", "10-3"]
    pair = shards[1].pairs[2]
    assert (pair.caption, pair.image) == ("caption 2", None)
    np.testing.assert_array_equal(pair.embeddings[0], unit_rows(4, 8, 20)[2])
    np.testing.assert_array_equal(pair.embeddings[1], unit_rows(4, 8, 21)[2])


def test_an_image_in_the_folder_is_taken_and_checked(tmp_path, read, make):
    (tmp_path / "a.png").write_bytes(make.image())
    (tmp_path / "b.png").write_bytes(b"no image")
    write(tmp_path, image_path=["a.png", "b.png", "/etc/passwd", None])
    (shard,) = read(tmp_path)
    assert [pair.image for pair in shard.pairs] == [make.image(), None, None]
    assert [fault.reason for fault in shard.faults] == [Reason.IMAGE_CORRUPT]
    assert shard.pairs[0].uid == content_uid(make.image(), "caption 0")
    assert shard.pairs[1].uid == content_uid(unit_rows(4, 8)[2].tobytes(), "caption 2")


def test_without_embeddings_an_image_is_needed(tmp_path, read, make):
    (tmp_path / "a.png").write_bytes(make.image())
    write(tmp_path, image_path=["a.png", "b.png", "/etc/passwd", None])
    (shard,) = read(tmp_path, embeddings="none")
    assert [pair.embeddings for pair in shard.pairs] == [None]
    assert [fault.reason for fault in shard.faults] == [
        Reason.IMAGE_MISSING,
        Reason.IMAGE_OUTSIDE,
        Reason.IMAGE_MISSING,
    ]


def test_a_model_cannot_be_chosen(tmp_path):
    write(tmp_path)
    with pytest.raises(DeliveryError, match="'b32'.*one model"):
        FORMAT.shards(tmp_path, DeliveryOptions(embeddings="b32"))


def test_counts_that_differ_leave_no_row_to_trust(tmp_path, read):
    write(tmp_path)
    np.save(tmp_path / "text_emb" / "text_emb_0.npy", unit_rows(3, 8))
    faults = read(tmp_path)[0].faults
    assert [fault.reason for fault in faults] == [Reason.EMBEDDING_MISSING] * 4
    assert "text_emb_0.npy has 3 rows, metadata_0.parquet has 4" in faults[0].detail


@pytest.mark.parametrize("damage", ["short", "gone", "pickle"])
def test_damaged_embeddings_cost_the_pairs_that_had_them(tmp_path, read, damage):
    write(tmp_path, n=3000)
    path = tmp_path / "img_emb" / "img_emb_0.npy"
    if damage == "short":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "gone":
        path.unlink()
    else:
        np.save(path, np.array([[print] * 8] * 3000, dtype=object), allow_pickle=True)
    (shard,) = read(tmp_path)
    assert len(shard.pairs) == (2048 if damage == "short" else 0)  # up to the block that is cut short
    assert {fault.reason for fault in shard.faults} == {Reason.EMBEDDING_MISSING}


def test_captions_that_were_not_written_are_missing(tmp_path, read):
    write(tmp_path)
    path = tmp_path / "metadata" / "metadata_0.parquet"
    pl.read_parquet(path).select("image_path").write_parquet(path)
    assert {fault.reason for fault in read(tmp_path)[0].faults} == {Reason.CAPTION_MISSING}


def test_a_part_without_metadata_is_unfinished(tmp_path):
    write(tmp_path)
    write(tmp_path, 1)
    (tmp_path / "metadata" / "metadata_1.parquet").unlink()
    assert "img_emb_1.npy is unfinished" in (FORMAT.obstacle(tmp_path) or "")


def test_metadata_cut_short_are_one_fault(tmp_path, read):
    write(tmp_path)
    write(tmp_path, 1)
    path = tmp_path / "metadata" / "metadata_1.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    shards = read(tmp_path)
    assert [len(shard.pairs) for shard in shards] == [4, 0]
    assert [fault.reason for fault in shards[1].faults] == [Reason.ROW_UNREADABLE]


def test_a_fingerprint_changes_with_rows_embeddings_and_images(tmp_path, make):
    fingerprints = set()

    def note():
        fingerprints.add(FORMAT.shards(tmp_path, DeliveryOptions())[0].fingerprint())

    write(tmp_path, image_path=["a.png"] * 4)
    note()
    (tmp_path / "a.png").write_bytes(make.image())
    note()
    np.save(tmp_path / "img_emb" / "img_emb_0.npy", unit_rows(4, 8, 5))
    note()
    write(tmp_path, image_path=["a.png"] * 4, caption=["x"] * 4)
    note()
    assert len(fingerprints) == 4
