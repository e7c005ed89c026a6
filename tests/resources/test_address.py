"""What is written to an address is read there: a directory, a `file://` address and a bucket behave alike."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from resources.mirror import Address, UnreadableAddressError, trouble_with
from tests.object_store import CREDENTIALS

SETTING = "CLIPCOV_CHECKPOINTS"


@pytest.fixture(params=["directory", "file address", "bucket"])
def address(request, tmp_path):
    if request.param == "bucket":
        return Address.at(request.getfixturevalue("bucket").at("deep/place"), SETTING)
    path = tmp_path / "deep/place"
    return Address.at(str(path) if request.param == "directory" else path.as_uri(), SETTING)


def file_of(tmp_path, content):
    path = tmp_path / "made here"
    path.write_bytes(content)
    return path


def test_nothing_is_there_before_something_is_written(address):
    assert (address.names(), address.files(), address.stamp("a")) == ([], {}, None)
    address.remove("a")
    address.clear()


def test_what_is_written_is_read(address, tmp_path):
    address.write("small", b"mark")
    address.put("folder/large", source := file_of(tmp_path, b"x" * 12_000_000))
    assert not source.exists()
    assert (address.read("small"), address.read("small", 2)) == (b"mark", b"ma")
    assert address.names() == ["folder", "small"]
    assert {str(place): info.size for place, info in address.files().items()} == {
        "folder/large": 12_000_000,
        "small": 4,
    }
    with address.below("folder").file("large") as lent:
        assert lent.read_bytes() == b"x" * 12_000_000
    address.get("small", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"mark"


def test_what_is_uploaded_stays_here(address, tmp_path):
    address.upload("a", source := file_of(tmp_path, b"content"))
    assert source.read_bytes() == address.read("a") == b"content"


def test_a_file_is_replaced_and_its_stamp_says_so(address, tmp_path):
    stamps = set()
    for content in (b"one", b"two"):
        address.put("a", file_of(tmp_path, content))
        stamps.add(address.stamp("a"))
        assert address.stamp("a") in stamps
    assert address.read("a") == b"two"
    assert len(stamps) == 2


def test_what_is_removed_is_gone_and_what_is_beside_it_stays(address):
    for name in ("a", "folder/b", "folder/c", "kept/d"):
        address.write(name, b"x")
    address.remove("a")
    address.below("folder").clear()
    assert [str(place) for place in address.files()] == ["kept/d"]


def test_a_file_of_another_disk_is_put_whole(tmp_path):
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("this machine has no second disk")
    source = other / f"{tmp_path.name}-{time.monotonic_ns()}"
    source.write_bytes(b"content")
    Address.at(str(tmp_path / "place")).put("a", source)
    assert not source.exists()
    assert [path.name for path in (tmp_path / "place").iterdir()] == ["a"]
    assert (tmp_path / "place/a").read_bytes() == b"content"


def test_a_small_file_is_one_request(proxy):
    Address.at("s3://pool/place").write("mark", b"x")
    assert [one for one in proxy.passed if not one.startswith("HEAD")] == ["PUT /pool/place/mark"]


@pytest.mark.parametrize("every", [3, 4])
def test_requests_that_fail_are_sent_again(proxy, tmp_path, every):
    proxy.every = every
    address = Address.at("s3://pool/place")
    address.put("large", file_of(tmp_path, b"x" * 12_000_000))
    address.get("large", tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_size == 12_000_000
    assert proxy.failed > 1


@pytest.mark.parametrize("broken", ["partNumber=2", "uploadId", "uploads"])
def test_a_file_whose_upload_fails_is_not_there_and_the_earlier_one_stays(proxy, tmp_path, monkeypatch, broken):
    monkeypatch.setattr("resources.mirror.TRIES", 1)
    address = Address.at("s3://pool/place", SETTING)
    address.write("earlier", b"as it was")
    proxy.broken = broken
    for name in ("new", "earlier"):
        with pytest.raises(UnreadableAddressError, match="CLIPCOV_CHECKPOINTS"):
            address.put(name, source := file_of(tmp_path, b"x" * 12_000_000))
        assert source.exists()
    proxy.broken = ""
    assert (address.names(), address.read("earlier")) == (["earlier"], b"as it was")


INTERRUPTED = """
import _thread, sys, time
from pathlib import Path
from threading import Timer
from resources.mirror import Address
place = Address.at(sys.argv[1])
Timer(float(sys.argv[3]), _thread.interrupt_main).start()
for number in range(1000):
    place.upload(f"{number}", Path(sys.argv[2]))
