"""The accelerator ranks each latent class as the CPU does, however classes are sized, batched and repeated."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from clipcov_assets.core import device_greedy
from clipcov_assets.core.device_greedy import device_orders
from clipcov_assets.core.objective import TERMS
from clipcov_assets.core.paper import paper_order

ALL = frozenset(TERMS)
Class = tuple[int, np.ndarray, np.ndarray]


@pytest.fixture(
    params=[
        "cpu",
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
    ]
)
def device(request: pytest.FixtureRequest) -> str:
    return request.param


def classes_of(
    seed: int,
    sizes: tuple[int, ...],
    *,
    width: int = 12,
    cone: float = 1.0,
    dtype: str = "float32",
    copied: float = 0.0,
) -> list[Class]:
    """Unit rows around one direction a class; a share of them are copies of other rows."""
    random = np.random.default_rng(seed)

    def unit_rows(n: int) -> np.ndarray:
        rows = random.normal(size=(n, width)) / np.sqrt(width) + cone * np.eye(width)[0]
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    classes = []
    for k, n in enumerate(sizes):
        pairs = np.concatenate([unit_rows(n), unit_rows(n)], axis=1).astype(dtype)
        source = np.where(random.random(n) < copied, random.integers(0, n, n), np.arange(n))
        classes.append((k + 10, pairs[source], random.normal(size=2 * width)))
    return classes


def assert_ranked_as_on_the_cpu(
    classes: list[Class], device: str, *, terms: frozenset[str] = ALL, memory: int | None = None
) -> None:
    ranked = list(device_orders(iter(classes), terms, device=device, memory=memory))
    assert sorted(k for k, _, _ in ranked) == sorted(k for k, _, _ in classes)
    given = {k: (pairs, weight) for k, pairs, weight in classes}
    for k, order, gains in ranked:
        expected, expected_gains = paper_order(*given[k], terms)
        assert order.dtype == np.int64
        assert gains.dtype == np.float64
        np.testing.assert_array_equal(order, expected)
        np.testing.assert_allclose(gains, expected_gains, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("cone", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("copied", [0.0, 0.3, 0.95])
def test_classes_of_all_sizes(device: str, dtype: str, cone: float, copied: float) -> None:
    sizes = (1, 2, 3, 57, 300, 1, 700, 2_000, 90)
    assert_ranked_as_on_the_cpu(classes_of(1, sizes, cone=cone, dtype=dtype, copied=copied), device)


@pytest.mark.parametrize("cone", [0.0, 1.0])
@pytest.mark.parametrize("copied", [0.0, 0.5])
@pytest.mark.parametrize("candidates", [1, 7, 64])
def test_classes_far_larger_than_the_candidates_of_a_round(
    device: str, monkeypatch: pytest.MonkeyPatch, cone: float, copied: float, candidates: int
) -> None:
    monkeypatch.setattr(device_greedy, "candidate_count", lambda longest: min(longest, candidates))
    assert_ranked_as_on_the_cpu(classes_of(2, (40, 300, 900), cone=cone, copied=copied), device)


def test_most_candidates_are_kept_so_that_rounds_are_few(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = []
    keep_head = device_greedy.keep_head
    monkeypatch.setattr(device_greedy, "keep_head", lambda *given: rounds.append(1) or keep_head(*given))
    list(device_orders(iter(classes_of(3, (2_840,), width=64)), ALL, device=device))
    assert len(rounds) <= 10  # 6 rounds of 512 if none were ever dropped


@pytest.mark.parametrize(
    "terms", [{"class"}, {"self"}, {"label"}, {"self", "label"}, {"class", "self"}, {"class_reg", "inter"}]
)
def test_any_terms(device: str, terms: set[str]) -> None:
    assert_ranked_as_on_the_cpu(classes_of(4, (600, 200, 1), copied=0.2), device, terms=frozenset(terms))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_class_of_one_row_repeated_is_ranked_in_its_own_order(device: str, dtype: str) -> None:
    ((k, pairs, weight),) = classes_of(5, (1,), dtype=dtype)
    repeated = [(k, np.repeat(pairs, 1_500, axis=0), weight)]
    ((_, order, _),) = device_orders(iter(repeated), ALL, device=device)
    np.testing.assert_array_equal(order, np.arange(1_500))
    assert_ranked_as_on_the_cpu(repeated, device)


def test_equal_rows_are_chained_whatever_the_sign_of_their_zeros(device: str) -> None:
    rows = torch.tensor([[1, 0.0], [2, 3], [1, -0.0], [2, 4], [1, 0.0], [0, 0]], dtype=torch.float16, device=device)
    padding = torch.tensor([[False] * 6, [False] * 3 + [True] * 3], device=device)
    twin, later = device_greedy.copies(rows.expand(2, 6, 2).contiguous(), padding, tile=4)
    assert twin.tolist() == [[2, -1, 4, -1, -1, -1], [2, -1, -1, -1, -1, -1]]
    assert later.tolist() == [[False, False, True, False, True, False], [False, False, True, False, False, False]]


@pytest.mark.parametrize("candidates", [3, 512])
def test_different_rows_with_exactly_equal_gains_come_in_their_own_order(
    device: str, monkeypatch: pytest.MonkeyPatch, candidates: int
) -> None:
    monkeypatch.setattr(device_greedy, "candidate_count", lambda longest: min(longest, candidates))
    pairs = np.tile(np.eye(8, dtype=np.float32), (1, 2))  # sim(e, e) = 2, others 0
    ((_, order, gains),) = device_orders(iter([(0, pairs, np.zeros(16))]), ALL, device=device)
    np.testing.assert_array_equal(order, np.arange(8))
    np.testing.assert_array_equal(gains, 2 - 1 / 8)
    twice = np.concatenate([pairs, pairs])  # second copies after all first ones
    ((_, order, _),) = device_orders(iter([(0, twice, np.zeros(16))]), ALL, device=device)
    np.testing.assert_array_equal(order, np.arange(16))


@pytest.mark.parametrize("memory", [1, 2_000_000, 16_000_000, 64_000_000])
def test_little_memory_costs_batches_and_the_cpu_ranks_what_does_not_fit(
    device: str, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    classes = classes_of(6, (1_200, 40, 300, 50, 20, 310, 60, 400, 1), dtype="float16")
    batched, alone = [], []
    batch_orders = device_greedy.batch_orders

    def spy_batch(together: list[device_greedy.HeldClass], *rest: object) -> list[tuple[np.ndarray, np.ndarray]]:
        batched.append([len(one.pairs) for one in together])
        return batch_orders(together, *rest)

    def spy_alone(pairs: np.ndarray, *rest: object) -> tuple[np.ndarray, np.ndarray]:
        alone.append(len(pairs))
        return paper_order(pairs, *rest)

    monkeypatch.setattr(device_greedy, "batch_orders", spy_batch)
    monkeypatch.setattr(device_greedy, "paper_order", spy_alone)
    assert_ranked_as_on_the_cpu(classes, device, memory=memory)
    assert sorted(sum(batched, alone)) == sorted(len(pairs) for _, pairs, _ in classes)
    assert (1_200 in alone) == (memory < 64_000_000)
    assert (len(alone) == len(classes)) == (memory == 1)
    assert len(batched) != 1


def test_classes_are_read_no_further_than_memory_reaches(device: str) -> None:
    read = []

    def reading() -> Iterator[Class]:
        for one in classes_of(7, (20,) * 250):
            read.append(one[0])
            yield one

    orders = device_orders(reading(), ALL, device=device, memory=400_000)
    next(orders)
    assert len(read) < 250
    assert len(list(orders)) == 249


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_named() -> None:
    with pytest.raises(ValueError, match="device is 'cuda', and torch sees no GPU"):
        list(device_orders(iter([]), ALL, device="cuda"))
