import weakref
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import ArrayLike

from clipcov_assets.core import METHODS, Pool, objective
from clipcov_assets.core.class_pairs import ClassPairs, class_loader
from clipcov_assets.core.greedy import ClassRankings, merge_class_rankings, rank_classes
from clipcov_assets.core.objective import TERMS
from clipcov_assets.core.paper import similarity_floors
from clipcov_assets.core.similarity import side_by_side, swap_halves
from clipcov_assets.core.statistics import class_statistics

SAME = 10  # decimals up to which two gains are a tie in a naive greedy, whose sums round as they come


def naive_greedy(pool: Pool, *, inter: str = "mean", alpha: float = 0.5) -> tuple[list[int], list[float]]:
    """Evaluate every gain at every pick, from the definitions."""
    classes = pool.latent_class
    images, texts = pool.image_embeddings.astype(float), pool.text_embeddings.astype(float)
    sim = images @ texts.T + texts @ images.T
    same = classes[:, None] == classes
    sizes = same.sum(1)
    central = (sim * same).sum(1) / sizes
    label = (texts * pool.class_embeddings[classes]).sum(1) * (1 - 1 / sizes)
    present = np.unique(classes)
    means = np.stack([sim[:, classes == k].mean(1) for k in present], axis=1)
    others = np.where(present == classes[:, None], 0, means).sum(1)
    others /= max(len(present) - 1, 1) if inter == "mean" else 1
    gains = central - np.diag(sim) / 2 / sizes + np.diag(sim) + alpha * label - central / sizes - others
    order, picked_gains = [], []
    for _ in range(len(pool)):
        rounded = np.round(gains, SAME)
        best = min(np.flatnonzero(rounded == rounded.max()).tolist(), key=lambda row: pool.uid[row])
        order.append(best)
        picked_gains.append(gains[best])
        gains = gains - sim[:, best] * same[:, best] / sizes
        gains[best] = -np.inf
    return order, picked_gains


POOLS = [
    pytest.param(sizes, signed, dtype, id=f"{'+'.join(map(str, sizes))}-{'signed' if signed else 'cone'}-{dtype}")
    for sizes in ([1], [2], [3, 1, 0, 2], [60], [25, 40, 0, 1, 13, 60], [10] * 12)
    for signed in (False, True)
    for dtype in ("float32", "float16")
]


@pytest.mark.parametrize(("sizes", "signed", "dtype"), POOLS)
@pytest.mark.parametrize("equal", [False, True], ids=["distinct", "equal"])
def test_the_fast_greedy_is_the_naive_greedy(
    sizes: list[int], signed: bool, dtype: str, equal: bool, pools: SimpleNamespace
) -> None:
    for seed in range(8):
        pool = pools.random(seed, sizes, signed=signed, dtype=dtype, width=(3, 16)[seed % 2])
        pool = pools.with_equal_rows(pool, seed) if equal else pool
        inter = ("mean", "sum")[seed % 2]
        ranking = METHODS["clipcov"](pool, len(pool), inter=inter)
        order, gains = naive_greedy(pool, inter=inter)
        assert ranking.order.tolist() == order
        np.testing.assert_allclose(ranking.gains, gains, atol=1e-5)


@pytest.mark.parametrize("signed", [False, True], ids=["cone", "signed"])
def test_greedy_by_the_objective_itself_finds_the_same_order(signed: bool, pools: SimpleNamespace) -> None:
    pool = pools.random(5, [4, 3, 1], signed=signed)
    picked: list[int] = []
    while len(picked) < len(pool):
        left = set(range(len(pool))).difference(picked)
        value = {row: round(pools.objective(pool, [*picked, row], terms=TERMS), SAME) for row in left}
        picked.append(min(left, key=lambda row: (-value[row], pool.uid[row])))
    assert METHODS["clipcov"](pool, len(pool)).order.tolist() == picked


def test_a_large_class_of_signed_similarities_is_exact(pools: SimpleNamespace) -> None:
    pool = pools.random(6, [700, 300], signed=True, width=8)
    assert METHODS["clipcov"](pool, len(pool)).order.tolist() == naive_greedy(pool)[0]


