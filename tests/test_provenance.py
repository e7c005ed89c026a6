import pyarrow as pa
import pytest

from clipcov_assets.provenance import content_version, legible


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_equal_rows_have_the_equal_version_however_they_lie_in_memory(rows):
    table = pa.table({"uid": ["a", "b", "c", "d"], "gain": [0.5, None, 0.25, 1.0]})
    piece = table.slice(1, rows)
    rebuilt = pa.Table.from_pylist(piece.to_pylist(), schema=table.schema)
    chunked = pa.concat_tables([piece.slice(0, 1), piece.slice(1)])
    assert content_version(piece) == content_version(rebuilt) == content_version(chunked)
    assert content_version(piece) != content_version(table)


def test_numbers_are_shown_as_people_read_them():
    assert [legible(number) for number in (12_800_000, 3.0, 17.827298050139277, 9.99992e-4)] == [
        12_800_000,
        3,
        17.83,
        0.001,
    ]
