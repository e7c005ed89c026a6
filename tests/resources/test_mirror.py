"""What lies at an address, and a folder that becomes its equal."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resources import mirror as mirror_module
from resources.mirror import Address, UnreadableAddressError, mirror, without_secret
from resources.pieces import FullDiskError

REPOSITORY = Path(__file__).parents[2]
COPY = """
import sys
from pathlib import Path
from resources.mirror import Address, mirror
mirror(Address.of(sys.argv[1]).listing(), Path(sys.argv[2]))
"""


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source/deep").mkdir(parents=True)
    for name in ("a.tar", "deep/b.txt", "odd ü%20#?.tar"):
        (tmp_path / "source" / name).write_text(name)
    return tmp_path / "source"


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def listing(source):
    return Address.of(source.as_uri()).listing()


def test_a_folder_becomes_the_equal_of_what_was_listed(source, tmp_path):
    (tmp_path / "copy/old").mkdir(parents=True)
    (tmp_path / "copy/old/file").touch()
    copied = []
    mirror(listing(source), tmp_path / "copy", on_copied=copied.append)
    assert files(tmp_path / "copy") == files(source)
    assert sum(copied) == listing(source).size


def test_a_fingerprint_changes_with_names_sizes_and_times_and_with_nothing_else(source):
    first = listing(source).fingerprint()
    assert listing(source).fingerprint() == first
    os.utime(source / "a.tar", ns=(1, 1))
    second = listing(source).fingerprint()
    (source / "a.tar").rename(source / "c.tar")
    assert len({first, second, listing(source).fingerprint()}) == 3


def test_rest_is_counted_from_the_newest_file(source):
    for path in source.rglob("*.t*"):
        os.utime(path, (0, time.time() - 500))
    os.utime(source / "deep/b.txt", (0, time.time() - 100))
    assert 100 <= listing(source).rested < 110


def test_links_lead_nowhere(source, tmp_path):
    expected = set(listing(source).names)
    (tmp_path / "secret").write_text("secret")
    (source / "link.tar").symlink_to(tmp_path / "secret")
    (source / "deep/circle").symlink_to(source)
    assert set(listing(source).names) == expected


def test_a_killed_copy_goes_on_with_the_files_that_are_there(tmp_path):
    (tmp_path / "source").mkdir()
    for number in range(200):
        (tmp_path / f"source/{number:03d}.tar").write_bytes(os.urandom(100_000))
    command = [sys.executable, "-c", COPY, (tmp_path / "source").as_uri(), str(tmp_path / "copy")]
    with subprocess.Popen(command, cwd=REPOSITORY) as process:
        while process.poll() is None and len(list((tmp_path / "copy").glob("*.tar"))) < 20:
            time.sleep(0.001)
        process.kill()
    there = {path.name: path.stat().st_ino for path in (tmp_path / "copy").glob("*.tar")}
    assert process.returncode == -9
    assert 20 <= len(there) < 200
    subprocess.run(command, cwd=REPOSITORY, check=True)
    assert files(tmp_path / "copy") == files(tmp_path / "source")
    assert there.items() <= {path.name: path.stat().st_ino for path in (tmp_path / "copy").glob("*.tar")}.items()


def test_a_file_that_changes_while_it_is_copied_is_an_error(source, tmp_path):
    listed = listing(source)
    (source / "a.tar").write_text("another length")
    with pytest.raises(UnreadableAddressError, match=r"a\.tar has changed while it was copied"):
        mirror(listed, tmp_path / "copy")
    assert not (tmp_path / "copy/a.tar").exists()


def test_a_copy_for_which_there_is_no_room_is_not_begun(source, tmp_path, monkeypatch):
    full = type("Usage", (), {"free": 3})
    monkeypatch.setattr(mirror_module.shutil, "disk_usage", lambda path: full)
    with pytest.raises(FullDiskError, match="free some room and run again"):
        mirror(listing(source), tmp_path / "copy")
    assert files(tmp_path / "copy") == {}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://bucket/crawls", "s3://bucket/crawls"),
        ("s3://key:secret@bucket/crawls?scheme=http", "s3://bucket/crawls?scheme=http"),
        ("s3://key:sec/r+et@bucket/a", "s3://bucket/a"),
        ("Cannot parse URI: 's3://key:secret@bucket' at 3", "Cannot parse URI: 's3://bucket' at 3"),
        ("gs://anonymous@bucket/a", "gs://anonymous@bucket/a"),
        ("postgresql://h/db?user=u&password=secret&x=1", "postgresql://h/db?user=u&password=&x=1"),
        ("s3://bucket/a?SessionToken=secret", "s3://bucket/a?SessionToken="),
    ],
)
def test_secrets_are_left_out_of_what_people_see(text, shown):
    assert without_secret(text) == shown
