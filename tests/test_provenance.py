import pyarrow as pa
import pytest

from clipcov_assets.provenance import content_version


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_equal_rows_have_the_equal_version_however_they_lie_in_memory(rows):
    table = pa.table({"uid": ["a", "b", "c", "d"], "gain": [0.5, None, 0.25, 1.0]})
    piece = table.slice(1, rows)
    rebuilt = pa.Table.from_pylist(piece.to_pylist(), schema=table.schema)
    chunked = pa.concat_tables([piece.slice(0, 1), piece.slice(1)])
    assert content_version(piece) == content_version(rebuilt) == content_version(chunked)
    assert content_version(piece) != content_version(table)
