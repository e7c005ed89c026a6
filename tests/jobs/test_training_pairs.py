import io
import multiprocessing
import pickle
from itertools import count, islice

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from clipcov_assets.core.clip_model import create_clip, weights_sha256
from clipcov_assets.core.encoding import encode_captions, encode_images, normalized, preparation, tokenize
from clipcov_assets.core.recipe import Execution, Recipe
from clipcov_assets.core.training import train_clip
from clipcov_assets.jobs import training_pairs
from clipcov_assets.jobs.embed import PairEncoder
from clipcov_assets.jobs.training_pairs import TrainingPairs, clip_scores_of
from clipcov_assets.subset_pairs import pairs_of_crawl, pairs_of_pool
from clipcov_assets.tables import RAW_PAIRS
from resources.lance_store import LanceStore
from tests.subsets import raw_pair, two_crawls, write_crawl, write_subset

CRAWL, EVERYTHING = "crawl-2", 2**30
ROWS = [np.array([5, 17, 2, 29, 5]), np.array([0]), np.arange(30)[::-1].copy(), np.array([16, 14, 15])]


@pytest.fixture(scope="module")
def clip():
    return create_clip("demo", seed=0)


@pytest.fixture
def store(tmp_path):
    """Thirty pairs of two crawls, which share three; by uid they are in the order of their numbers."""
    return two_crawls(tmp_path)


@pytest.fixture(autouse=True)
def small_items(monkeypatch):
    monkeypatch.setattr(training_pairs, "MOST_ITEM_PAIRS", 2)
    monkeypatch.setattr(training_pairs, "PAIRS_WORTH_WORKERS", 10)


def opened(found, clip, *, workers=0, cache_bytes=0):
    return TrainingPairs(found, preparation(clip), workers=workers, cache_bytes=cache_bytes, device="cpu")


def of_pool(store, clip, uid=None, **changes):
    return opened(pairs_of_pool(store, CRAWL, uid), clip, **changes)


def uids(numbers):
    return pa.chunked_array([[f"{number:032x}" for number in numbers]])


def expected(clip, numbers):
    rows = [raw_pair(number) for number in numbers]
    pixels = torch.stack([clip.preprocess(Image.open(io.BytesIO(row["image"]))) for row in rows])
    return pixels, tokenize(clip, [("", row["caption"]) for row in rows])


def assert_are(batch, clip, numbers):
    pixels, tokens = batch
    assert (pixels.dtype, tokens.dtype) == (torch.uint8, torch.int64)
    wanted_pixels, wanted_tokens = expected(clip, numbers)
    assert torch.equal(normalized(clip, pixels), wanted_pixels)
    assert torch.equal(tokens, wanted_tokens)


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("cache_bytes", [0, EVERYTHING])
def test_batches_are_the_pairs_asked_for_whoever_reads_them_and_wherever_they_are_kept(
    store, clip, workers, cache_bytes
):
    found = list(of_pool(store, clip, workers=workers, cache_bytes=cache_bytes).batches(iter(ROWS)))
    assert len(found) == len(ROWS)
    for batch, rows in zip(found, ROWS, strict=True):
        assert_are(batch, clip, rows.tolist())


def test_kept_and_read_pairs_lie_in_memory_alike(store, clip):
    (read, _), (kept, _) = (
        next(of_pool(store, clip, cache_bytes=cache_bytes).batches(ROWS)) for cache_bytes in (0, EVERYTHING)
    )
    assert read.stride() == kept.stride()


def test_images_are_read_once_where_they_fit_and_for_each_batch_where_they_do_not(store, clip, monkeypatch):
    read = []
    take = training_pairs.PreparedRows.__getitem__
    monkeypatch.setattr(
        training_pairs.PreparedRows, "__getitem__", lambda self, places: read.append(places) or take(self, places)
    )
    decoded = 30 * 3 * 32 * 32
    for cache_bytes, times in ((decoded, 1), (decoded - 1, 3)):
        pairs = of_pool(store, clip, cache_bytes=cache_bytes)
        assert not read  # opening reads none
        for _ in range(3):
            list(pairs.batches([np.arange(30)]))
        assert sum(len(rows) for _, rows in read) == 30 * times
        assert max(len(rows) for _, rows in read) == 2
        read.clear()


def test_a_subset_is_in_the_order_of_its_uids_whatever_order_it_comes_in(store, clip):
    pairs = of_pool(store, clip, uids([20, 3, 16, 8]))
    assert len(pairs) == 4
    assert_are(next(pairs.batches([np.arange(4)])), clip, [3, 8, 16, 20])


def test_a_crawl_that_is_in_no_pool_yet_can_be_read(tmp_path, clip):
    store = LanceStore(uri=str(tmp_path))
    write_crawl(store, "crawl-1", [raw_pair(number) for number in (7, 1, 4)])
    assert_are(next(opened(pairs_of_crawl(store, "crawl-1"), clip).batches([np.arange(3)])), clip, [1, 4, 7])


def test_the_pairs_are_those_that_the_pool_recorded_even_if_a_crawl_was_ingested_again(store, clip):
    write_crawl(store, "crawl-1", [raw_pair(number, caption="another") for number in range(18)])
    assert_are(next(of_pool(store, clip).batches(ROWS)), clip, ROWS[0].tolist())


def test_an_unknown_pair_is_named(store, clip):
    with pytest.raises(ValueError, match=f"{99:032x} .* is not in the pool of crawl-2"):
        of_pool(store, clip, uids([1, 99]))


