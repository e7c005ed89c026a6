import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from clipcov_assets.ingest import looking
from clipcov_assets.ingest.delivery import DeliveryError
from clipcov_assets.ingest.find import FORMATS, find_delivery, why_incomplete

DEMO = Path(__file__).parents[2] / "data" / "demo" / "crawls"


def img2dataset(directory, make):
    rows = [{"key": "00000000", "status": "success", "uid": "u"}]
    make.shard(directory, make.pair("00000000"), successes=1, rows=rows)
    table = pl.read_parquet(directory / "00000.parquet").with_columns(
        url=pl.lit("https://e.org/1"), caption=pl.lit("x")
    )
    table.write_parquet(directory / "00000.parquet")


def webdataset(directory, make):
    (directory / "0.tar").write_bytes(make.tar(make.pair("0")))
    (directory / "delivery.toml").write_text('format = "webdataset"')


def datacomp(directory, make):
    pl.DataFrame({"uid": ["u"], "url": ["https://e.org/1"], "text": ["x"]}).write_parquet(directory / "0.parquet")
    np.savez(directory / "0.npz", b32_img=np.eye(1, 4), b32_txt=np.eye(1, 4))


def clip_retrieval(directory, make):
    for name in ("img_emb", "text_emb", "metadata"):
        (directory / name).mkdir()
    np.save(directory / "img_emb" / "img_emb_0.npy", np.eye(1, 4))
    np.save(directory / "text_emb" / "text_emb_0.npy", np.eye(1, 4))
    pl.DataFrame({"image_path": ["a.png"], "caption": ["x"]}).write_parquet(directory / "metadata/metadata_0.parquet")
    folder(directory, make)


def parquet_images(directory, make):
    columns = {"image": [make.image()], "text": ["x"], "file_name": ["a.png"], "url": ["https://e.org/1"]}
    pl.DataFrame(columns).write_parquet(directory / "0.parquet")


def table(directory, make):
    (directory / "a.png").write_bytes(make.image())
    (directory / "t.csv").write_text("filepath\ttitle\turl\na.png\tx\thttps://e.org/1\n")


def folder(directory, make):
    (directory / "a.png").write_bytes(make.image())
    (directory / "a.txt").write_text("x")


def url_list(directory, make):
    (directory / "t.tsv").write_text("https://e.org/1\tx\n")


MAKERS = [img2dataset, webdataset, datacomp, clip_retrieval, parquet_images, table, folder, url_list]


@pytest.fixture
def crawl(tmp_path):
    (tmp_path / "crawl").mkdir()
    return tmp_path / "crawl"


@pytest.mark.parametrize("maker", [maker for maker in MAKERS if maker is not url_list])
def test_each_format_is_recognised_and_read(crawl, make, maker):
    maker(crawl, make)
    delivery = find_delivery(crawl)
    assert delivery.format == maker.__name__
    assert sum(len(make.read(shard).pairs) for shard in delivery.shards) == 1
    assert why_incomplete(crawl, settled_seconds=0) is None


def test_every_format_has_a_maker_here():
    assert [known.name for known in FORMATS] == [maker.__name__ for maker in MAKERS]


def test_the_demo_is_img2datasets():
    assert find_delivery(DEMO / "crawl-1").format == "img2dataset"
    assert why_incomplete(DEMO / "crawl-1") is None


def test_a_list_of_addresses_is_an_obstacle_with_the_command(crawl, make):
    url_list(crawl, make)
    with pytest.raises(DeliveryError, match="img2dataset --url_list"):
        find_delivery(crawl)
    assert "img2dataset --url_list" in (why_incomplete(crawl) or "")


def test_the_list_that_a_delivery_was_fetched_from_may_lie_beside_it(crawl, make):
    img2dataset(crawl, make)
    url_list(crawl, make)
    assert find_delivery(crawl).format == "img2dataset"


@pytest.mark.parametrize("other", [table, folder, parquet_images, datacomp])
def test_of_two_formats_in_one_folder_the_owner_chooses(crawl, make, other):
    img2dataset(crawl, make)
    other(crawl, make)
    with pytest.raises(
        DeliveryError, match=f'img2dataset.*{other.__name__}.*delivery.toml, such as format = "'
    ) as raised:
        find_delivery(crawl)
    assert why_incomplete(crawl) == str(raised.value)
    (crawl / "delivery.toml").write_text(f'format = "{other.__name__}"')
    assert find_delivery(crawl).format == other.__name__


