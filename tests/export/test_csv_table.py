import io
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from clipcov_assets.export.subset_files.csv_table import MISSING_TO_PANDAS, text_to_pandas
from clipcov_assets.export.subset_files.export_format import ExportError, image_suffix
from clipcov_assets.ingest.pair_parts import IMAGE_FORMATS
from tests.subsets import export, raw_pair, two_crawls, write_subset

CAPTIONS = [
    "a\ttab",
    'a "quoted" word',
    '"all of it"',
    "two\nlines",
    "a\rreturn\r\nand both",
    " spaces around ",
    "\\ends with a backslash\\",
    "../../etc/passwd",
    "=1+1",
    "#comment",
    "ein Käse 猫 \U0001f408",
    "x" * 70_000,
    "\ufeffmark",
    "nul\0inside",
]
VALUES = ["NA", "None", "null", "nan", "N/A", "007", "1e5", "-inf", "True", "false", " 7 "]


def encoded(format):
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, format)
    return stream.getvalue()


def read_by_open_clip(path):
    from open_clip import get_tokenizer
    from open_clip_train.data import CsvDataset

    transform = lambda image: image.convert("RGB").tobytes()  # noqa: E731
    return CsvDataset(str(path), transform, "filepath", "title", tokenizer=get_tokenizer("ViT-B-32"))


def stored(tmp_path, captions):
    rows = [raw_pair(seed, caption=caption) for seed, caption in enumerate(captions)]
    return rows, write_subset(tmp_path, {"crawl-2": rows}, [row["uid"] for row in rows])


def test_open_clips_loader_reads_every_image_and_caption_from_any_directory(tmp_path, monkeypatch):
    rows, store = stored(tmp_path, CAPTIONS)
    (done,) = export(store, tmp_path / "out", "csv")
    monkeypatch.chdir("/")
    dataset = read_by_open_clip(done.directory / "pairs.csv")
    assert dataset.captions == CAPTIONS
    for place, row in enumerate(rows):
        pixels, text = dataset[place]
        assert pixels == Image.open(io.BytesIO(row["image"])).convert("RGB").tobytes()
        assert text.equal(dataset.tokenize([row["caption"]])[0])


def test_captions_that_pandas_takes_for_values_become_the_same_tokens(tmp_path):
    rows, store = stored(tmp_path, VALUES)
    (done,) = export(store, tmp_path / "out", "csv")
    dataset = read_by_open_clip(done.directory / "pairs.csv")
    for place, row in enumerate(rows):
        assert dataset[place][1].equal(dataset.tokenize([row["caption"]])[0]), row["caption"]


def test_every_word_that_pandas_takes_for_a_missing_value_is_known():
    from pandas._libs.parsers import STR_NA_VALUES

    assert MISSING_TO_PANDAS >= STR_NA_VALUES
    lines = "".join(f'"{text_to_pandas(word)}"\n' for word in sorted(STR_NA_VALUES))
    assert pd.read_csv(io.StringIO(f"title\n{lines}"), sep="\t")["title"].notna().all()


def test_an_image_is_named_by_its_rank_and_its_real_format(tmp_path):
    rows = [raw_pair(0, image=encoded("JPEG"), file="../../a.png"), raw_pair(1, image=encoded("PNG"), key="/etc/x.jpg")]
    store = write_subset(tmp_path, {"crawl-2": rows}, [rows[1]["uid"], rows[0]["uid"]])
    (done,) = export(store, tmp_path / "out", "csv")
    assert (done.directory / "images/000000/000000000.png").read_bytes() == rows[1]["image"]
    assert (done.directory / "images/000000/000000001.jpg").read_bytes() == rows[0]["image"]


@pytest.mark.parametrize("format", IMAGE_FORMATS)
def test_every_format_that_is_ingested_has_a_suffix(format):
    assert Image.registered_extensions()[f".{image_suffix(encoded(format), 'a')}"] == format


def test_folders_hold_a_thousand_images(tmp_path):
    rows = [raw_pair(seed, image=b"\xff\xd8\xff%d" % seed) for seed in range(2_001)]
    (done,) = export(write_subset(tmp_path, {"crawl-2": rows}, [row["uid"] for row in rows]), tmp_path / "out", "csv")
    sizes = {path.name: len(list(path.iterdir())) for path in (done.directory / "images").iterdir()}
    assert sizes == {"000000": 1_000, "000001": 1_000, "000002": 1}
    table = pd.read_csv(done.directory / "pairs.csv", sep="\t")
    assert [Path(path).read_bytes() for path in table["filepath"]] == [row["image"] for row in rows]
    assert done.files == 2_002


def test_a_copy_in_another_directory_has_paths_of_its_own(tmp_path):
    store = two_crawls(tmp_path)
    for directory in ("one", "two"):
        (done,) = export(store, tmp_path / directory, "csv")
        paths = pd.read_csv(done.directory / "pairs.csv", sep="\t")["filepath"]
        assert paths.str.startswith(str(tmp_path / directory)).all()


@pytest.mark.parametrize("format", ["csv", "webdataset"])
def test_pairs_without_an_image_are_counted_and_named_with_the_remedy(tmp_path, format):
    rows = [raw_pair(0), raw_pair(1, image=None), raw_pair(2, image=None)]
    store = write_subset(tmp_path, {"crawl-2": rows}, [row["uid"] for row in rows])
    with pytest.raises(ExportError, match="2 of 3 pairs have no image") as refused:
        export(store, tmp_path / "out", format)
    assert rows[1]["uid"] in str(refused.value)
    assert "datacomp, parquet or keys" in str(refused.value)
