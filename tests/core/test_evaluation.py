import numpy as np
import pytest

from clipcov_assets.core.clip_model import ClipModel
from clipcov_assets.core.encoding import encode_images
from clipcov_assets.core.evaluation import evaluate, rank_of_label
from clipcov_assets.core.prompts import Prompts
from clipcov_assets.core.zero_shot import class_embeddings, classify

PROMPTS = Prompts(("red", "green", "blue"), ("{c}", "a {c} square"))


def test_the_rank_counts_the_classes_ahead_of_the_label() -> None:
    similarity = np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.9, 0.5, 0.1]])
    assert rank_of_label(similarity, np.array([0, 1, 2])).tolist() == [0, 1, 2]


def test_a_tie_ranks_like_the_prediction() -> None:
    similarity = np.full((3, 3), 0.5)
    assert similarity.argmax(axis=1).tolist() == [0, 0, 0]
    assert rank_of_label(similarity, np.array([0, 1, 2])).tolist() == [0, 1, 2]


def test_predictions_are_the_zero_shot_classes(tiny_clip: ClipModel, pictures: list[bytes]) -> None:
    labelled = [(f"image-{row}", data, row % 3) for row, data in enumerate(pictures)]
    predictions = evaluate(tiny_clip, iter(labelled), PROMPTS, device="cpu", batch_size=4)
    (embeddings,) = encode_images(tiny_clip, [("", data) for data in pictures], device="cpu", batch_size=6)
    expected, _ = classify(embeddings, class_embeddings(tiny_clip, PROMPTS, device="cpu"))
    assert predictions.key == tuple(f"image-{row}" for row in range(6))
    assert predictions.label.tolist() == [0, 1, 2, 0, 1, 2]
    assert predictions.predicted.tolist() == expected.tolist()
    assert ((predictions.rank_of_label == 0) == (predictions.label == expected)).all()


def test_a_broken_image_fails_the_evaluation(tiny_clip: ClipModel, pictures: list[bytes]) -> None:
    with pytest.raises(ValueError, match="image-1"):
        images = [("image-0", pictures[0], 0), ("image-1", b"", 0)]
        evaluate(tiny_clip, images, PROMPTS, device="cpu", batch_size=4)


def test_a_label_without_a_name_is_refused(tiny_clip: ClipModel, pictures: list[bytes]) -> None:
    with pytest.raises(ValueError, match="image-0 has label 3"):
        evaluate(tiny_clip, [("image-0", pictures[0], 3)], PROMPTS, device="cpu", batch_size=4)


def test_an_empty_set_is_refused(tiny_clip: ClipModel) -> None:
    with pytest.raises(ValueError, match="no image"):
        evaluate(tiny_clip, [], PROMPTS, device="cpu", batch_size=4)
