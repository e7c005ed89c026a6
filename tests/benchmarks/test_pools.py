import numpy as np
import pytest

from benchmarks.pools import captions_and_entries, clip_like, equal_sizes, head, skewed_sizes
from clipcov_assets.core import Pool


def test_the_skewed_pool_has_200_classes_of_500_to_7000_pairs() -> None:
    sizes = skewed_sizes(200_000, 200)
    assert (len(sizes), sum(sizes)) == (200, 200_000)
    assert (min(sizes), max(sizes)) == pytest.approx((500, 7_000), rel=0.001)


@pytest.mark.parametrize(("n", "classes"), [(1, 1), (10, 3), (2_000, 2), (123, 7)])
def test_sizes_sum_to_the_pool(n: int, classes: int) -> None:
    for sizes in (skewed_sizes(n, classes), equal_sizes(n, classes)):
        assert (len(sizes), sum(sizes)) == (classes, n)


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool(**clip_like([400, 300], seed=1))


def mean_cosine(left: np.ndarray, right: np.ndarray) -> float:
    return float((left @ right.T)[~np.eye(len(left), len(right), dtype=bool)].mean())


def test_cosines_are_those_of_clip(pool: Pool) -> None:
    images, texts, classes = pool.image_embeddings, pool.text_embeddings, pool.latent_class
    first, second = classes == 0, classes == 1
    assert mean_cosine(images[first], images[first]) == pytest.approx(0.60, abs=0.03)
    assert mean_cosine(texts[first], texts[first]) == pytest.approx(0.60, abs=0.03)
    assert mean_cosine(images[first], texts[first]) == pytest.approx(0.20, abs=0.03)
    assert mean_cosine(images[first], images[second]) == pytest.approx(0.45, abs=0.04)
    assert mean_cosine(images[first], texts[second]) == pytest.approx(0.05, abs=0.04)
    matched = (images * texts).sum(axis=1)
    assert np.quantile(matched, [0.05, 0.95]) == pytest.approx([0.20, 0.35], abs=0.03)


def test_classes_keep_their_sizes_and_come_in_mixed_order(pool: Pool) -> None:
    assert np.bincount(pool.latent_class).tolist() == [400, 300]
    assert np.count_nonzero(np.diff(pool.latent_class)) > 100


def test_equal_seeds_give_equal_pools() -> None:
    once, again, other = (clip_like([20, 10], width=16, dtype=np.float16, seed=seed) for seed in (3, 3, 4))
    assert all(np.array_equal(once[name], again[name]) for name in once)
    assert not any(np.array_equal(once[name], other[name]) for name in once)
    assert once["image_embeddings"].dtype == np.float16


def test_the_head_of_columns_keeps_all_classes() -> None:
    columns = head(clip_like([20, 10], width=16), 5)
    assert (len(columns["uid"]), len(columns["image_embeddings"]), len(columns["class_embeddings"])) == (5, 5, 2)


def test_captions_have_8_to_20_words_and_hold_entries() -> None:
    captions, entries = captions_and_entries(1_000, 500)
    assert {len(caption.split()) for caption in captions} == set(range(8, 21))
    assert len(set(entries)) == 500
    pairs = [entry for entry in entries if " " in entry]
    assert len(pairs) == 250
    assert all(any(pair in caption for caption in captions) for pair in pairs)