"""


@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.1])
def test_an_interrupted_upload_leaves_no_part_of_a_file(bucket, tmp_path, seconds):
    command = [
        sys.executable,
        "-c",
        INTERRUPTED,
        bucket.at("place"),
        file_of(tmp_path, b"x" * 12_000_000),
        f"{seconds}",
    ]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert "KeyboardInterrupt" in done.stderr
    sizes = [info.size for info in Address.at(bucket.at("place")).files().values()]
    assert set(sizes) <= {12_000_000}


ASKED = {
    "names": lambda address, tmp_path: address.names(),
    "files": lambda address, tmp_path: address.files(),
    "stamp": lambda address, tmp_path: address.stamp("a"),
    "read": lambda address, tmp_path: address.read("a"),
    "write": lambda address, tmp_path: address.write("a", b"x"),
    "get": lambda address, tmp_path: address.get("a", tmp_path / "copy"),
}


def refused(address, asked, tmp_path):
    start = time.monotonic()
    with pytest.raises(UnreadableAddressError) as raised:
        ASKED[asked](address, tmp_path)
    assert time.monotonic() - start < 60
    said = str(raised.value)
    assert said.startswith(f"{SETTING}={address.shown} cannot be read or written")
    assert "AWS_ENDPOINT_URL" in said
    assert not any(secret in said for secret in CREDENTIALS.values() if secret != "us-east-1")
    return said


@pytest.mark.parametrize("asked", ASKED)
def test_a_bucket_that_is_not_there_is_not_taken_for_an_empty_one(bucket, tmp_path, asked):
    refused(Address.at("s3://nobody-has-this/place", SETTING), asked, tmp_path)


@pytest.mark.parametrize("asked", ["names", "stamp", "write"])
def test_missing_credentials_are_told(proxy, bucket, monkeypatch, tmp_path, asked):
    proxy.unsigned = False
    bucket.use(monkeypatch, AWS_ENDPOINT_URL=proxy.endpoint, AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None)
    assert "the credentials (such as AWS_ACCESS_KEY_ID)" in refused(Address.at("s3://pool/a", SETTING), asked, tmp_path)


def test_an_endpoint_that_is_not_there_is_given_up(bucket, monkeypatch, tmp_path):
    bucket.use(monkeypatch, AWS_ENDPOINT_URL="http://127.0.0.1:1")
    refused(Address.at("s3://pool/place", SETTING), "names", tmp_path)


def test_an_endpoint_that_never_answers_is_given_up(bucket, silent, monkeypatch, tmp_path):
    monkeypatch.setattr("resources.mirror.SILENT_SECONDS", 1)
    bucket.use(monkeypatch, AWS_ENDPOINT_URL=silent)
    start = time.monotonic()
    refused(Address.at("s3://pool/place", SETTING), "names", tmp_path)
    assert time.monotonic() - start > 3  # each of the tries waited for an answer


def test_trouble_is_told_in_one_line_without_secrets():
    said = trouble_with("s3://key:secret@pool/a", SETTING, OSError("cannot open\n's3://key:secret@pool/a'"))
    assert "secret" not in said
    assert "\n" not in said
    assert said.startswith("CLIPCOV_CHECKPOINTS=s3://pool/a cannot be read or written (cannot open 's3://pool/a');")
