import io
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from clipcov_assets.core.clip_model import create_clip
from clipcov_assets.core.encoding import encode_captions, encode_images
from clipcov_assets.core.evaluation import Retrieval
from clipcov_assets.core.prompts import Prompts
from clipcov_assets.core.zero_shot import class_embeddings, classify
from clipcov_assets.ingest.evaluation_set import find_evaluation_sets
from clipcov_assets.jobs import evaluate
from clipcov_assets.jobs.evaluate import predictions_of
from clipcov_assets.progress import Progress
from clipcov_assets.tables import PREDICTIONS
from resources.compute import Compute
from resources.head_cache import HeadCache
from tests.deliveries import evaluation_set

PROMPTS = Prompts(("red", "green", "blue", "red"), ("a {c} thing", "{c}"))


@dataclass(frozen=True)
class MemorySet:
    """An evaluation set that is nowhere on disk."""

    name: str
    keys: tuple[str, ...]
    images: tuple[bytes, ...]
    prompts: Prompts | None = None
    labels: np.ndarray | None = None
    captions: tuple[tuple[str, ...], ...] | None = None
    known: None = None
    sha256: str = ""

    def __len__(self):
        return len(self.keys)

    def image(self, place):
        return self.images[place]

    @property
    def is_retrieval(self):
        return self.prompts is None


def picture(seed):
    stream = io.BytesIO()
    Image.frombytes("RGB", (40, 32), np.random.default_rng(seed).bytes(40 * 32 * 3)).save(stream, "PNG")
    return stream.getvalue()


def labelled(n=21, name="colours", prompts=PROMPTS):
    keys = tuple(f"0/{place:03d}" for place in range(n))
    labels = np.arange(n) % len(prompts.class_names)
    return MemorySet(name, keys, tuple(map(picture, range(n))), prompts=prompts, labels=labels)


def captioned(n=9, name="words"):
    keys, counts = tuple(f"0/{place}" for place in range(n)), [1 + place % 3 for place in range(n)]
    captions = tuple(
        tuple(f"caption {number} of {place}" for number in range(count)) for place, count in enumerate(counts)
    )
    return MemorySet(name, keys, tuple(map(picture, range(100, 100 + n))), captions=captions)


@pytest.fixture(scope="module")
def clip():
    """Random weights would give every image the same class, were the images' features not centred."""
    made = create_clip("demo", seed=0)
    pixels = torch.stack([made.preprocess(Image.open(io.BytesIO(data))) for data in labelled().images])
    with torch.no_grad():
        made.model.visual.attnpool.c_proj.bias -= made.model.encode_image(pixels).mean(dim=0)
    return made


@pytest.fixture
def heads(tmp_path):
    return HeadCache(directory=str(tmp_path / "heads"))


def predicted(clip, sets, heads, *, workers=None, said=None, seed=7):
    compute = Compute(device="cpu", batch_size=8, workers=workers)
    report = [].append if said is None else said.append
    return predictions_of(clip, sets, seed=seed, compute=compute, heads=heads, report=report)


def test_every_image_gets_its_zero_shot_class(clip, heads):
    one = labelled()
    found = predicted(clip, [one], heads)
    images = list(encode_images(clip, zip(one.keys, one.images, strict=True), device="cpu", batch_size=8))
    expected, _ = classify(np.concatenate(images), class_embeddings(clip, PROMPTS, device="cpu"))
    assert found.schema == PREDICTIONS
    assert found["key"].to_pylist() == list(one.keys)
    assert found["label"].to_pylist() == one.labels.tolist()
    assert found["predicted"].to_pylist() == expected.tolist()
    assert set(expected.tolist()) == {0, 1, 2}
    assert set(found["evaluation_set"].to_pylist()) == {"colours"}
    assert set(found["task"].to_pylist()) == {"classification"}
    assert set(found["seed"].to_pylist()) == {7}


def test_images_and_captions_of_a_retrieval_set_look_for_each_other(clip, heads):
    one = captioned()
    images = np.concatenate(
        list(encode_images(clip, zip(one.keys, one.images, strict=True), device="cpu", batch_size=9))
    )
    named = [("", caption) for captions in one.captions for caption in captions]
    captions = np.concatenate(list(encode_captions(clip, named, device="cpu", batch_size=64)))
    task = Retrieval("words", one.keys, np.array([len(texts) for texts in one.captions]))
    to_text, to_image = task.predictions([images], captions)
    found = predicted(clip, [one], heads)
    assert found["task"].to_pylist() == ["image_to_text"] * 9 + ["text_to_image"] * 18
    assert found["key"].to_pylist() == [*to_text.key, *to_image.key]
    for column in ("label", "predicted", "rank_of_label"):
        assert found[column].to_pylist() == [*getattr(to_text, column), *getattr(to_image, column)]


