import io
from collections.abc import Callable
from functools import partial

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from clipcov_assets.core import evaluation
from clipcov_assets.core.clip_model import ClipModel, create_clip
from clipcov_assets.core.encoding import encode_images
from clipcov_assets.core.evaluation import Classification, Predictions, Retrieval, rank_of_label
from clipcov_assets.core.prompts import Prompts, fill
from clipcov_assets.core.zero_shot import class_embeddings

PROMPTS = Prompts(("red", "green", "blue", "white", "an old house"), ("{c}", "a {c} square", "a photo of a {c}."))


def rows(*cosines: float) -> np.ndarray:
    """Unit rows of a plane whose first coordinate is given."""
    first = np.array(cosines, np.float32)
    return np.stack([first, np.sqrt(1 - first**2)], axis=1)


def random_rows(seed: int, n: int, width: int = 8) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def columns(found: Predictions) -> tuple[list[int], list[int], list[int]]:
    return found.label.tolist(), found.predicted.tolist(), found.rank_of_label.tolist()


def test_the_rank_counts_the_classes_ahead_of_the_label() -> None:
    similarity = np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.9, 0.5, 0.1]])
    assert rank_of_label(similarity, np.array([0, 1, 2])).tolist() == [0, 1, 2]


def test_a_tie_ranks_like_the_prediction() -> None:
    similarity = np.full((3, 3), 0.5)
    assert similarity.argmax(axis=1).tolist() == [0, 0, 0]
    assert rank_of_label(similarity, np.array([0, 1, 2])).tolist() == [0, 1, 2]


def test_predictions_are_those_of_open_clip_done_plainly(tiny_clip: ClipModel, pictures: list[bytes]) -> None:
    label, model = np.arange(6) % 5, tiny_clip.model
    pixels = torch.stack([tiny_clip.preprocess(Image.open(io.BytesIO(data))) for data in pictures])
    with torch.no_grad():  # centred, or random weights would give every image the same class
        model.visual.ln_post.bias -= model.encode_image(pixels).mean(dim=0) @ torch.linalg.pinv(model.visual.proj)
    named = [(f"image-{row}", data) for row, data in enumerate(pictures)]
    images = encode_images(tiny_clip, named, device="cpu", batch_size=4)
    classes = class_embeddings(tiny_clip, PROMPTS, device="cpu")
    task = Classification("colours", tuple(name for name, _ in named), label, 5)
    (found,) = task.predictions(images, classes)

    with torch.no_grad():
        head = open_clip.build_zero_shot_classifier(
            model,
            tiny_clip.tokenizer,
            PROMPTS.class_names,
            [partial(fill, template) for template in PROMPTS.templates],
        )
        logits = model.encode_image(pixels, normalize=True) @ head
    ranks = (logits > logits.gather(1, torch.from_numpy(label)[:, None])).sum(dim=1)
    assert found.key == tuple(f"image-{row}" for row in range(6))
    assert columns(found) == (label.tolist(), logits.argmax(dim=1).tolist(), ranks.tolist())
    assert len(set(found.predicted.tolist())) > 2


def test_classes_of_equal_name_tie_and_the_smaller_one_wins() -> None:
    once = random_rows(0, 6, width=512)
    classes = once[[0, 1, 2, 3, 4, 5, 1, 2, 5, 1]]
    # Images near the class that comes three times; a product with one row rounds the last columns differently.
    images = random_rows(1, 111, width=512) + once[1]
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    task = Classification("thrice", tuple(map(str, range(111))), np.full(111, 9), 10)
    (found,) = task.predictions(np.split(images, 111), classes)
    assert set(found.predicted.tolist()) == {1}
    assert set(found.rank_of_label.tolist()) == {2}


def test_batches_follow_the_labels() -> None:
    images, classes, label = random_rows(0, 23), random_rows(1, 7), np.arange(23) % 7
    task = Classification("some", tuple(map(str, range(23))), label, 7)
    (whole,), (parts,) = task.predictions([images], classes), task.predictions(np.split(images, [5, 6, 20]), classes)
    assert columns(whole) == columns(parts)


