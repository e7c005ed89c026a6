from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clipcov_assets.core import Pool
from clipcov_assets.core.pool import as_uids, rows_by_class

EYE = np.eye(3, dtype=np.float32)


def columns(**changes: Any) -> dict[str, Any]:
    return {
        "uid": ["c", "a", "b"],
        "image_embeddings": EYE,
        "text_embeddings": EYE,
        "latent_class": [0, 1, 0],
        "class_embeddings": EYE[:2],
        "captions": ["one", "two", "three"],
        "partial_clip_score": [0.1, 0.2, 0.3],
    } | changes


def test_a_pool_keeps_float16_and_narrows_wider_floats() -> None:
    pool = Pool(**columns(image_embeddings=EYE.astype(np.float16), text_embeddings=EYE.astype(np.float64)))
    assert (pool.image_embeddings.dtype, pool.text_embeddings.dtype) == (np.float16, np.float32)


def test_rows_rounded_to_float16_are_unit_rows(pools: SimpleNamespace) -> None:
    rows = pools.unit(np.random.default_rng(0).normal(size=(3, 512))).astype(np.float16)
    Pool(uid=[1, 2, 3], image_embeddings=rows)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"uid": []}, "uid is empty"),
        ({"uid": ["a", "b", "a"]}, "uid 'a' appears more than once"),
        ({"uid": [1.5, 2.5, 3.5]}, "uid must be a row of strings or 64-bit integers"),
        ({"uid": ["a", None, "b"]}, "uid must be a row of strings or 64-bit integers"),
        ({"image_embeddings": EYE[:2]}, "image_embeddings has 2 rows and uid has 3"),
        ({"image_embeddings": EYE[0]}, "image_embeddings must be a two-dimensional array"),
        (
            {"image_embeddings": EYE * [[1], [1], [2]]},
            r"image_embeddings: row 2 \(uid 'b'\) has length 2, not 1",
        ),
        ({"text_embeddings": EYE * [[1], [0], [1]]}, r"text_embeddings: row 1 \(uid 'a'\) has length 0"),
        (
            {"text_embeddings": EYE + [[0], [np.nan], [0]]},
            r"text_embeddings: row 1 \(uid 'a'\) is not finite",
        ),
        (
            {"text_embeddings": EYE + [[np.inf], [0], [0]]},
            r"text_embeddings: row 0 \(uid 'c'\) is not finite",
        ),
        ({"text_embeddings": np.eye(3, 4)}, "disagree in width .*text_embeddings 4"),
        ({"class_embeddings": EYE[:2] * 3}, "class_embeddings: class 0 has length 3"),
        ({"latent_class": [0, 2, 0]}, r"latent_class: row 1 \(uid 'a'\) is 2, outside \[0, 2\)"),
        ({"latent_class": [0, 0, -1]}, r"latent_class: row 2 \(uid 'b'\) is -1"),
        ({"latent_class": [0.0, 1.0, 0.0]}, "latent_class must be a row of integers"),
        ({"latent_class": [0, 1]}, "latent_class has 2 rows"),
        ({"captions": ["one", None, "three"]}, r"captions: row 1 \(uid 'a'\) is NoneType, not a string"),
        ({"captions": ["one"]}, "captions has 1 rows"),
        ({"partial_clip_score": [0.1, 0.2, np.nan]}, r"partial_clip_score: row 2 \(uid 'b'\) is not finite"),
        ({"partial_clip_score": [0.1]}, "partial_clip_score has 1 rows"),
    ],
)
def test_a_fault_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pool(**columns(**changes))


def test_a_missing_column_is_named_with_the_method_that_reads_it() -> None:
    pool = Pool(uid=[1])
    with pytest.raises(ValueError, match="metaclip reads the column captions"):
        pool.require("uid", "captions", method="metaclip")


def test_required_columns_come_back_in_the_order_asked_for() -> None:
    pool = Pool(**columns())
    captions, uid = pool.require("captions", "uid", method="any")
    assert captions == ("one", "two", "three")
    assert uid.tolist() == ["c", "a", "b"]


def test_uids_sort_as_strings_or_as_integers() -> None:
    assert Pool(uid=["b10", "b9", "a"]).by_uid.tolist() == [2, 0, 1]
    assert Pool(uid=[10, 9, -1]).by_uid.tolist() == [2, 1, 0]
    assert Pool(uid=["b10", "b9", "a"]).uid_rank.tolist() == [1, 2, 0]


def test_uids_may_come_as_objects() -> None:
    assert as_uids(np.array(["a", "bc"], dtype=object)).dtype == np.dtype("<U2")


def test_classes_come_with_their_rows_in_order_of_uid() -> None:
    assert [(k, rows.tolist()) for k, rows in rows_by_class(Pool(**columns()))] == [(0, [2, 0]), (1, [1])]
