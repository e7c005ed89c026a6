from types import SimpleNamespace

import numpy as np

from clipcov_assets.core.similarity import clip_scores, side_by_side, swap_halves


def test_a_clip_score_is_the_cosine_of_a_pair() -> None:
    images = np.array([[1, 0], [0.6, 0.8]], np.float32)
    texts = np.array([[0, 1], [0.6, 0.8]], np.float32)
    np.testing.assert_allclose(clip_scores(images, texts), [0, 1], atol=1e-7)


def test_equal_pairs_have_equal_scores_wherever_they_stand(pools: SimpleNamespace) -> None:
    pool = pools.random(0, [3], width=512)
    images, texts = (np.tile(rows[:1], (9001, 1)) for rows in (pool.image_embeddings, pool.text_embeddings))
    assert len(set(clip_scores(images, texts).tolist())) == 1


def test_the_similarity_is_one_product_of_gathered_pairs(pools: SimpleNamespace) -> None:
    pool = pools.random(1)
    pairs = side_by_side(pool.image_embeddings, pool.text_embeddings)
    np.testing.assert_allclose(pairs @ swap_halves(pairs).T, pools.similarity(pool), atol=1e-6)
