import pytest

from clipcov_assets.ingest.delivery import DeliveryError, DeliveryOptions
from clipcov_assets.ingest.options import read_options

FORMATS = ("table", "folder")


def test_what_the_file_says_is_read_and_nothing_without_it(tmp_path):
    assert read_options(tmp_path, FORMATS) == DeliveryOptions()
    (tmp_path / "delivery.toml").write_text('format = "table"\nimage = "photo"\nembeddings = "none"\n')
    assert read_options(tmp_path, FORMATS) == DeliveryOptions(format="table", image="photo", embeddings="none")


@pytest.mark.parametrize(
    "content, complaint",
    [
        (b'colour = "red"', "unknown key 'colour'; allowed are format, image, caption, uid, embeddings"),
        (b"image = 3", 'image is 3, but must be text, such as image = "..."'),
        (b'uid = ""', "uid is ''"),
        (b'[image]\nx = "y"', "image is {'x': 'y'}"),
        (b'format = "zip"', "unknown format 'zip'; allowed are table, folder"),
        (b"format = table", "no readable TOML.*keys are format"),
        (b"\xff", "no readable TOML"),
    ],
)
def test_what_means_nothing_is_refused_with_what_is_allowed(tmp_path, content, complaint):
    (tmp_path / "delivery.toml").write_bytes(content)
    with pytest.raises(DeliveryError, match=rf"delivery\.toml.*{complaint}"):
        read_options(tmp_path, FORMATS)


def test_a_folder_in_its_place_is_refused(tmp_path):
    (tmp_path / "delivery.toml").mkdir()
    with pytest.raises(DeliveryError, match="no readable TOML"):
        read_options(tmp_path, FORMATS)
