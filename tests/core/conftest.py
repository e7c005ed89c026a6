"""Tiny models and pictures; small pools, and the paper's objective written out as loops."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
from numpy.typing import ArrayLike
from PIL import Image

from clipcov_assets.core import Pool
from clipcov_assets.core.clip_model import ClipModel, create_clip

COLORS = ("red", "green", "blue", "white", "black", "yellow")
WORDS = ("a", "red", "dog", "cat", "on", "the", "old", "house", ",", "New", "York", "blue", "tree", "sleeps")
COLUMNS = ("image_embeddings", "text_embeddings", "latent_class", "captions", "partial_clip_score")

open_clip.add_model_config(Path(__file__).parent / "architectures")


def picture(color: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), color).save(stream, format="PNG")
    return stream.getvalue()


@pytest.fixture
def tiny_clip() -> ClipModel:
    return create_clip("tiny", seed=0)


@pytest.fixture
def pictures() -> list[bytes]:
    """One plain picture a colour."""
    return [picture(color) for color in COLORS]


@pytest.fixture
def captions() -> list[str]:
    """The colours' names, in the order of the pictures."""
    return list(COLORS)


def unit(rows: ArrayLike) -> np.ndarray:
    rows = np.asarray(rows, float)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def random_pool(
    seed: int,
    sizes: Sequence[int] = (7, 5, 0, 1),
    *,
    width: int = 6,
    signed: bool = False,
    dtype: str = "float32",
) -> Pool:
    """One class a size; in a cone, where all similarities are positive, or all over the sphere."""
    random = np.random.default_rng(seed)
    n, cone = sum(sizes), 0.0 if signed else 5.0

    def rows(count: int) -> np.ndarray:
        return unit(random.normal(size=(count, width)) + cone * np.eye(width)[0])

    return Pool(
        uid=random.permutation([f"pair-{i:04d}" for i in range(n)]),
        image_embeddings=rows(n).astype(dtype),
        text_embeddings=rows(n).astype(dtype),
        latent_class=random.permutation(np.repeat(np.arange(len(sizes)), sizes)),
        class_embeddings=rows(len(sizes)),
        captions=[" ".join(random.choice(WORDS, 6)) for _ in range(n)],
        partial_clip_score=random.normal(size=n),
    )


def rows_of(pool: Pool, rows: np.ndarray, *, uid: ArrayLike | None = None) -> Pool:
    """The pool with only these rows, in this order; with `uid` as new names, rows may repeat."""
    columns = {name: np.asarray(getattr(pool, name))[rows] for name in COLUMNS}
    columns["captions"] = columns["captions"].tolist()
    return Pool(uid=pool.uid[rows] if uid is None else uid, class_embeddings=pool.class_embeddings, **columns)


def with_equal_rows(pool: Pool, seed: int) -> Pool:
    """The pool with about half of its pairs replaced by copies of others under their own uid."""
    random = np.random.default_rng(seed)
    n = len(pool)
    source = np.where(random.random(n) < 0.5, random.integers(0, n, n), np.arange(n))
    return rows_of(pool, source, uid=pool.uid)


def similarity(pool: Pool) -> np.ndarray:
    """(n, n) Definition 4.1."""
    images, texts = pool.image_embeddings.astype(float), pool.text_embeddings.astype(float)
    return images @ texts.T + texts @ images.T


def objective_by_loops(
    pool: Pool, chosen: Iterable[int], *, alpha: float = 0.5, inter: str = "mean", terms: Iterable[str]
) -> float:
    """Eq. (16), sum by sum as the paper writes it."""
    sim, classes = similarity(pool), pool.latent_class
    labels = pool.text_embeddings.astype(float) @ pool.class_embeddings.astype(float).T
    members = {k: np.flatnonzero(classes == k) for k in set(classes.tolist())}
    total = 0.0
    for k, of_class in members.items():
        picked = [i for i in chosen if classes[i] == k]
        n_k = len(of_class)
        for i in picked:
            if "class" in terms:
                total += sum(sim[i, j] for j in of_class) / n_k - sum(sim[i, j] for j in picked) / (2 * n_k)
            if "self" in terms:
                total += sim[i, i]
            if "label" in terms:
                total += alpha * labels[i, k] - alpha * labels[i, k] / n_k
            if "class_reg" in terms:
                total -= sum(sim[i, j] for j in of_class) / n_k**2
            if "inter" in terms and len(members) > 1:
                others = [sum(sim[i, j] for j in rows) / len(rows) for c, rows in members.items() if c != k]
                total -= sum(others) / (len(others) if inter == "mean" else 1)
    return total


@pytest.fixture(scope="session")
def pools() -> SimpleNamespace:
    return SimpleNamespace(
        unit=unit,
        random=random_pool,
        rows_of=rows_of,
        with_equal_rows=with_equal_rows,
        similarity=similarity,
        objective=objective_by_loops,
    )