@pytest.mark.parametrize("signed", [False, True], ids=["cone", "signed"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_class_of_two_thousand_pairs_is_exact(signed: bool, dtype: str, pools: SimpleNamespace) -> None:
    pool = pools.with_equal_rows(pools.random(10, [2000], signed=signed, width=48, dtype=dtype), 10)
    assert METHODS["clipcov"](pool, len(pool)).order.tolist() == naive_greedy(pool)[0]


def test_a_class_of_equal_pairs_is_taken_in_order_of_uid(pools: SimpleNamespace) -> None:
    copies = pools.rows_of(pools.random(7, [1]), np.zeros(400, int), uid=np.random.default_rng(0).permutation(400))
    ranking = METHODS["clipcov"](copies, 400)
    assert copies.uid[ranking.order].tolist() == list(range(400))


def test_different_pairs_with_equal_gains_come_in_order_of_uid() -> None:
    for seed in range(20):
        rows = np.eye(16)
        pool = Pool(
            uid=np.random.default_rng(seed).permutation(16),
            image_embeddings=rows,
            text_embeddings=rows,
            latent_class=[0] * 16,
            class_embeddings=rows[:1],
        )
        order = METHODS["clipcov"](pool, 16, terms=["class"]).order
        assert pool.uid[order].tolist() == list(range(16))


def test_gains_may_rise_where_similarities_are_negative(pools: SimpleNamespace) -> None:
    pool = pools.random(3, [30], signed=True, width=3)
    assert (np.diff(METHODS["clipcov"](pool, 30, terms=["class"]).gains) > 0).any()


def test_floors_lie_below_every_similarity(pools: SimpleNamespace) -> None:
    for seed in range(20):
        pool = pools.random(seed, [40], signed=bool(seed % 2), width=4)
        pairs = side_by_side(pool.image_embeddings, pool.text_embeddings)
        mean = pairs.mean(axis=0, dtype=float)
        floors = similarity_floors(
            mean, pairs @ swap_halves(mean), pairs @ mean, (pairs.astype(float) ** 2).sum(axis=1)
        )
        assert (floors < pools.similarity(pool).min(axis=0)).all()


def part_of(pool: Pool, classes: list[int]) -> ClassRankings:
    """Some classes of a pool ranked on their own, with the statistics of the whole pool."""
    _, load = class_loader(pool)
    return rank_classes([classes], load, class_statistics(pool), pool.class_embeddings)


def test_class_shards_and_the_whole_pool_give_the_same_ranking(pools: SimpleNamespace) -> None:
    pool = pools.random(8, [20, 30, 0, 1, 12])
    whole = METHODS["clipcov"](pool, 40)
    for shards in ([[0, 1, 3, 4]], [[4], [1, 3], [0]], [[0], [1], [3], [4]]):
        merged = merge_class_rankings([part_of(pool, shard) for shard in shards], 40, uid=pool.uid_rank)
        np.testing.assert_array_equal(merged.order, whole.order)
        np.testing.assert_array_equal(merged.gains, whole.gains)


def test_a_device_ranks_as_the_cores_do(pools: SimpleNamespace) -> None:
    pool = pools.with_equal_rows(pools.random(8, [20, 300, 0, 1, 12], dtype="float16"), 8)
    classes, load = class_loader(pool)
    own = (load, class_statistics(pool), pool.class_embeddings)
    cores, device = rank_classes(classes, *own), rank_classes(classes, *own, device="cpu")
    np.testing.assert_array_equal(device.uid, cores.uid)
    np.testing.assert_array_equal(device.latent_class, cores.latent_class)
    np.testing.assert_allclose(device.gains, cores.gains, atol=1e-9)


def test_a_class_is_loaded_only_when_a_core_is_free_for_it(
    pools: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    pool = pools.random(8, [30] * 40)
    classes, load = class_loader(pool)
    alive: list[weakref.ref] = []
    most = 0

    def watched(run: list[int]) -> Iterator[ClassPairs]:
        nonlocal most
        for loaded in load(run):
            alive.append(weakref.ref(loaded))
            most = max(most, sum(one() is not None for one in alive))
            yield loaded

    rank_classes(classes, watched, class_statistics(pool), pool.class_embeddings)
    assert len(alive) == 40
    assert most <= 2 * 2  # a core lets go of a class when it asks for the next one


def test_only_whole_classes_are_ranked(pools: SimpleNamespace) -> None:
    pool = pools.random(8, [20, 30])
    classes, load = class_loader(pools.rows_of(pool, np.arange(45)))
    with pytest.raises(ValueError, match=r"class . has .* pairs here and .* in the statistics"):
        rank_classes(classes, load, class_statistics(pool), pool.class_embeddings)


def test_classes_and_statistics_have_one_width(pools: SimpleNamespace) -> None:
    pool = pools.random(8, [20, 30])
    classes, load = class_loader(pools.random(8, [20, 30], width=7))
    with pytest.raises(ValueError, match="class . has pairs of width 14, the statistics are of 12"):
        rank_classes(classes, load, class_statistics(pool), pool.class_embeddings)


def test_statistics_belong_to_the_same_classes(pools: SimpleNamespace) -> None:
    pool = pools.random(0, [3, 3])
    with pytest.raises(ValueError, match="one list of classes"):
        rank_classes(*class_loader(pool), class_statistics(pools.random(0, [3, 3, 1])), pool.class_embeddings)


def test_there_is_something_to_rank(pools: SimpleNamespace) -> None:
    pool = pools.random(0, [3, 3])
    with pytest.raises(ValueError, match="name at least one class"):
        rank_classes([], class_loader(pool)[1], class_statistics(pool), pool.class_embeddings)


def class_rankings(uid: ArrayLike, latent_class: ArrayLike, gains: ArrayLike) -> ClassRankings:
    return ClassRankings(np.array(uid), np.array(latent_class), np.array(gains, float))


def test_heads_are_merged_by_gain_then_uid_even_if_gains_rise() -> None:
    # Class 0: e (5), then a (1), then b (3). Class 1: d (4), then c (1).
    # After e and d the heads a and c tie: a by uid, which uncovers b.
    rankings = [
        class_rankings(["e", "a", "b"], [0, 0, 0], [5, 1, 3]),
        class_rankings(["d", "c"], [1, 1], [4, 1]),
    ]
    ranking = merge_class_rankings(rankings, 5, uid=np.array(["a", "b", "c", "d", "e"]))
    assert ranking.order.tolist() == [4, 3, 0, 1, 2]
    assert ranking.gains.tolist() == [5, 4, 1, 3, 1]


def test_merging_equals_a_queue_of_heads() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        n, k = random.integers(1, 12), random.integers(1, 4)
        uid, latent_class = random.permutation(n), np.sort(random.integers(0, k, n))
        gains = random.integers(0, 4, n).astype(float)
        heads = {c: list(np.flatnonzero(latent_class == c)) for c in range(k)}
        expected = []
        while any(heads.values()):
            c = min((c for c in heads if heads[c]), key=lambda c: (-gains[heads[c][0]], uid[heads[c][0]]))
            expected.append(uid[heads[c].pop(0)])
        merged = merge_class_rankings([class_rankings(uid, latent_class, gains)], int(n), uid=np.arange(n))
        assert merged.order.tolist() == expected


def test_merging_needs_exactly_the_pairs_of_the_pool() -> None:
    rankings = [class_rankings(["a", "b"], [0, 0], [2, 1])]
    with pytest.raises(ValueError, match="hold uid 'b', which the pool does not"):
        merge_class_rankings(rankings, 1, uid=np.array(["a", "c"]))
    with pytest.raises(ValueError, match="hold 2 pairs, not 3: rank all classes"):
        merge_class_rankings(rankings, 3, uid=np.array(["a", "b", "c"]))
    with pytest.raises(ValueError, match="a pair twice"):
        merge_class_rankings([*rankings, *rankings], 1, uid=np.array(["a", "b"]))
    with pytest.raises(ValueError, match="budget"):
        merge_class_rankings(rankings, 3, uid=np.array(["a", "b"]))


def test_merging_needs_each_class_in_one_piece() -> None:
    rankings = [
        class_rankings(["a"], [0], [2]),
        class_rankings(["b"], [1], [2]),
        class_rankings(["c"], [0], [1]),
    ]
    with pytest.raises(ValueError, match="split"):
        merge_class_rankings(rankings, 1, uid=np.array(["a", "b", "c"]))


def test_the_objective_of_a_prefix_is_the_sum_of_its_gains_on_a_larger_pool(pools: SimpleNamespace) -> None:
    pool = pools.random(9, [300, 150, 50], width=32, dtype="float16")
    ranking = METHODS["clipcov"](pool, 250)
    assert objective(pool, ranking.order) == pytest.approx(ranking.gains.sum(dtype=float), rel=1e-5)
