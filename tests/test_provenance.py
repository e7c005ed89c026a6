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
from clipcov_assets.tables import ranking_schema
from resources.text_columns import narrow


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_equal_rows_have_the_equal_version_however_they_lie_in_memory(rows):
    table = pa.table({"uid": ["a", "b", "c", "d"], "gain": [0.5, None, 0.25, 1.0]})
    piece = table.slice(1, rows)
    rebuilt = pa.Table.from_pylist(piece.to_pylist(), schema=table.schema)
    chunked = pa.concat_tables([piece.slice(0, 1), piece.slice(1)])
    assert content_version(piece) == content_version(rebuilt) == content_version(chunked)
    assert content_version(piece) != content_version(table)


RANKED = pa.table(
    {
        "uid": ["pair-1", "pair-2", "pair-3"],
        "rank": range(3),
        "gain": [0.5, 0.25, 0],
        "partner": [None, "pair-1", None],
    },
    schema=ranking_schema(["partner"]),
)


def test_versions_are_those_of_every_earlier_release():
    """Other versions would make every result again, with all trainings; change these only to do that."""
    parts = [pa.table({"uid": ["a", "b", "c", "d"], "gain": [0.5, None, 0.25, 1.0]}), RANKED, RANKED.slice(1)]
    assert [content_version(part) for part in (*parts, RANKED.slice(0, 0))] == [
        "83e3597e9e9e1a67",
        "2afcdfcc8073d3f6",
        "fee568445ffc2007",
        "cf8a05477f69efa3",
    ]


def test_the_version_does_not_depend_on_the_offsets_of_text():
    assert RANKED.schema.field("uid").type != narrow(RANKED.schema).field("uid").type
    assert content_version(RANKED) == content_version(RANKED.cast(narrow(RANKED.schema)))


def test_text_that_is_too_long_for_one_piece_has_one_version_however_it_lies_in_memory(monkeypatch):
    at_once = content_version(RANKED)
    monkeypatch.setattr("resources.text_columns.MOST_NARROW", 10)
    chunked = pa.concat_tables([RANKED.slice(0, 2), RANKED.slice(2)])
    assert content_version(RANKED) == content_version(chunked) == content_version(RANKED.cast(narrow(RANKED.schema)))
    assert content_version(RANKED) not in (at_once, content_version(RANKED.slice(1)))


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
