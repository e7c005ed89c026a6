"""Exports at an address: written here, uploaded, and there once their manifest is."""

import json

import pytest

from resources.export_shelf import MANIFEST, UNDER_WAY, ExportShelf
from resources.mirror import Address, UnreadableAddressError
from tests.resources.test_export_shelf import PLAN, StoppedError, writer


@pytest.fixture(params=["file address", "bucket"])
def shelf(request, tmp_path):
    exports = tmp_path / "exports"
    at = exports.as_uri() if request.param == "file address" else request.getfixturevalue("bucket").at("exports")
    return ExportShelf(directory=at, staging=str(tmp_path / "staging"))


@pytest.fixture
def in_bucket(bucket, tmp_path):
    return ExportShelf(directory=bucket.at("exports"), staging=str(tmp_path / "staging"))


def make(shelf, plan, write):
    return shelf.make("subset", "crawl-1|f10", "tars", plan, write)


def place(shelf):
    return Address.at(f"{shelf.directory}/subset/crawl-1/f10/tars")


def there(shelf):
    return {str(name): place(shelf).read(str(name)) for name in place(shelf).files() if str(name) != MANIFEST}


def staged(tmp_path):
    return [path for path in (tmp_path / "staging").rglob("*") if path.is_file() and path.suffix != ".lock"]


def folder_of_images(export):
    if "images" not in export:
        with export.piece("images") as piece:
            piece.add_folder("images/0", [("0.png", b"one"), ("1.png", b"three")])


def test_an_export_has_an_address_and_a_manifest(shelf, tmp_path):
    done = make(shelf, PLAN, writer("a", "b"))
    assert done.directory == f"{shelf.directory}/subset/crawl-1/f10/tars"
    assert (done.already_there, done.files, done.bytes) == (False, 2, 14)
    assert json.loads(place(shelf).read(MANIFEST)) == done.manifest
    assert there(shelf) == {"a": b"content", "b": b"content"}
    assert staged(tmp_path) == []


def test_an_equal_export_is_left_as_it_is(shelf):
    before = make(shelf, PLAN, folder_of_images)
    again = make(shelf, PLAN, writer("never called"))
    assert again.already_there
    assert again.manifest == before.manifest
    assert there(shelf) == {"images/0/0.png": b"one", "images/0/1.png": b"three"}


@pytest.mark.parametrize("lost", ["images/0/1.png", MANIFEST])
def test_an_export_that_lost_a_file_is_made_again(shelf, lost):
    made = make(shelf, PLAN, folder_of_images)
    place(shelf).remove(lost)
    if lost == MANIFEST:  # as it is while an export is under way
        place(shelf).write(UNDER_WAY, json.dumps(PLAN).encode())
    assert make(shelf, PLAN, folder_of_images).manifest == made.manifest
    assert there(shelf) == {"images/0/0.png": b"one", "images/0/1.png": b"three"}


def test_another_plan_takes_the_place_and_nothing_of_the_old_export_stays(shelf):
    make(shelf, PLAN, writer("a", "b", content=b"old"))
    make(shelf, {"pairs": 4}, writer("a", "c", content=b"new"))
    assert there(shelf) == {"a": b"new", "c": b"new"}
    assert make(shelf, {"pairs": 4}, writer("never called")).already_there


def test_what_was_finished_before_a_stop_is_not_written_again(in_bucket, tmp_path):
    make(in_bucket, {"pairs": 1}, writer("old"))
    with pytest.raises(StoppedError):
        make(in_bucket, PLAN, writer("a", "b", "c", stop_at="c"))
    assert there(in_bucket) == {"old": b"content"}
    inodes = {path.name: path.stat().st_ino for path in staged(tmp_path) if path.name in "ab"}
    written = []

    def write(export):
        written.extend(path for path in staged(tmp_path) if path.stat().st_ino in inodes.values())
        writer("a", "b", "c")(export)

    assert make(in_bucket, PLAN, write).files == 3
    assert len(written) == 2


def test_an_upload_that_breaks_off_is_no_export_and_goes_on(proxy, in_bucket, monkeypatch):
    monkeypatch.setattr("resources.mirror.TRIES", 1)
    make(in_bucket, {"pairs": 1}, writer("a", content=b"old one"))
    proxy.broken = "tars/c"
    with pytest.raises(UnreadableAddressError, match="CLIPCOV_EXPORTS=s3://pool/exports"):
        make(in_bucket, PLAN, writer("a", "b", "c"))
    assert MANIFEST not in place(in_bucket).names()
    proxy.broken = ""
    proxy.passed.clear()
    done = make(in_bucket, PLAN, writer("never called"))
    assert there(in_bucket) == dict.fromkeys("abc", b"content")
    assert json.loads(place(in_bucket).read(MANIFEST)) == done.manifest
    puts = [one for one in proxy.passed if one.startswith("PUT") and not one.endswith("/")]
    assert "PUT /pool/exports/subset/crawl-1/f10/tars/c" in puts
    assert "PUT /pool/exports/subset/crawl-1/f10/tars/a" not in puts


def test_something_else_that_lies_there_is_not_touched(shelf):
    place(shelf).write("thesis.txt", b"mine")
    with pytest.raises(FileExistsError, match="move it away"):
        make(shelf, PLAN, writer("a"))
    assert there(shelf) == {"thesis.txt": b"mine"}


def test_two_addresses_do_not_share_unfinished_work(shelf, tmp_path):
    with pytest.raises(StoppedError):
        make(shelf, PLAN, writer("a", "b", stop_at="b"))
    other = ExportShelf(directory=f"{shelf.directory}-other", staging=shelf.staging)
    assert make(other, PLAN, writer("c")).files == 1
    assert there(other) == {"c": b"content"}
    assert len(staged(tmp_path)) > 0


def test_requests_that_fail_are_sent_again(proxy, in_bucket):
    proxy.every = 3
    make(in_bucket, PLAN, folder_of_images)
    assert there(in_bucket) == {"images/0/0.png": b"one", "images/0/1.png": b"three"}
    assert proxy.failed > 3


@pytest.mark.parametrize("partition", ["..|f10", "a/b|f10", "|f10", "a\0|f10", "a\\b|f10", "."])
def test_no_name_leads_out_of_the_address(tmp_path, partition):
    shelf = ExportShelf(directory=(tmp_path / "exports").as_uri(), staging=str(tmp_path))
    with pytest.raises(ValueError, match="cannot be a folder"):
        shelf.make("subset", partition, "tars", PLAN, writer("a"))
