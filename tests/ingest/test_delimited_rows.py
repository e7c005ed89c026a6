import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipcov_assets.ingest import delimited_rows
from clipcov_assets.ingest.delimited_rows import cut_rows, read_headers, read_rows, split_row
from clipcov_assets.ingest.delivery import DeliveryError


def rows_of(path, content):
    path.write_bytes(content)
    header = read_headers(path)[0]
    return [split_row(row, header.delimiter) for run in cut_rows(path, header) for row in read_rows(path, header, run)]


CELLS = st.text(st.sampled_from('ab",\n\r;\t é\x00'), max_size=6)


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), max_size=12),
    delimiter=st.sampled_from(",;|"),
    end=st.sampled_from(("\n", "\r\n")),
)
def test_what_pythons_writer_wrote_is_read_back(tmp_path_factory, rows, delimiter, end):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("image", "caption"), *rows])
    read = rows_of(tmp_path_factory.mktemp("rows") / "t.csv", text.getvalue().encode())
    assert read == [[cell.encode() for cell in row] for row in rows]


def test_a_quoted_field_holds_delimiters_quotes_and_line_ends(tmp_path):
    content = b'image,caption\r\n1.jpg,"a dog, ""big""\r\nand brown"\r\n2.jpg,plain\r\n'
    assert rows_of(tmp_path / "t.csv", content) == [
        [b"1.jpg", b'a dog, "big"\r\nand brown'],
        [b"2.jpg", b"plain"],
    ]


def test_quotes_that_do_not_enclose_a_field_are_characters(tmp_path):
    content = b'image\tcaption\n1.jpg\t"Hello" he said\n2.jpg\ta 5" disk\n'
    assert rows_of(tmp_path / "t.tsv", content) == [[b"1.jpg", b'"Hello" he said'], [b"2.jpg", b'a 5" disk']]


@pytest.mark.parametrize("delimiter", [b",", b"\t"])
@pytest.mark.parametrize("later", [b"plain", b'"quoted"', b'a 5"'])
def test_a_quote_that_is_never_closed_costs_its_own_row_only(tmp_path, delimiter, later):
    lines = [b"image,caption", b'1.jpg,"open', b"2.jpg,x", b"3.jpg," + later, b"4.jpg,y"]
    rows = rows_of(tmp_path / "t", b"\n".join(lines).replace(b",", delimiter))
    if later == b'a 5"' and delimiter == b",":  # a legal field over three lines, whoever wrote it
        assert rows == [[b"1.jpg", b"open\n2.jpg,x\n3.jpg,a 5"], [b"4.jpg", b"y"]]
    else:
        assert [row and row[0] for row in rows] == [None, b"2.jpg", b"3.jpg", b"4.jpg"]


def test_a_field_without_end_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited_rows, "LONGEST_ROW", 20)
    rows = rows_of(tmp_path / "t", b'image,caption\n1.jpg,"a\nb\n' + b"c" * 20 + b'"\n2.jpg,x\n')
    assert (rows[0], rows[-1]) == (None, [b"2.jpg", b"x"])


def test_runs_cover_every_row_once_and_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited_rows, "ROWS_A_RUN", 3)
    monkeypatch.setattr(delimited_rows, "BYTES_A_RUN", 40)
    path = tmp_path / "t.csv"
    lines = [
        f'{number}.jpg,"two\nlines"\n\n' if number % 2 else f"{number}.jpg,{'x' * number}\n" for number in range(40)
    ]
    path.write_text("image,caption\n" + "".join(lines))
    header = read_headers(path)[0]
    runs = list(cut_rows(path, header))
    rows = [row for run in runs for row in read_rows(path, header, run)]
    assert [row.split(b".")[0] for row in rows] == [b"%d" % number for number in range(40)]
    assert [run.first for run in runs] == [sum(run.count for run in runs[:number]) for number in range(len(runs))]
    assert all(run.count <= 3 and (run.size <= 40 or run.count == 1) for run in runs)


def test_a_header_may_have_a_byte_order_mark_and_windows_line_ends(tmp_path):
    (tmp_path / "t.csv").write_bytes("\ufeff image ,caption\r\n1.jpg,x".encode())
    (header,) = read_headers(tmp_path / "t.csv")
    assert (header.delimiter, header.names) == (b",", ("image", "caption"))


@pytest.mark.parametrize("content", [b"", b"image", b"\xff\xfei\x00,\x00", b"\n\n"])
def test_what_has_no_header_has_none(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    assert read_headers(tmp_path / "t.csv") == []


def test_a_table_that_changes_while_it_is_read_is_an_error(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("image,caption\n1.jpg,x\n2.jpg,y\n")
    header = read_headers(path)[0]
    (run,) = cut_rows(path, header)
    path.write_text("image,caption\n1.jpg,x\n")
    with pytest.raises(DeliveryError, match="changed while it was read"):
        read_rows(path, header, run)
