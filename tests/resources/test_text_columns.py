import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from resources import text_columns
from resources.text_columns import narrow, narrowed, wide

TEXT = pa.schema(
    [
        pa.field("uid", pa.string(), nullable=False, metadata={"description": "Who."}),
        pa.field("rank", pa.int64()),
        pa.field("image", pa.large_binary()),
    ],
    metadata={"proxy": "abc"},
)


def long_texts(count):
    """A wide column of texts of 256 MiB each: one buffer of zeros, which takes no memory until it is copied."""
    offsets = np.arange(count + 1) * 2**28
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(bytes(count * 2**28))]
    return pa.Array.from_buffers(pa.large_string(), count, buffers)


def test_only_the_offsets_of_text_are_other_ones():
    assert wide(TEXT).types == [pa.large_string(), pa.int64(), pa.large_binary()]
    assert narrow(wide(TEXT)).equals(TEXT, check_metadata=True)
    assert wide(TEXT).field("uid").metadata == TEXT.field("uid").metadata
    assert not wide(TEXT).field("uid").nullable


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_short_text_is_narrowed_at_once(rows):
    table = pa.table({"uid": ["a", None, "", "d", "e"], "rank": range(5)}).slice(0, rows)
    (found,) = narrowed(table.cast(wide(table.schema)))
    assert found.equals(table)


def test_text_too_long_for_narrow_offsets_is_narrowed_by_halves_of_halves(monkeypatch):
    monkeypatch.setattr(text_columns, "MOST_NARROW", 6)
    table = pa.table({"uid": ["aa", "bb", "cc", "dd", "ee", "ff", "gg"], "rank": range(7)})
    found = list(narrowed(table.cast(wide(table.schema))))
    assert [len(one) for one in found] == [3, 2, 2]
    assert pa.concat_tables(found).equals(table)


def test_rows_beyond_2_gib_of_a_column_are_narrowed():
    (found,) = narrowed(pa.table({"caption": long_texts(9)}).slice(8))
    assert found.schema.field("caption").type == pa.string()
    assert pc.binary_length(found["caption"]).to_pylist() == [2**28]
