"""One stored ranking a method. After a wanted change: `python tests/core/test_golden.py` writes them anew."""

import json
from pathlib import Path

import numpy as np
import pytest

from clipcov_assets.core import METHODS, Pool

GOLDEN = Path(__file__).with_name("golden.json")
CASES = {
    "clipcov": ("clipcov", {}),
    "clipcov-released": ("clipcov", {"variant": "released"}),
    "clip_score": ("clip_score", {}),
    "c_rho": ("c_rho", {}),
    "semdedup": ("semdedup", {"n_clusters": 3}),
    "metaclip": ("metaclip", {"entries": ["red", "blue", "a dog", "cat"]}),
    "random": ("random", {}),
    "full": ("full", {}),
}


def golden_pool() -> Pool:
    """24 pairs in 3 classes, made of cosines so that no generator of numbers takes part."""

    def rows(count: int, step: float) -> np.ndarray:
        waves = np.cos(step * np.outer(np.arange(1, count + 1), np.arange(1, 6))) + [2, 0, 0, 0, 0]
        return waves / np.linalg.norm(waves, axis=1, keepdims=True)

    captions = [f"a {('red', 'blue', 'big')[i % 3]} {('dog', 'cat', 'fish', 'old cat')[i % 4]}" for i in range(24)]
    return Pool(
        uid=[f"pair-{i * 7 % 24:02d}" for i in range(24)],
        image_embeddings=rows(24, 0.7),
        text_embeddings=rows(24, 1.3),
        latent_class=[(0, 0, 1, 0, 2, 1)[i % 6] for i in range(24)],
        class_embeddings=rows(3, 2.1),
        captions=captions,
        partial_clip_score=np.sin(np.arange(24)),
    )


def ranked(case: str) -> dict[str, list[str] | list[float]]:
    name, own = CASES[case]
    pool = golden_pool()
    ranking = METHODS[name](pool, len(pool), seed=1, **own)
    return {
        "uids": pool.uid[ranking.order].tolist(),
        "gains": [round(float(gain), 5) for gain in ranking.gains],
    }


@pytest.mark.parametrize("case", CASES)
def test_a_ranking_is_the_stored_one(case: str) -> None:
    stored, found = json.loads(GOLDEN.read_text())[case], ranked(case)
    assert found["uids"] == stored["uids"]
    np.testing.assert_allclose(found["gains"], stored["gains"], atol=2e-5)


def test_every_method_has_a_stored_ranking() -> None:
    assert {name for name, _ in CASES.values()} == set(METHODS)
    assert set(json.loads(GOLDEN.read_text())) == set(CASES)


if __name__ == "__main__":
    lines = (f"{json.dumps(case)}: {json.dumps(ranked(case))}" for case in CASES)
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