def test_sets_come_by_name_whatever_their_order(clip, heads):
    sets = [labelled(5, "b"), captioned(3, "c"), labelled(10, "a")]
    found = predicted(clip, sets, heads)
    assert found["evaluation_set"].to_pylist() == ["a"] * 10 + ["b"] * 5 + ["c"] * 9
    assert found.equals(predicted(clip, sets[::-1], heads))
    assert found.slice(10, 5).equals(predicted(clip, sets[:1], heads))


def test_workers_change_nothing(clip, heads, monkeypatch):
    sets = [labelled(30), captioned()]
    here = predicted(clip, sets, heads)
    monkeypatch.setattr(evaluate, "PAIRS_WORTH_WORKERS", 0)
    assert predicted(clip, sets, heads, workers=2).equals(here)


def test_few_images_start_no_worker(clip, heads, monkeypatch):
    asked = []

    def spy(*given, workers, **named):
        asked.append(workers)
        return prepare_items(*given, workers=workers, **named)

    prepare_items = evaluate.prepare_items
    monkeypatch.setattr(evaluate, "prepare_items", spy)
    predicted(clip, [labelled(3)], heads, workers=2)
    assert asked == [0]


def test_a_head_from_the_cache_is_the_head_that_was_made(clip, heads, tmp_path, monkeypatch):
    encoder = evaluate.PairEncoder.on(Compute(device="cpu"), clip)
    first = evaluate.head(encoder, PROMPTS, heads, print)
    np.testing.assert_allclose(first, class_embeddings(clip, PROMPTS, device="cpu"), atol=1e-6)
    # A part of the names in another order, after a head of all and alone, is the same to the last bit.
    some = Prompts(("blue", "green"), PROMPTS.templates)
    fresh = evaluate.head(encoder, some, HeadCache(directory=str(tmp_path / "others")), print)
    assert evaluate.head(encoder, some, heads, print).tobytes() == fresh.tobytes() == first[[2, 1]].tobytes()
    monkeypatch.setattr(evaluate, "class_embeddings", None)
    assert evaluate.head(encoder, PROMPTS, heads, print).tobytes() == first.tobytes()


def test_other_weights_get_another_head(clip, heads):
    other = create_clip("demo", seed=1)
    rows = [
        evaluate.head(evaluate.PairEncoder.on(Compute(device="cpu"), one), PROMPTS, heads, print)
        for one in (clip, other)
    ]
    assert not np.allclose(*rows)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_named_with_its_set(clip, heads, monkeypatch, workers):
    monkeypatch.setattr(evaluate, "PAIRS_WORTH_WORKERS", 0 if workers else 1_000)
    one = labelled()
    broken = replace(one, images=(*one.images[:11], one.images[11][:-200], *one.images[12:]))
    with pytest.raises(ValueError, match="image of 0/011 of evaluation set 'colours' cannot be decoded"):
        predicted(clip, [labelled(8, "a"), broken], heads, workers=workers or None)


def test_a_set_that_cannot_be_scored_is_refused_before_any_image_is_read(clip, heads, monkeypatch):
    monkeypatch.setattr(MemorySet, "image", lambda self, place: pytest.fail("an image was read"))
    wrong = replace(labelled(4, "wrong"), labels=np.array([0, 1, 4, 0]))
    with pytest.raises(ValueError, match="'wrong': image 0/002 has label 4, but the prompts name 4 classes"):
        predicted(clip, [labelled(), wrong], heads)
    with pytest.raises(ValueError, match="'empty' holds no image"):
        predicted(clip, [labelled(), labelled(0, "empty")], heads)
    with pytest.raises(ValueError, match="'words': image 0/1 has no caption"):
        predicted(clip, [replace(captioned(2), captions=(("a dog",), ()))], heads)
    with pytest.raises(ValueError, match="caption of 0/1 of evaluation set 'words' is blank"):
        predicted(clip, [replace(captioned(2), captions=(("a dog",), (" ",)))], heads)
    with pytest.raises(ValueError, match="no evaluation set"):
        predicted(clip, [], heads)


def test_a_model_that_is_not_finite_is_refused(heads):
    clip = create_clip("demo", seed=0)
    clip.model.text_projection.data.fill_(np.nan)
    with pytest.raises(FloatingPointError, match="demo"):
        predicted(clip, [labelled()], heads)


def test_long_work_says_how_far_it_is(clip, heads, monkeypatch):
    said = []
    monkeypatch.setattr(evaluate, "Progress", partial(Progress, every_seconds=0))
    predicted(clip, [labelled(), captioned()], heads, said=said)
    units = [sentence.split()[3].rstrip(",") for sentence in said]
    assert {"class", "captions", "images"} == set(units)
    assert said[-1].startswith("30 of 30 images")


def test_a_set_from_disk_is_read_in_workers_too(clip, heads, monkeypatch, tmp_path):
    evaluation_set(tmp_path / "eval" / "small", range(24))
    (one,) = find_evaluation_sets(tmp_path / "eval")
    here = predicted(clip, [one], heads)
    assert len(here) == 24
    monkeypatch.setattr(evaluate, "PAIRS_WORTH_WORKERS", 0)
    assert predicted(clip, [one], heads, workers=2).equals(here)
