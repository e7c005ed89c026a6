from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clipcov_assets.core import METHODS, Pool, objective
from clipcov_assets.core.objective import TERMS, resolve_alpha
from clipcov_assets.core.statistics import class_statistics

COMBINATIONS = [terms for count in range(1, 6) for terms in combinations(TERMS, count)]


@pytest.mark.parametrize("inter", ["mean", "sum"])
@pytest.mark.parametrize("terms", COMBINATIONS, ids="+".join)
def test_the_gains_add_up_to_the_objective_of_the_paper(
    terms: tuple[str, ...], inter: str, pools: SimpleNamespace
) -> None:
    for seed, signed, alpha in ((0, False, 0.5), (1, True, 0.7)):
        pool = pools.random(seed, signed=signed)
        own = {"alpha": alpha, "inter": inter, "terms": terms}
        ranking = METHODS["clipcov"](pool, len(pool), **own)
        for budget in (1, 4, len(pool)):
            expected = pools.objective(pool, ranking.order[:budget], **own)
            assert ranking.gains[:budget].sum(dtype=float) == pytest.approx(expected, abs=1e-5)
            assert objective(pool, ranking.order[:budget], **own) == pytest.approx(expected, abs=1e-5)


def test_two_pairs_of_one_class_by_hand() -> None:
    # sim: 2 with oneself, 0 with each other; n = 2, one class, the label is the first caption.
    pool = Pool(
        uid=["a", "b"],
        image_embeddings=np.eye(2),
        text_embeddings=np.eye(2),
        latent_class=[0, 0],
        class_embeddings=[[1.0, 0.0]],
    )
    assert objective(pool, [0], terms=["class"]) == pytest.approx((2 - 2 / 2) / 2)
    assert objective(pool, [0, 1], terms=["class"]) == pytest.approx((4 - 4 / 2) / 2)
    assert objective(pool, [0, 1], terms=["self"]) == pytest.approx(4)
    assert objective(pool, [0], alpha=0.5, terms=["label"]) == pytest.approx(0.5 - 0.5 / 2)
    assert objective(pool, [1], alpha=0.5, terms=["label"]) == pytest.approx(0)
    assert objective(pool, [0, 1], terms=["class_reg"]) == pytest.approx(-(4 / 2) / 2)
    assert objective(pool, [0, 1], terms=["inter"]) == pytest.approx(0)


def test_an_empty_set_is_worth_nothing(pools: SimpleNamespace) -> None:
    assert objective(pools.random(0), []) == 0


def test_the_sum_over_other_classes_counts_each_class_and_the_mean_their_average(
    pools: SimpleNamespace,
) -> None:
    pool = pools.random(3, [4, 4, 4])
    order = np.arange(5)
    literal, mean = (objective(pool, order, inter=inter, terms=["inter"]) for inter in ("sum", "mean"))
    assert literal == pytest.approx(2 * mean)


def test_classes_without_pairs_do_not_change_the_mean_over_other_classes(pools: SimpleNamespace) -> None:
    pool = pools.random(3, [4, 4])
    wider = Pool(
        uid=pool.uid,
        image_embeddings=pool.image_embeddings,
        text_embeddings=pool.text_embeddings,
        latent_class=pool.latent_class,
        class_embeddings=np.concatenate([pool.class_embeddings] * 3),
    )
    assert objective(wider, [0, 1]) == objective(pool, [0, 1])


def test_automatic_alpha_is_the_ratio_of_average_similarities(pools: SimpleNamespace) -> None:
    pool = pools.random(4)
    texts = pool.text_embeddings.astype(float)
    expected = pools.similarity(pool).mean() / (texts @ texts.T).mean()
    assert resolve_alpha("auto", class_statistics(pool)) == pytest.approx(expected)
    assert objective(pool, [0, 1], alpha="auto") == pytest.approx(objective(pool, [0, 1], alpha=expected))


def test_automatic_alpha_needs_captions_that_do_not_cancel() -> None:
    pool = Pool(
        uid=[1, 2],
        image_embeddings=np.eye(2),
        text_embeddings=[[1.0, 0.0], [-1.0, 0.0]],
        latent_class=[0, 0],
        class_embeddings=[[1.0, 0.0]],
    )
    with pytest.raises(ValueError, match="average text similarity, which is 0"):
        objective(pool, [0], alpha="auto")


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"terms": ["class", "clas"]}, "unknown clas; choose any of class, self, label, class_reg, inter"),
        ({"terms": []}, "terms: empty"),
        ({"terms": "classes"}, "unknown classes"),
        ({"inter": "median"}, "inter is 'median': choose one of mean, sum"),
        ({"alpha": "half"}, "alpha is 'half'"),
        ({"alpha": np.nan}, "alpha is nan"),
        ({"alpha": None}, "alpha is None"),
    ],
)
def test_an_unknown_option_is_named(own: dict[str, Any], message: str, pools: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=message):
        objective(pools.random(0), [0], **own)
    with pytest.raises(ValueError, match=message):
        METHODS["clipcov"](pools.random(0), 1, **own)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([0, 0], "repeats a row"),
        ([13], "row 13 is outside"),
        ([-1], "row -1 is outside"),
        ([0.5], "integers"),
    ],
)
def test_a_subset_holds_distinct_rows_of_the_pool(order: list[float], message: str, pools: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=message):
        objective(pools.random(0), order)