def test_a_table_with_columns_of_its_own_is_read_by_name(crawl, make):
    (crawl / "a.png").write_bytes(make.image())
    (crawl / "t.csv").write_text("photo,words\na.png,a dog\n")
    with pytest.raises(DeliveryError, match="no delivery recognised.*delivery.toml"):
        find_delivery(crawl)
    (crawl / "delivery.toml").write_text('format = "table"\nimage = "photo"\ncaption = "words"\n')
    (shard,) = find_delivery(crawl).shards
    assert make.read(shard).pairs[0].caption == "a dog"


@pytest.mark.parametrize("name", ["nowhere", "file", "empty"])
def test_no_delivery_is_an_error_that_says_what_was_looked_for(tmp_path, name):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DeliveryError, match=r"not a directory|Looked for: \.tar"):
        find_delivery(tmp_path / name)
    assert why_incomplete(tmp_path / name)


@pytest.mark.parametrize(
    "name",
    ["b.tar.part", "b.jpg.tmp", "b.crdownload", "images/b.unfinished", "_temporary/0/b", "images/.b.jpg.Qh3xZ1"],
)
def test_a_copy_in_progress_is_an_obstacle(crawl, make, name):
    folder(crawl, make)
    (crawl / name).parent.mkdir(parents=True, exist_ok=True)
    (crawl / name).write_text("")
    with pytest.raises(DeliveryError, match="copy in progress"):
        find_delivery(crawl)
    assert "copy in progress" in (why_incomplete(crawl, settled_seconds=0) or "")


@pytest.mark.parametrize("name", [".gitignore", ".DS_Store", "template.txt", ".hidden.folder"])
def test_other_hidden_files_are_no_copies(crawl, make, name):
    folder(crawl, make)
    (crawl / name).write_text("")
    assert find_delivery(crawl).format == "folder"


def test_a_folder_at_rest_is_complete(crawl, make):
    table(crawl, make)
    assert "changed 0 s ago" in (why_incomplete(crawl, settled_seconds=3600) or "")
    os.utime(crawl / "t.csv", (0, 0))  # a copy that brings its old times along is no rest
    os.utime(crawl, (0, 0))
    assert "changed 0 s ago" in (why_incomplete(crawl, settled_seconds=3600) or "")
    assert why_incomplete(crawl, settled_seconds=0) is None


@pytest.mark.parametrize("target", ["outside.csv", "outside", "nothing.csv"])
def test_a_table_or_folder_outside_is_not_followed(crawl, make, tmp_path, target):
    table(crawl, make)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside.csv").write_text("image,caption\n")
    (crawl / f"link{Path(target).suffix}").symlink_to(tmp_path / target)
    with pytest.raises(DeliveryError, match="link.*leads to nothing in the delivery's folder"):
        find_delivery(crawl)


def test_a_table_linked_inside_the_folder_is_read(crawl, make):
    (crawl / "blobs").mkdir()
    table(crawl / "blobs", make)
    (crawl / "blobs" / "t.csv").rename(crawl / "blobs" / "0f3a")
    (crawl / "t.csv").symlink_to("blobs/0f3a")
    (crawl / "blobs" / "a.png").rename(crawl / "a.png")
    (shard,) = find_delivery(crawl).shards
    assert len(make.read(shard).pairs) == 1


def test_a_large_folder_is_not_listed_to_see_its_format(crawl, make, monkeypatch):
    monkeypatch.setattr(looking, "NAMES_LOOKED_AT", 10)
    for number in range(50):
        (crawl / f"{number}.png").write_bytes(make.image())
    (crawl / "later").mkdir()
    (crawl / "later" / "t.csv").write_text("image,caption\n../0.png,x\n")
    with pytest.raises(DeliveryError, match="no delivery recognised"):
        find_delivery(crawl)
    (crawl / "delivery.toml").write_text('format = "table"')  # then all of it is
    assert len(find_delivery(crawl).shards) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_may_not_be_read_says_so(crawl, make):
    table(crawl, make)
    crawl.chmod(0)
    with pytest.raises(DeliveryError, match="correct its permissions"):
        find_delivery(crawl)
