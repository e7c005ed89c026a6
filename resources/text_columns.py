"""Text in Arrow columns: in memory with offsets of 64 bits, since 32 end at 2 GiB of a column; stored with 32."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NARROW, WIDE = pa.string(), pa.large_string()
MOST_NARROW = 2**31 - 1  # bytes of text that offsets of 32 bits reach


def wide(schema: pa.Schema) -> pa.Schema:
    """The schema with offsets of 64 bits, which what grows with a pool needs in memory."""
    return _with_text(schema, NARROW, WIDE)


def narrow(schema: pa.Schema) -> pa.Schema:
    """The schema with offsets of 32 bits, as it is stored."""
    return _with_text(schema, WIDE, NARROW)


def narrowed(rows: pa.Table) -> Iterator[pa.Table]:
    """Yield copies of the rows with offsets of 32 bits: all at once, or halves of halves that are short enough.

    How the rows lie in memory, and what they were cut from, leaves no trace in the copies.

    Raises:
        pyarrow.ArrowInvalid: One text alone is longer than 2 GiB.
    """
    text = [column for column in rows.columns if column.type in (NARROW, WIDE)]
    if len(rows) > 1 and any((pc.sum(pc.binary_length(column)).as_py() or 0) > MOST_NARROW for column in text):
        yield from narrowed(rows.slice(0, len(rows) // 2))
        yield from narrowed(rows.slice(len(rows) // 2))
    else:
        # Arrow narrows by the offsets of the whole, so a slice of something long has to become a copy first.
        yield rows.take(pa.array(np.arange(len(rows)))).combine_chunks().cast(narrow(rows.schema))


def _with_text(schema: pa.Schema, present: pa.DataType, wanted: pa.DataType) -> pa.Schema:
    fields = [field.with_type(wanted) if field.type == present else field for field in schema]
    return pa.schema(fields, schema.metadata)
