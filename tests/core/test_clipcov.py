from types import SimpleNamespace

import numpy as np
import pytest

from clipcov_assets.core import METHODS, Pool
from clipcov_assets.core.objective import TERMS
from clipcov_assets.core.selection import ABLATIONS
from tests.core.conftest import random_pool


def test_a_diverse_second_pick_by_hand() -> None:
    # One class of a, its copy b, and c. sim(a, b) = 2, sim(a, c) = sim(b, c) = 0, n = 3.
    # Central: a and b 4/3, c 2/3; minus sim(e, e) / 2n = 1/3 each. So a with 1 comes first, by uid.
    # Then b has 1 - 2/3 and c still 1/3, a tie: b comes first, and c does not lose by it.
    rows = np.eye(2)[[0, 0, 1]]
    pool = Pool(
        uid=["a", "b", "c"],
        image_embeddings=rows,
        text_embeddings=rows,
        latent_class=[0, 0, 0],
        class_embeddings=[[1.0, 0.0]],
    )
    ranking = METHODS["clipcov"](pool, 3, terms=["class"])
    assert ranking.order.tolist() == [0, 1, 2]
    np.testing.assert_allclose(ranking.gains, [1, 1 / 3, 1 / 3], atol=1e-6)


def test_every_term_by_hand() -> None:
    # Two classes of one pair each: sim(e, e) is 2 and 1.2; between the pairs it is 0.8.
    pool = Pool(
        uid=["a", "b"],
        image_embeddings=[[1.0, 0.0], [0.0, 1.0]],
        text_embeddings=[[1.0, 0.0], [0.8, 0.6]],
        latent_class=[0, 1],
        class_embeddings=[[1.0, 0.0], [0.0, 1.0]],
    )
    gains = {term: METHODS["clipcov"](pool, 2, terms=[term]).gains.tolist() for term in TERMS}
    assert gains["class"] == pytest.approx([2 - 1, 1.2 - 0.6])
    assert gains["self"] == pytest.approx([2, 1.2])
    assert gains["label"] == pytest.approx([0, 0])  # 1 - 1/n is 0
    assert gains["class_reg"] == pytest.approx([-1.2, -2])
    assert gains["inter"] == pytest.approx([-0.8, -0.8])
    whole = METHODS["clipcov"](pool, 2)
    assert whole.gains.tolist() == pytest.approx([1 + 2 - 2 - 0.8, 0.6 + 1.2 - 1.2 - 0.8])


def test_equal_pairs_come_in_order_of_uid() -> None:
    rows = np.repeat([[0.6, 0.8]], 5, axis=0)
    pool = Pool(
        uid=["e", "a", "d", "b", "c"],
        image_embeddings=rows,
        text_embeddings=rows,
        latent_class=[0, 1, 0, 1, 0],
        class_embeddings=np.eye(2),
    )
    order = METHODS["clipcov"](pool, 5).order
    for k in (0, 1):
        of_class = pool.uid[order[pool.latent_class[order] == k]].tolist()
        assert of_class == sorted(of_class)


def released_by_walk(pool: Pool, similarity: np.ndarray, alpha: float = 0.5) -> tuple[list[int], list[float]]:
    """The notebook's walk over the whole pool, one pick at a time."""
    images, texts = pool.image_embeddings.astype(float), pool.text_embeddings.astype(float)
    cosines = images @ texts.T
    clipped = np.maximum(cosines, 0) + np.maximum(cosines, 0).T
    classes = pool.latent_class
    present = np.unique(classes)
    size = np.bincount(classes)[classes]
    central = (clipped * (classes[:, None] == classes)).sum(1) / size
    label = alpha * (texts * pool.class_embeddings[classes]).sum(1)
    means = np.stack([similarity[:, classes == k].mean(1) for k in present], axis=1)
    inter = np.where(present == classes[:, None], 0, means).sum(1) / max(len(present) - 1, 1)
    score = central + 2 * np.diag(cosines) + label - inter
    left, order, scores = set(range(len(pool))), [], []
    picks: dict[int, list[int]] = {k: [] for k in present.tolist()}
    while left:
        best = min(left, key=lambda row: (-round(score[row], 10), pool.uid[row]))
        left.remove(best)
        order.append(best)
        scores.append(score[best])
        of_class = picks[classes[best]]
        of_class.append(best)
        if (len(of_class) + 1) % 200 == 0:
            new, rows, n = of_class[-200:], classes == classes[best], size[best]
            score[rows] -= clipped[np.ix_(rows, new)].sum(1) / n
            score[rows] -= central[of_class].sum() / n + label[new].sum() / n
    return order, scores


@pytest.mark.parametrize("signed", [False, True])
def test_the_released_variant_is_the_walk_over_the_whole_pool(signed: bool, pools: SimpleNamespace) -> None:
    pool = pools.random(0, [450, 230, 0, 30, 700], signed=signed, width=8)
    ranking = METHODS["clipcov"](pool, len(pool), variant="released")
    order, scores = released_by_walk(pool, pools.similarity(pool))
    assert ranking.order.tolist() == order
    np.testing.assert_allclose(ranking.gains, scores, atol=1e-5)


def test_the_released_variant_breaks_ties_by_uid(pools: SimpleNamespace) -> None:
    pool = pools.with_equal_rows(pools.random(1, [250, 60], width=8), 0)
    ranking = METHODS["clipcov"](pool, len(pool), variant="released")
    assert ranking.order.tolist() == released_by_walk(pool, pools.similarity(pool))[0]


def test_the_released_variant_counts_only_the_terms_asked_for(pools: SimpleNamespace) -> None:
    pool = pools.random(2, [20, 15])
    clip_score = METHODS["clip_score"](pool, 35)
    ranking = METHODS["clipcov"](pool, 35, variant="released", terms=["self"])
    np.testing.assert_array_equal(ranking.order, clip_score.order)
    np.testing.assert_allclose(ranking.gains, 2 * clip_score.gains, rtol=1e-6)


def test_variants_are_not_mixed(pools: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="variant is 'official': choose one of paper, released"):
        METHODS["clipcov"](pools.random(0), 1, variant="official")
    with pytest.raises(ValueError, match='knows only inter="mean"'):
        METHODS["clipcov"](pools.random(0), 1, variant="released", inter="sum")


def test_the_ablation_leaves_terms_out_one_after_the_other() -> None:
    pool = random_pool(3, sizes=(40, 30))
    for name, terms in {
        "clipcov_cov": ("class", "self"),
        "clipcov_cov_inter": ("class", "self", "inter"),
        "clipcov_cov_inter_reg": ("class", "self", "inter", "class_reg"),
        "clipcov_cov_inter_label": ("class", "self", "inter", "label"),
    }.items():
        expected = METHODS["clipcov"](pool, 70, terms=terms)
        assert ABLATIONS[name](pool, 70).order.tolist() == expected.order.tolist()
    orders = {tuple(method(pool, 70).order.tolist()) for method in (METHODS["clipcov"], *ABLATIONS.values())}
    assert len(orders) == 5
