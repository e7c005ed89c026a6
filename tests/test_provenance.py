import dagster as dg
import pyarrow as pa
import pytest

from clipcov_assets.provenance import (
    PROVENANCE,
    Input,
    RecordedInput,
    configuration,
    content_version,
    legible,
    provenance_table,
    recorded_inputs,
)


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


def test_a_provenance_table_is_read_back():
    inputs = [
        Input("pool", "crawl-1", "abc", "run", {"lance_version": dg.MetadataValue.int(3)}),
        Input("proxy_checkpoint", None, "def", "run", {}),
    ]
    assert recorded_inputs({PROVENANCE: provenance_table(inputs)}) == (
        RecordedInput("pool", "crawl-1", "abc", "run", "3"),
        RecordedInput("proxy_checkpoint", None, "def", "run", ""),
    )
    assert recorded_inputs({}) == recorded_inputs({PROVENANCE: dg.MetadataValue.text("pool")}) == ()


def test_the_configuration_holds_what_decides_about_results_and_no_address(monkeypatch):
    monkeypatch.setenv("CLIPCOV_SEEDS", "0,1")
    monkeypatch.setenv("CLIPCOV_LANCE", "s3://user:secret@bucket")
    found = configuration()
    assert (found["CLIPCOV_SCALE"], found["CLIPCOV_SEEDS"]) == ("tiny", "0,1")
    assert "secret" not in str(found)
    assert found["project"]
