import io
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from clipcov_assets.core.clip_model import create_clip
from clipcov_assets.core.encoding import encode_captions, encode_images, preparation
from clipcov_assets.core.similarity import clip_scores
from clipcov_assets.jobs import embed
from clipcov_assets.jobs.embed import PairEncoder, StoredPairs, embed_pieces, missing_pieces, piece_rows
from clipcov_assets.jobs.ready_embeddings import MADE_WITH, delivered_embeddings, find_known, in_order, spot_check
from clipcov_assets.pool_tables import list_column
from clipcov_assets.tables import delivered_embeddings_schema, embeddings_schema
from resources.lance_store import LanceStore
from resources.pieces import Pieces

CRAWL, WIDTH = "crawl-1", 128


def content(seeds):
    return pa.array([seed.to_bytes(16, "big") for seed in seeds], pa.binary(16))


def picture(seed):
    stream = io.BytesIO()
    Image.frombytes("RGB", (40, 32), np.random.default_rng(seed).bytes(40 * 32 * 3)).save(stream, "PNG")
    return stream.getvalue()


def store_pairs(store, seeds, crawl=CRAWL, image=picture):
    columns = {
        "uid": [f"uid-{seed}" for seed in seeds],
        "caption": [f"a thing with number {seed}" for seed in seeds],
        "image": pa.array([image(seed) for seed in seeds], pa.large_binary()),
        "content": content(seeds),
    }
    version = store.write("raw_pairs", crawl, pa.table(columns)).version
    return StoredPairs(store.uri, crawl, version, preparation(create_clip("demo", seed=0)))


@dataclass(frozen=True, eq=False)
class Counting(PairEncoder):
    """Counts the pairs that it embeds, and stops after so many batches."""

    batches: list[int] = field(default_factory=list)
    most: int = 1_000

    def embed(self, prepared):
        if len(self.batches) == self.most:
            raise KeyboardInterrupt
        self.batches.append(sum(len(pixels) for pixels, _ in prepared))
        return super().embed(prepared)


def encoder(seed=0, **changes):
    clip = create_clip("demo", seed=seed)
    return Counting(**{"clip": clip, "device": "cpu", "precision": "float32", "batch_size": 8, **changes})


@pytest.fixture
def store(tmp_path):
    return LanceStore(uri=str(tmp_path / "lance"))


@pytest.fixture
def pieces(tmp_path):
    (tmp_path / "pieces").mkdir()
    return Pieces(tmp_path / "pieces")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(embed, "PIECE_PAIRS", 20)
    monkeypatch.setattr(embed, "MOST_ITEM_PAIRS", 3)


def embedded(model, pairs, pieces, places=None, *, workers=0, said=None):
    places = np.arange(len(pairs)) if places is None else places
    kept = pairs.rows.take(places, ["content"])["content"]
    report = [].append if said is None else said.append
    keys, missing = missing_pieces(model, places, kept, pieces, report=report)
    assert list(embed_pieces(model, pairs, missing, pieces, workers=workers, report=report)) == list(missing)
    return tuple(np.concatenate(rows) for rows in zip(*piece_rows(pieces, keys), strict=True))


def embedded_at_once(clip, pairs):
    uid = pairs["uid"].to_pylist()
    parts = (
        encode_images(clip, zip(uid, pairs["image"].to_pylist(), strict=True), device="cpu", batch_size=len(uid)),
        encode_captions(clip, zip(uid, pairs["caption"].to_pylist(), strict=True), device="cpu", batch_size=len(uid)),
    )
    return tuple(np.concatenate(list(part)) for part in parts)


def test_a_crawl_is_embedded_as_its_pairs_in_memory_are(store, pieces):
    pairs, model = store_pairs(store, range(50)), encoder()
    image, text = embedded(model, pairs, pieces)
    ours = embedded_at_once(model.clip, store.read("raw_pairs", CRAWL))
    for rows, other in zip((image, text), ours, strict=True):
        assert rows.dtype == np.float16
        np.testing.assert_allclose(rows, other, atol=1e-3)
    assert model.batches == [8, 8, 4, 8, 8, 4, 8, 2]


def test_embeddings_depend_on_no_number_of_threads_to_the_last_bit(store, pieces, tmp_path):
    pairs, threads = store_pairs(store, range(30)), torch.get_num_threads()
    alone, three = encoder(), encoder(threads=3)
    torch.set_num_threads(1)
    expected = embedded(alone, pairs, pieces)
    torch.set_num_threads(threads)
    (tmp_path / "others").mkdir()
    rows = embedded(three, pairs, Pieces(tmp_path / "others"))
    assert sorted(three.batches) == sorted(alone.batches)
    assert all(np.array_equal(one, other) for one, other in zip(rows, expected, strict=True))
    assert torch.get_num_threads() == threads


def test_workers_give_the_same_embeddings_to_the_last_bit(store, pieces, tmp_path, monkeypatch):
    monkeypatch.setattr(embed, "PAIRS_WORTH_WORKERS", 50)
    pairs = store_pairs(store, range(50))
    here = embedded(encoder(), pairs, pieces, workers=0)
    (tmp_path / "others").mkdir()
    there = embedded(encoder(), pairs, Pieces(tmp_path / "others"), workers=2)
    assert all(np.array_equal(one, other) for one, other in zip(here, there, strict=True))


