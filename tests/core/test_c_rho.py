import numpy as np
import pytest

from clipcov_assets.core import METHODS, Pool


def test_pairs_that_the_partial_model_has_yet_to_learn_come_first() -> None:
    pool = Pool(
        uid=["a", "b", "c"],
        image_embeddings=[[1.0, 0.0]] * 3,
        text_embeddings=[[0.6, 0.8], [1.0, 0.0], [0.6, 0.8]],
        partial_clip_score=[0.5, 0.95, 0.1],
    )
    ranking = METHODS["c_rho"](pool, 3)
    assert ranking.order.tolist() == [2, 0, 1]
    np.testing.assert_allclose(ranking.gains, [0.5, 0.1, 0.05], atol=1e-6)


def test_the_partial_model_must_have_scored_the_pool() -> None:
    pool = Pool(uid=[1], image_embeddings=[[1.0]], text_embeddings=[[1.0]])
    with pytest.raises(ValueError, match="c_rho reads the column partial_clip_score"):
        METHODS["c_rho"](pool, 1)
