from types import SimpleNamespace

import numpy as np
import pytest

from clipcov_assets.core import METHODS, Pool
from clipcov_assets.core.explanation import gain_terms, similarities
from clipcov_assets.core.objective import TERMS
from clipcov_assets.core.selection import ABLATIONS
from clipcov_assets.core.similarity import side_by_side
from clipcov_assets.core.statistics import class_statistics

PARTS = [TERMS, *(method.rank.keywords["terms"] for method in ABLATIONS.values()), ("class",), ("label", "inter")]


def explained(pool: Pool, order: np.ndarray, **own: object) -> list[dict[str, float]]:
    """The terms of every pick, each given the picks of its class before it."""
    pairs, statistics = side_by_side(pool.image_embeddings, pool.text_embeddings), class_statistics(pool)
    found = []
    for place, row in enumerate(order):
        k = pool.latent_class[row]
        before = order[:place][pool.latent_class[order[:place]] == k]
        found.append(gain_terms(pairs[row], pairs[before], int(k), statistics, pool.class_embeddings, **own))
    return found


@pytest.mark.parametrize("inter", ["mean", "sum"])
@pytest.mark.parametrize("terms", PARTS, ids="+".join)
def test_the_terms_of_every_pick_add_up_to_its_greedy_gain(
    terms: tuple[str, ...], inter: str, pools: SimpleNamespace
) -> None:
    for seed, signed, alpha in ((0, False, 0.5), (1, True, 0.7), (2, False, "auto")):
        pool = pools.random(seed, (20, 9, 0, 1), signed=signed)
        own = {"alpha": alpha, "inter": inter, "terms": terms}
        ranking = METHODS["clipcov"](pool, len(pool), **own)
        shares = explained(pool, ranking.order, **own)
        assert {tuple(one) for one in shares} == {tuple(term for term in TERMS if term in terms)}
        np.testing.assert_allclose([sum(one.values()) for one in shares], ranking.gains, rtol=1e-6, atol=1e-6)


def test_the_terms_are_those_of_the_paper_by_hand() -> None:
    # Image and caption of a are one direction, those of b another; the class is called like a. sim is 2 with oneself.
    pool = Pool(
        uid=["a", "b"],
        image_embeddings=np.eye(2),
        text_embeddings=np.eye(2),
        latent_class=[0, 0],
        class_embeddings=[[1.0, 0.0]],
    )
    first, second = explained(pool, np.array([0, 1]), alpha=0.5)
    assert first == pytest.approx(
        {"class": 2 / 2 - 2 / 4, "self": 2, "label": 0.5 * (1 - 1 / 2), "class_reg": -2 / 4, "inter": 0}
    )
    assert second == pytest.approx({"class": 2 / 2 - 2 / 4, "self": 2, "label": 0, "class_reg": -2 / 4, "inter": 0})


def test_a_pick_that_is_alike_takes_from_the_class_term_alone(pools: SimpleNamespace) -> None:
    pool = pools.random(5, (8, 4))
    pairs, statistics = side_by_side(pool.image_embeddings, pool.text_embeddings), class_statistics(pool)
    e, s = np.flatnonzero(pool.latent_class == 0)[:2]
    alone, after = (
        gain_terms(pairs[e], pairs[picked], 0, statistics, pool.class_embeddings) for picked in (np.array([], int), [s])
    )
    assert alone.pop("class") - after.pop("class") == pytest.approx(pools.similarity(pool)[e, s] / 8)
    assert alone == after


def test_similarities_of_a_class_larger_than_a_block_are_those_of_its_pairs(
    pools: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipcov_assets.core.explanation.ROWS_AT_ONCE", 3)
    pool = pools.random(1, (7,), dtype="float16")
    pairs = side_by_side(pool.image_embeddings, pool.text_embeddings)
    np.testing.assert_allclose(similarities(pairs[2], pairs), pools.similarity(pool)[2], atol=1e-12)


def test_an_unknown_term_is_named(pools: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="unknown charm"):
        explained(pools.random(0), np.array([0]), terms=["charm"])