def test_a_broken_off_run_goes_on_and_ends_as_an_undisturbed_one(store, pieces, tmp_path):
    pairs = store_pairs(store, range(50))
    with pytest.raises(KeyboardInterrupt):
        embedded(encoder(most=5), pairs, pieces)
    again, said = encoder(), []
    disturbed = embedded(again, pairs, pieces, said=said)
    assert sum(again.batches) == 30
    assert said == ["20 of 50 pairs had been embedded by a run that was broken off"]
    (tmp_path / "others").mkdir()
    quiet = embedded(encoder(), pairs, Pieces(tmp_path / "others"))
    assert all(np.array_equal(one, other) for one, other in zip(disturbed, quiet, strict=True))


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch_size": 16}, {"precision": "bfloat16"}])
def test_pieces_of_another_encoder_are_not_used(store, pieces, change):
    pairs = store_pairs(store, range(20))
    embedded(encoder(), pairs, pieces)
    other = encoder(**change)
    embedded(other, pairs, pieces)
    assert sum(other.batches) == 20
    assert len(list(pieces.directory.iterdir())) == 1


def test_a_changed_pair_changes_only_its_piece(store, pieces):
    embedded(encoder(), store_pairs(store, range(50)), pieces)
    changed = encoder()
    embedded(changed, store_pairs(store, [*range(25), 77, *range(26, 50)]), pieces)
    assert sum(changed.batches) == 20


@pytest.mark.parametrize("workers", [0, 1])
def test_a_pair_that_cannot_be_embedded_is_named(store, pieces, monkeypatch, workers):
    monkeypatch.setattr(embed, "PAIRS_WORTH_WORKERS", 0)
    pairs = store_pairs(store, range(5), image=lambda seed: None if seed == 3 else picture(seed))
    with pytest.raises(ValueError, match=r"pair uid-3 of crawl-1 has neither an image nor delivered embeddings"):
        embedded(encoder(), pairs, pieces, workers=workers)


def unit(random, n):
    rows = random.normal(size=(n, WIDTH))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def store_embeddings(store, crawl, seeds, made_with="ours"):
    random = np.random.default_rng(int(crawl[-1]))
    image, text = unit(random, len(seeds)), unit(random, len(seeds))
    columns = {
        "uid": [f"uid-{seed}" for seed in seeds],
        "content": content(seeds),
        "image_embedding": list_column(image),
        "text_embedding": list_column(text),
        "clip_score": clip_scores(image, text),
    }
    table = pa.table(columns, schema=embeddings_schema(WIDTH))
    store.write("embeddings", crawl, table, metadata={MADE_WITH: made_with})
    return SimpleNamespace(image=image, text=text)


def test_what_is_known_comes_from_the_newest_crawl_and_the_rest_is_new(store):
    nine, ten = store_embeddings(store, "crawl-9", range(6)), store_embeddings(store, "crawl-10", range(4, 8))
    store_embeddings(store, "crawl-11", range(100), made_with="another model")
    store.write("embeddings", "crawl-12", pa.table({"uid": ["an older project"]}))
    seeds = [5, 50, 0, 7, 51, 1]
    known = find_known(store, pa.chunked_array([content(seeds)]), "ours")
    assert known.counts() == {"crawl-10": 2, "crawl-9": 2}
    assert known.new.tolist() == [1, 4]
    new = unit(np.random.default_rng(0), 2)
    parts = iter([(new[:1], new[:1]), (new[1:], new[1:])])
    ((image, text),) = in_order(known, parts, WIDTH)
    assert np.array_equal(image, [ten.image[1], new[0], nine.image[0], ten.image[3], new[1], nine.image[1]])
    assert np.array_equal(text, [ten.text[1], new[0], nine.text[0], ten.text[3], new[1], nine.text[1]])


def test_older_crawls_are_not_looked_at_when_nothing_is_missing(store):
    store_embeddings(store, "crawl-1", range(5))
    store_embeddings(store, "crawl-2", range(5))
    assert find_known(store, pa.chunked_array([content([1, 2])]), "ours").counts() == {"crawl-2": 2}


def deliver_embeddings(store, pairs, image, text, version=None):
    columns = {
        "uid": pairs.rows.slice(0, len(pairs), ["uid"])["uid"],
        "image_embedding": list_column(image),
        "text_embedding": list_column(text),
    }
    table = pa.table(columns, schema=delivered_embeddings_schema(WIDTH))
    metadata = {"raw_pairs_version": str(version or pairs.version)}
    store.write("delivered_embeddings", CRAWL, table, metadata=metadata)


def test_a_spot_check_compares_captions_and_the_images_that_are_there(store):
    pairs = store_pairs(store, range(100), image=lambda seed: picture(seed) if seed % 2 else None)
    model, table = encoder(), store.read("raw_pairs", CRAWL)
    with_image = table.set_column(2, "image", pa.array([picture(seed) for seed in range(100)], pa.large_binary()))
    image, text = (rows.astype(np.float16) for rows in embedded_at_once(model.clip, with_image))
    deliver_embeddings(store, pairs, image, text[::-1])
    cosines = spot_check(model, pairs, delivered_embeddings(store, CRAWL, pairs.version))
    assert cosines["image"] == pytest.approx(1, abs=1e-3)
    assert cosines["text"] < 0.999


def test_without_images_only_captions_are_compared(store):
    pairs = store_pairs(store, range(5), image=lambda seed: None)
    rows = unit(np.random.default_rng(0), 5)
    deliver_embeddings(store, pairs, rows, rows)
    assert spot_check(encoder(), pairs, delivered_embeddings(store, CRAWL, pairs.version)).keys() == {"text"}


def test_embeddings_of_another_version_of_the_pairs_are_ignored(store):
    pairs = store_pairs(store, range(5))
    rows = unit(np.random.default_rng(0), 5)
    assert delivered_embeddings(store, CRAWL, pairs.version) is None
    deliver_embeddings(store, pairs, rows, rows, version=pairs.version + 1)
    assert delivered_embeddings(store, CRAWL, pairs.version) is None
