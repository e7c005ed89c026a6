import os
import pickle
import subprocess
import sys

import polars as pl
import pytest

from clipcov_assets.ingest import delimited_rows, delivery_files
from clipcov_assets.ingest.delivery import DeliveryError, DeliveryOptions, Reason, content_uid
from clipcov_assets.ingest.image_table import FORMAT


@pytest.fixture
def folder(tmp_path, make):
    directory = tmp_path / "crawl"
    (directory / "images").mkdir(parents=True)
    for number in range(6):
        (directory / "images" / f"{number}.png").write_bytes(make.image(number))
    return directory


@pytest.fixture
def read(make):
    def read(directory, **options):
        shards = pickle.loads(pickle.dumps(FORMAT.shards(directory, DeliveryOptions(**options))))
        assert len({shard.name for shard in shards}) == len(shards)
        return [outcome for shard in shards for outcome in make.read(shard).outcomes]

    return read


def reasons(outcomes):
    return [getattr(outcome, "reason", None) for outcome in outcomes]


@pytest.mark.parametrize(
    "name, header, delimiter",
    [
        ("train.csv", "filepath\ttitle", "\t"),
        ("train.tsv", "filepath\ttitle", "\t"),
        ("train.csv", "image,caption", ","),
        ("train.csv", "Image_Path;TEXT", ";"),
    ],
)
def test_the_usual_columns_are_found(folder, read, make, name, header, delimiter):
    (folder / name).write_text(f"{header}\nimages/0.png{delimiter}a dog\nimages/1.png{delimiter}a cat\n")
    assert FORMAT.is_here(folder)
    pairs = read(folder)
    assert [(pair.caption, pair.image) for pair in pairs] == [("a dog", make.image(0)), ("a cat", make.image(1))]
    assert [(pair.place.file, pair.place.row) for pair in pairs] == [(name, 0), (name, 1)]
    assert pairs[0].uid == content_uid(make.image(0), "a dog")


def test_parquet_is_read_as_csv_is(folder, read):
    rows = {
        "filepath": ["images/0.png", None, "images/2.png"],
        "title": ["a dog", "a cat", None],
        "uid": ["u0", "", "u2"],
    }
    pl.DataFrame(rows).write_parquet(folder / "t.parquet")
    outcomes = read(folder)
    assert reasons(outcomes) == [None, Reason.IMAGE_MISSING, Reason.CAPTION_MISSING]
    assert [outcome.uid for outcome in outcomes] == ["u0", None, "u2"]


def test_numbers_name_pairs_in_parquet_as_in_csv(folder, read):
    pl.DataFrame({"image": ["images/0.png"], "caption": ["x"], "uid": [7]}).write_parquet(folder / "t.parquet")
    (folder / "t.csv").write_text("image,caption,uid\nimages/0.png,x,7\n")
    assert [pair.uid for pair in read(folder)] == ["7", "7"]


def test_columns_by_name_come_before_the_usual_ones(folder, read):
    (folder / "t.csv").write_text("image,photo,caption,words,id\nno.png,images/0.png,no,yes,n1\n")
    (pair,) = read(folder, image="photo", caption="words", uid="id")
    assert (pair.caption, pair.uid) == ("yes", "n1")


def test_paths_are_relative_to_the_table_or_to_the_delivery_or_absolute(folder, read):
    (folder / "tables").mkdir()
    lines = ["../images/0.png", "images/1.png", str(folder / "images" / "2.png")]
    (folder / "tables" / "t.csv").write_text("image,caption\n" + "".join(f"{line},x\n" for line in lines))
    assert reasons(read(folder)) == [None, None, None]


def test_nothing_outside_the_folder_is_read(folder, read, make, tmp_path):
    (tmp_path / "secret.png").write_bytes(make.image())
    (folder / "images" / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "images" / "in.png").symlink_to("0.png")
    (folder / "images" / "round.png").symlink_to("round.png")
    lines = ["../secret.png", str(tmp_path / "secret.png"), "images/out.png", "images/../../secret.png", "/etc/passwd"]
    lines += ["images/in.png", "images/round.png"]
    (folder / "t.csv").write_text("image,caption\n" + "".join(f"{line},x\n" for line in lines))
    assert reasons(read(folder)) == [Reason.IMAGE_OUTSIDE] * 5 + [None, Reason.IMAGE_MISSING]


def test_what_is_no_plain_file_is_missing_and_never_opened(folder, read, monkeypatch):
    monkeypatch.setattr(delivery_files, "LARGEST_MEMBER", 10)
    os.mkfifo(folder / "images" / "fifo.png")
    lines = ["images/none.png", "images", "images/fifo.png", "images/0.png", "", "a\x00b.png", "x" * 5000]
    (folder / "t.csv").write_text("image,caption\n" + "".join(f"{line},x\n" for line in lines))
    outcomes = read(folder)
    assert reasons(outcomes) == [Reason.IMAGE_MISSING] * 7
    assert "10 are the most" in outcomes[3].detail
    assert FORMAT.shards(folder, DeliveryOptions())[0].fingerprint()


def test_a_bad_row_is_a_fault_and_the_rest_goes_on(folder, read):
    (folder / "images" / "1.png").write_bytes(b"no image")
    (folder / "t.csv").write_bytes(
        b"image,caption,uid\n"
        b"images/0.png,fine,u0\nimages/1.png,broken,u1\nimages/2.png,too few\nimages/2.png,too,many,u2\n"
        b'images/3.png,caf\xe9,u3\nimages/3.png,,u4\nimages/3.png,"open,u5\nimages/4.png,x,"a\tb"\nimages/5.png,n\x00l,u7\n'
    )
    outcomes = read(folder)
    assert reasons(outcomes) == [
        None,
        Reason.IMAGE_CORRUPT,
        Reason.ROW_UNREADABLE,
        Reason.ROW_UNREADABLE,
        Reason.CAPTION_UNDECODABLE,
        Reason.CAPTION_EMPTY,
        Reason.ROW_UNREADABLE,
        Reason.METADATA_INVALID,
        None,
    ]
    assert [outcome.place.row for outcome in outcomes] == list(range(9))
    assert outcomes[3].detail == "4 fields, the header has 3"
    assert (outcomes[1].uid, outcomes[8].caption) == ("u1", "n\x00l")


