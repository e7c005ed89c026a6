import numpy as np

from clipcov_assets.core import METHODS, Pool


def names(pool: Pool, seed: int) -> list[str]:
    return pool.uid[METHODS["random"](pool, len(pool), seed=seed).order].tolist()


POOL = Pool(uid=[f"pair-{i}" for i in range(100)])


def test_a_seed_gives_one_order_and_another_seed_another() -> None:
    assert names(POOL, 1) == names(POOL, 1)
    assert names(POOL, 1) != names(POOL, 2)


def test_old_pairs_keep_their_order_when_the_pool_grows() -> None:
    grown = Pool(uid=[f"pair-{i}" for i in range(150)])
    old = set(POOL.uid.tolist())
    assert [uid for uid in names(grown, 1) if uid in old] == names(POOL, 1)


def test_every_place_of_the_pool_is_as_likely_to_come_first() -> None:
    pool = Pool(uid=np.arange(4))
    first = [METHODS["random"](pool, 1, seed=seed).order[0] for seed in range(2000)]
    assert np.bincount(first).min() > 400


def test_gains_are_minus_the_draws() -> None:
    gains = METHODS["random"](POOL, 100).gains
    assert (np.diff(gains) <= 0).all()
    assert -1 < gains.min() <= gains.max() <= 0
