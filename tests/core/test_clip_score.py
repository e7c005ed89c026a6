import numpy as np
import pytest

from clipcov_assets.core import METHODS, Pool


def test_the_best_matched_pair_comes_first() -> None:
    pool = Pool(
        uid=["a", "b", "c"],
        image_embeddings=[[1.0, 0.0]] * 3,
        text_embeddings=[[0.6, 0.8], [1.0, 0.0], [0.6, -0.8]],
    )
    ranking = METHODS["clip_score"](pool, 3)
    assert ranking.order.tolist() == [1, 0, 2]
    np.testing.assert_allclose(ranking.gains, [1, 0.6, 0.6])


def test_captions_must_be_embedded() -> None:
    with pytest.raises(ValueError, match="clip_score reads the column text_embeddings"):
        METHODS["clip_score"](Pool(uid=[1], image_embeddings=[[1.0]]), 1)
