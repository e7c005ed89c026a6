import shlex
import subprocess

import polars as pl
import pytest

from clipcov_assets.ingest.delivery import DeliveryError, DeliveryOptions
from clipcov_assets.ingest.url_list import FORMAT

ADDRESS = "https://example.org/a,b.jpg"


def arguments(command):
    """The options of an img2dataset command, as a shell would split them."""
    words = shlex.split(command)
    assert words[:4] == ["uvx", "--python", "3.12", "img2dataset"]
    return dict(zip(words[4::2], words[5::2], strict=True))


def commands(directory):
    return [line.strip() for line in FORMAT.obstacle(directory).splitlines()[1:]]


@pytest.mark.parametrize(
    "row, header",
    [(f"a dog\t{ADDRESS}", "caption\turl"), (f"{ADDRESS}\ta dog", "url\tcaption")],
    ids=["cc3m", "cc12m"],
)
def test_the_order_without_a_header_is_found_and_the_commands_work(tmp_path, row, header):
    directory = tmp_path / "it's here"
    directory.mkdir()
    table = directory / "train set.tsv"
    table.write_text(f"{row}\n{row}\n")
    assert FORMAT.is_here(directory)
    add_header, download = commands(directory)
    subprocess.run(add_header, shell=True, check=True)
    assert table.read_text() == f"{header}\n{row}\n{row}\n"
    assert arguments(download) == {
        "--url_list": str(table),
        "--input_format": "tsv",
        "--url_col": "url",
        "--caption_col": "caption",
        "--resize_mode": "keep_ratio",
        "--image_size": "256",
        "--output_format": "webdataset",
        "--output_folder": f"{directory}-pairs",
    }
    assert commands(directory) == [download]  # with the header on top only the download is left


def test_columns_are_named_as_the_table_names_them(tmp_path):
    pl.DataFrame({"uid": ["0"], "URL": [ADDRESS], "TEXT": ["a dog"]}).write_parquet(tmp_path / "t.parquet")
    (command,) = commands(tmp_path)
    given = arguments(command)
    assert (given["--input_format"], given["--url_col"], given["--caption_col"]) == ("parquet", "URL", "TEXT")
    assert given["--save_additional_columns"] == '["uid"]'


def test_many_tables_of_one_kind_are_one_command(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.csv").write_text(f"caption,image_url\nx,{ADDRESS}\n")
    (tmp_path / "t.tsv").write_text(f"{ADDRESS}\tx\n")
    _, first, second = commands(tmp_path)
    assert arguments(first)["--url_list"] == str(tmp_path)
    assert arguments(second)["--url_list"] == str(tmp_path / "t.tsv")
    assert arguments(first)["--output_folder"] != arguments(second)["--output_folder"]


@pytest.mark.parametrize("write", [pl.DataFrame.write_csv, pl.DataFrame.write_parquet])
def test_addresses_in_a_column_of_images_are_addresses(tmp_path, write):
    suffix = write.__name__.removeprefix("write_")
    write(pl.DataFrame({"text": ["x"], "image": [ADDRESS]}), tmp_path / f"t.{suffix}")
    (command,) = commands(tmp_path)
    assert (arguments(command)["--url_col"], arguments(command)["--caption_col"]) == ("image", "text")


def test_tabs_in_a_csv_are_called_tsv_and_the_file_is_named(tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.csv").write_text(f"caption\turl\nx\t{ADDRESS}\n")
    given = [arguments(command) for command in commands(tmp_path)]
    assert [options["--input_format"] for options in given] == ["tsv", "tsv"]
    assert [options["--url_list"] for options in given] == [str(tmp_path / "0.csv"), str(tmp_path / "1.csv")]


@pytest.mark.parametrize("content", ["image,caption\n1.jpg,x\n", "a dog\ta cat\n", f"{ADDRESS}\t{ADDRESS}\n"])
def test_other_tables_are_no_lists_of_addresses(tmp_path, content):
    (tmp_path / "t.csv").write_text(content)
    assert not FORMAT.is_here(tmp_path)


def test_with_images_it_is_something_else(tmp_path, make):
    (tmp_path / "t.csv").write_text("url,caption\n")
    (tmp_path / "a.png").write_bytes(make.image())
    assert not FORMAT.is_here(tmp_path)


def test_it_holds_no_pairs(tmp_path):
    (tmp_path / "t.csv").write_text("url,caption\n")
    with pytest.raises(DeliveryError, match="img2dataset"):
        FORMAT.shards(tmp_path, DeliveryOptions())
