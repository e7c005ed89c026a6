from types import SimpleNamespace

import numpy as np
import pytest

from clipcov_assets.core import METHODS, objective
from clipcov_assets.core.class_pairs import class_loader
from clipcov_assets.core.covariance import cross_products
from clipcov_assets.core.statistics import class_statistics
from clipcov_assets.core.subset import subset_sums


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_subset_added_up_class_by_class_is_the_subset_as_a_whole(dtype: str, pools: SimpleNamespace) -> None:
    pool = pools.random(0, [30, 20, 0, 5], dtype=dtype)
    order = METHODS["random"](pool, 17).order
    classes, load = class_loader(pool)

    chosen = np.isin(pool.by_uid, order)
    found = subset_sums(classes, load, chosen, class_statistics(pool), pool.class_embeddings)
    subset = pools.rows_of(pool, order)
    assert found.objective == pytest.approx(objective(pool, order), rel=1e-12)
    np.testing.assert_array_equal(found.statistics.counts, class_statistics(subset).counts)
    np.testing.assert_allclose(found.statistics.text_sums, class_statistics(subset).text_sums, atol=1e-12)
    products = cross_products(subset.image_embeddings, subset.text_embeddings)
    np.testing.assert_allclose(found.products, products, rtol=1e-5, atol=1e-5)