@pytest.mark.parametrize("workers", [0, 2])
def test_any_number_of_batches_is_asked_for_only_a_little_ahead(store, clip, workers):
    asked = []

    def endless():
        for number in count():
            asked.append(number)
            yield np.array([number % 30])

    batches = of_pool(store, clip, workers=workers).batches(endless())
    for number, batch in enumerate(islice(batches, 40)):
        assert_are(batch, clip, [number % 30])
        assert len(asked) <= number + 1 + 2 * workers + 1


def test_workers_end_with_the_batches_and_with_whoever_stops_reading(store, clip):
    pairs = of_pool(store, clip, workers=1)
    list(pairs.batches(ROWS))
    stopped = pairs.batches(ROWS * 100)
    next(stopped)
    assert multiprocessing.active_children()
    stopped.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("cache_bytes", [0, EVERYTHING])
def test_random_numbers_of_others_are_left_alone(store, clip, cache_bytes):
    before = torch.get_rng_state()
    list(of_pool(store, clip, workers=1, cache_bytes=cache_bytes).batches(ROWS))
    assert torch.equal(torch.get_rng_state(), before)


def test_pairs_can_be_sent_to_another_process_at_any_time_and_without_their_images(store, clip):
    pairs = of_pool(store, clip, cache_bytes=EVERYTHING)
    before = len(pickle.dumps(pairs))
    list(pairs.batches(ROWS))
    sent = pickle.dumps(pairs)
    assert len(sent) == before
    assert_are(next(pickle.loads(sent).batches(ROWS)), clip, ROWS[0].tolist())


def test_pairs_without_an_image_are_counted_before_anything_is_read(tmp_path, clip):
    rows = [raw_pair(number, image=None) if number % 3 == 0 else raw_pair(number) for number in range(10)]
    store = write_subset(tmp_path, {CRAWL: rows}, [])
    with pytest.raises(ValueError, match=r"4 of 10 pairs have no image.*export the subset"):
        of_pool(store, clip)
    assert len(of_pool(store, clip, uids([1, 2]))) == 2


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("cache_bytes", [0, EVERYTHING])
def test_a_broken_image_is_named_with_its_crawl(tmp_path, clip, workers, cache_bytes):
    crawls = {"crawl-1": [raw_pair(number) for number in range(12)], CRAWL: [raw_pair(12, image=b"no image")]}
    pairs = of_pool(write_subset(tmp_path, crawls, []), clip, workers=workers, cache_bytes=cache_bytes)
    with pytest.raises(ValueError, match=f"image of pair {12:032x} of crawl-2 cannot be decoded"):
        list(pairs.batches([np.arange(13)]))


def test_the_digest_changes_with_what_is_trained_on_and_with_nothing_else(store, tmp_path, clip):
    digest = of_pool(store, clip).digest
    assert of_pool(store, clip, workers=2, cache_bytes=EVERYTHING).digest == digest
    assert of_pool(store, clip, uids(range(30))).digest == digest
    assert of_pool(store, clip, uids(range(29))).digest != digest
    together = write_subset(tmp_path / "together", {CRAWL: [raw_pair(number) for number in range(30)]}, [])
    assert of_pool(together, clip).digest == digest
    changed = [raw_pair(number, **({"caption": "another"} if number == 9 else {})) for number in range(30)]
    assert of_pool(write_subset(tmp_path / "changed", {CRAWL: changed}, []), clip).digest != digest


def test_a_training_ends_with_the_same_weights_wherever_its_pairs_are_kept(store):
    def trained(**changes):
        clip = create_clip("demo", seed=0)
        recipe = Recipe(batch_size=8, epochs=3, learning_rate=1e-3)
        train_clip(clip, of_pool(store, clip, **changes), recipe, Execution(), seed=0)
        return weights_sha256(clip.model)

    assert trained(workers=1, cache_bytes=0) == trained(workers=0, cache_bytes=EVERYTHING)


def test_all_pairs_are_read_once_in_the_order_of_their_tables(store, clip):
    batches = list(of_pool(store, clip).once(7))
    assert np.concatenate([rows for rows, *_ in batches]).tolist() == [*range(18), *reversed(range(18, 30))]
    for rows, *batch in batches:
        assert_are(batch, clip, rows.tolist())


@pytest.mark.parametrize("threads", [1, 2])
def test_clip_scores_are_those_of_pairs_in_memory(store, clip, threads):
    encoder = PairEncoder(clip, "cpu", "float32", batch_size=7, threads=threads)
    rows = [raw_pair(number) for number in range(30)]
    parts = (
        encode_images(clip, [("", row["image"]) for row in rows], device="cpu", batch_size=30),
        encode_captions(clip, [("", row["caption"]) for row in rows], device="cpu", batch_size=30),
    )
    image, text = (np.concatenate(list(part)) for part in parts)
    np.testing.assert_allclose(clip_scores_of(encoder, of_pool(store, clip)), (image * text).sum(axis=1), atol=1e-6)


def test_a_written_table_is_compact_for_random_reads(tmp_path):
    store = LanceStore(uri=str(tmp_path))
    for _ in range(2):
        batches = (pa.RecordBatch.from_pylist([raw_pair(number)], schema=RAW_PAIRS) for number in range(50))
        store.write("raw_pairs", CRAWL, pa.RecordBatchReader.from_batches(RAW_PAIRS, batches))
    assert store._open("raw_pairs", CRAWL).stats()["fragment_stats"]["num_fragments"] == 1