def test_a_file_name_that_is_not_utf8_is_found(folder, read, make):
    (folder / "images" / os.fsdecode(b"caf\xe9.png")).write_bytes(make.image())
    (folder / "t.csv").write_bytes(b"image,caption\nimages/caf\xe9.png,x\n")
    assert reasons(read(folder)) == [None]


def test_every_table_is_read_and_one_that_cannot_be_is_one_fault_and_a_remark(folder, read, make):
    (folder / "a.csv").write_text("image,caption\nimages/0.png,x\n")
    (folder / "more").mkdir()
    (folder / "more" / "b.tsv").write_text("filepath\ttitle\n../images/1.png\ty\n")
    pl.DataFrame({"image": ["images/2.png"] * 9, "caption": ["z"] * 9}).write_parquet(folder / "c.parquet")
    (folder / "c.parquet").write_bytes((folder / "c.parquet").read_bytes()[:-20])
    (folder / "d.csv").write_text("name,size\nx,1\n")
    outcomes = read(folder)
    assert [outcome.place.file for outcome in outcomes] == ["a.csv", "more/b.tsv", "c.parquet", "d.csv"]
    assert reasons(outcomes)[2:] == [Reason.ROW_UNREADABLE] * 2
    shard = FORMAT.shards(folder, DeliveryOptions())[2]
    assert "counts as one pair" in make.read(shard).remarks[0]


def test_a_damaged_page_of_a_parquet_loses_its_rows_with_a_reason(folder, read):
    rows = {"image": [f"images/{number % 6}.png" for number in range(20_000)], "caption": ["x" * 50] * 20_000}
    pl.DataFrame(rows).write_parquet(folder / "t.parquet", row_group_size=5_000, compression="zstd")
    content = bytearray((folder / "t.parquet").read_bytes())
    content[40:120] = b"\xff" * 80
    (folder / "t.parquet").write_bytes(bytes(content))
    outcomes = read(folder)
    assert len(outcomes) == 20_000
    assert reasons(outcomes)[:5_000] == [Reason.ROW_UNREADABLE] * 5_000
    assert not any(reasons(outcomes)[5_000:])


def test_no_table_with_pairs_names_the_columns_and_the_remedy(folder):
    (folder / "t.csv").write_text("photo,words\nimages/0.png,x\n")
    assert not FORMAT.is_here(folder)
    with pytest.raises(DeliveryError, match=r"t\.csv.*photo, words.*delivery\.toml"):
        FORMAT.shards(folder, DeliveryOptions())


def test_a_table_of_addresses_is_not_one_of_image_files(folder):
    (folder / "t.csv").write_text("image,caption\nhttps://example.org/1.jpg,x\n")
    assert not FORMAT.is_here(folder)


def test_shards_are_runs_of_rows_with_a_fingerprint_of_their_own(folder, monkeypatch, make):
    monkeypatch.setattr(delimited_rows, "ROWS_A_RUN", 2)
    table = folder / "t.csv"
    table.write_text("image,caption\n" + "".join(f"images/{number}.png,x{number}\n" for number in range(6)))
    shards = FORMAT.shards(folder, DeliveryOptions())
    assert [shard.name for shard in shards] == ["t.csv[0:2]", "t.csv[2:4]", "t.csv[4:6]"]
    before = [shard.fingerprint() for shard in shards]
    assert len(set(before)) == 3
    (folder / "images" / "2.png").write_bytes(make.image(9))
    table.write_text(table.read_text().replace("x5", "y5"))
    after = [shard.fingerprint() for shard in shards]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, False]


def test_open_clip_reads_the_same_pairs(folder, read, make):
    data = pytest.importorskip("open_clip_train.data")
    captions = ["a dog", 'the "big" one', "two\nlines, and a comma", "tab\there", "naïve"]
    rows = {"filepath": [str(folder / "images" / f"{number}.png") for number in range(5)], "title": captions}
    pl.DataFrame(rows).write_csv(folder / "t.csv", separator="\t")
    theirs = data.CsvDataset(str(folder / "t.csv"), None, "filepath", "title")
    assert [pair.caption for pair in read(folder)] == theirs.captions == captions


def test_memory_stays_flat_over_a_large_table(tmp_path, make):
    (tmp_path / "0.png").write_bytes(make.image())
    with (tmp_path / "t.csv").open("w") as file:
        file.write("image,caption\n")
        file.writelines(f'0.png,"caption {number}, {"x" * 80}"\n' for number in range(300_000))
    program = (
        "import resource, sys; from pathlib import Path; from clipcov_assets.ingest.image_table import FORMAT\n"
        "from clipcov_assets.ingest.delivery import DeliveryOptions\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); shards = FORMAT.shards(Path(sys.argv[1]), DeliveryOptions())\n"
        "sum(1 for shard in shards[:3] for _ in shard.read().outcomes)\n"
        "print(sum(shard.run.count for shard in shards), peak() - before)"
    )
    output = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    rows, kilobytes = map(int, output.stdout.split())
    assert rows == 300_000
    assert kilobytes < 60_000  # the file itself, mapped and dropped at will, is half of it