def test_a_label_without_a_name_is_refused_before_anything_is_embedded() -> None:
    with pytest.raises(
        ValueError, match="evaluation set 'colours': image b has label 3, but the prompts name 3 classes"
    ):
        Classification("colours", ("a", "b"), np.array([0, 3]), 3)


@pytest.mark.parametrize("task", [partial(Classification, n_classes=3), Retrieval])
def test_an_empty_set_is_refused(task: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="evaluation set 'nothing' holds no image"):
        task("nothing", (), np.array([]))


def test_missing_images_are_noticed() -> None:
    with pytest.raises(ValueError, match="classification"):
        Classification("some", ("a", "b"), np.array([0, 1]), 2).predictions([rows(0.5)], rows(1, 0))


def test_retrieval_worked_out_by_hand() -> None:
    # Cosine of two rows of a plane with angles s and t is cos(s - t); angles in degrees:
    # images 0, 40, 80; captions of image a: 35, 10; of image b: 3; of image c: 78, 41, 61.
    def at(*degrees: float) -> np.ndarray:
        return rows(*np.cos(np.radians(degrees)))

    task = Retrieval("three", ("a", "b", "c"), np.array([2, 1, 3]))
    to_text, to_image = task.predictions([at(0, 40), at(80)], at(35, 10, 3, 78, 41, 61))
    # Image a: captions at 3 (b's), 10 (its own); b: at 1 (c's), 5 (a's), 21 (c's), 30 (a's), 37 (its own); c: at 2.
    assert to_text.task == "image_to_text"
    assert to_text.key == ("a", "b", "c")
    assert columns(to_text) == ([0, 1, 2], [1, 2, 2], [1, 4, 0])
    # Caption 35: images b, a; 10: a; 3: a, b; 78: c; 41: b, c; 61: c.
    assert to_image.task == "text_to_image"
    assert to_image.key == ("a#0", "a#1", "b#0", "c#0", "c#1", "c#2")
    assert columns(to_image) == ([0, 0, 1, 2, 2, 2], [1, 0, 0, 2, 1, 2], [1, 0, 1, 0, 1, 0])


def test_in_retrieval_ties_go_to_the_smaller_number() -> None:
    same = rows(0.6, 0.6)
    to_text, to_image = Retrieval("same", ("a", "b"), np.array([1, 1])).predictions([same], same)
    assert columns(to_text) == columns(to_image) == ([0, 1], [0, 0], [0, 1])


def test_blocks_do_not_change_retrieval(monkeypatch: pytest.MonkeyPatch) -> None:
    images, captions, counts = random_rows(0, 20), random_rows(1, 60), np.array([1, 5] * 10)
    task = Retrieval("some", tuple(map(str, range(20))), counts)
    whole = task.predictions([images], captions)
    monkeypatch.setattr(evaluation, "CELLS_PER_BLOCK", 130)
    for one, other in zip(whole, task.predictions([images], captions), strict=True):
        assert columns(one) == columns(other)


def test_a_hit_is_exactly_where_the_image_is_the_prediction() -> None:
    task = Retrieval("some", tuple(map(str, range(20))), np.array([1, 5] * 10))
    for found in task.predictions([random_rows(0, 20)], random_rows(1, 60)):
        assert ((found.rank_of_label == 0) == (found.predicted == found.label)).all()
        assert 0 < found.rank_of_label.max() < 60


def test_an_image_without_a_caption_is_refused() -> None:
    with pytest.raises(ValueError, match="evaluation set 'some': image b has no caption"):
        Retrieval("some", ("a", "b"), np.array([1, 0]))


def test_a_class_embedded_alone_is_the_same_up_to_rounding() -> None:
    clip = create_clip("tiny", seed=0)
    together = class_embeddings(clip, PROMPTS, device="cpu")
    alone = [class_embeddings(clip, Prompts((name,), PROMPTS.templates), device="cpu") for name in PROMPTS.class_names]
    np.testing.assert_allclose(np.concatenate(alone), together, atol=1e-6)
