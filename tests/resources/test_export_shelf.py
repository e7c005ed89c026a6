import json
import subprocess
import sys
from pathlib import Path

import pytest

from resources.export_shelf import ExportShelf
from resources.pieces import InUseError

PLAN = {"pairs": 3}
WRITES_UNTIL_THE_DISK_IS_FULL = """
import sys
from resources.export_shelf import ExportShelf
from resources.pieces import FullDiskError

def write(size):
    def fill(export):
        for name in "ab":
            if name not in export:
                with export.piece(name) as piece, piece.open(name) as file:
                    file.write(bytes(size if name == "b" else 10))
    return fill

shelf = ExportShelf(directory=sys.argv[1])
shelf.make("subset", "crawl-1|f10", "tars", {"plan": 1}, write(10))
try:
    shelf.make("subset", "crawl-1|f10", "tars", {"plan": 2}, write(2**24))
except FullDiskError as error:
    print(error)
folder = shelf.folder("subset", "crawl-1|f10", "tars")
assert (folder / "b").stat().st_size == 10
"""
MOUNT = 'mount -t tmpfs -o size=8m tmpfs "$0" && exec "$@"'


class StoppedError(Exception):
    pass


def writer(*names, content=b"content", stop_at=None):
    def write(export):
        for name in names:
            if name not in export:
                with export.piece(name) as piece, piece.open(name) as file:
                    file.write(content)
                    if name == stop_at:
                        raise StoppedError

    return write


@pytest.fixture
def shelf(tmp_path):
    return ExportShelf(directory=str(tmp_path))


@pytest.fixture
def make(shelf):
    return lambda plan, write: shelf.make("subset", "crawl-1|f10", "tars", plan, write)


def test_an_export_has_a_folder_and_a_manifest(make, tmp_path):
    done = make(PLAN, writer("a", "b"))
    assert done.directory == tmp_path / "subset/crawl-1/f10/tars"
    assert json.loads((done.directory / "manifest.json").read_text()) == done.manifest
    assert (done.manifest["pairs"], done.files, done.bytes) == (3, 2, 14)
    assert sorted(path.name for path in done.directory.iterdir()) == ["a", "b", "manifest.json"]


def test_what_was_finished_before_a_stop_is_not_written_again(make, tmp_path):
    with pytest.raises(StoppedError):
        make(PLAN, writer("a", "b", "c", stop_at="c"))
    before = (tmp_path / "subset/crawl-1/f10/tars.unfinished/a").stat()
    done = make(PLAN, writer("a", "b", "c"))
    after = (done.directory / "a").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [one["name"] for one in done.manifest["files"]] == ["a", "b", "c"]


def test_a_line_of_the_journal_that_was_cut_short_does_not_count(make, tmp_path):
    with pytest.raises(StoppedError):
        make(PLAN, writer("a", "b", "c", stop_at="c"))
    journal = tmp_path / "subset/crawl-1/f10/tars.unfinished/journal.jsonl"
    journal.write_text(journal.read_text()[:-9])
    assert [one["name"] for one in make(PLAN, writer("a", "b", "c")).manifest["files"]] == ["a", "b", "c"]


def test_a_file_that_a_power_cut_has_emptied_is_written_again(make, tmp_path):
    with pytest.raises(StoppedError):
        make(PLAN, writer("a", "b", stop_at="b"))
    (tmp_path / "subset/crawl-1/f10/tars.unfinished/a").write_bytes(b"")
    assert (make(PLAN, writer("a", "b")).directory / "a").read_bytes() == b"content"


def test_another_plan_starts_anew_and_the_old_export_stays_until_the_end(make):
    old = make(PLAN, writer("a", content=b"old"))
    with pytest.raises(StoppedError):
        make({"pairs": 4}, writer("a", "b", stop_at="b"))
    assert (old.directory / "a").read_bytes() == b"old"
    new = make({"pairs": 5}, writer("c"))
    assert sorted(path.name for path in new.directory.iterdir()) == ["c", "manifest.json"]
    assert sorted(path.name for path in new.directory.parent.iterdir()) == [".tars.lock", "tars"]


def test_an_equal_export_is_left_as_it_is(make):
    before = make(PLAN, writer("a"))
    written = (before.directory / "a").stat().st_mtime_ns
    again = make(PLAN, writer("b"))
    assert again.already_there
    assert again.manifest == before.manifest
    assert (again.directory / "a").stat().st_mtime_ns == written


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"short")])
def test_an_export_that_lost_a_file_is_made_again(make, spoil):
    spoil(make(PLAN, writer("a")).directory / "a")
    done = make(PLAN, writer("a"))
    assert not done.already_there
    assert (done.directory / "a").read_bytes() == b"content"


@pytest.mark.parametrize("state", ["manifest written", "old one moved away"])
def test_a_kill_between_the_last_steps_leaves_a_finished_export_behind(make, tmp_path, state):
    done = make(PLAN, writer("a"))
    if state == "manifest written":
        (done.directory / "journal.jsonl").write_text("")
    else:
        (tmp_path / "subset/crawl-1/f10/tars.replaced").mkdir()
    done.directory.rename(done.directory.with_name("tars.unfinished"))
    again = make(PLAN, writer("never called"))
    assert sorted(path.name for path in again.directory.iterdir()) == ["a", "manifest.json"]
    assert sorted(path.name for path in again.directory.parent.iterdir()) == [".tars.lock", "tars"]


def test_something_else_that_lies_there_is_not_touched(make, tmp_path):
    mine = tmp_path / "subset/crawl-1/f10/tars"
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="move it away"):
        make(PLAN, writer("a"))
    assert (mine / "thesis.txt").read_text() == "mine"


def test_a_second_export_to_the_same_folder_is_refused_and_the_first_goes_on(make):
    def write(export):
        with pytest.raises(InUseError, match="tars export of subset"):
            make(PLAN, writer("a"))
        writer("a")(export)

    assert make(PLAN, write).files == 1


@pytest.mark.parametrize("partition", ["..|f10", "a/b|f10", "|f10", "a\0|f10", "a\\b|f10", "."])
def test_no_name_leads_out_of_the_directory(shelf, partition):
    with pytest.raises(ValueError, match="cannot be a folder"):
        shelf.make("subset", partition, "tars", PLAN, writer("a"))


def test_a_folder_of_files_counts_and_digests_them_in_order(make):
    def write(export):
        with export.piece("images") as piece:
            piece.add_folder("images/0", [("0.png", b"one"), ("1.png", b"two")])

    done = make(PLAN, write)
    (entry,) = done.manifest["files"]
    shown = subprocess.run(f"cat {done.directory}/images/0/* | sha256sum", shell=True, capture_output=True, text=True)
    assert entry == {"name": "images/0/", "files": 2, "bytes": 6, "sha256": shown.stdout.split()[0]}
    assert done.files == 2


def test_on_a_full_disk_the_old_export_is_intact_and_the_error_says_what_to_do(tmp_path):
    namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c", MOUNT, str(tmp_path)]
    if subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a disk of eight megabytes")
    done = subprocess.run(
        [*namespace, sys.executable, "-c", WRITES_UNTIL_THE_DISK_IS_FULL, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "is full: free some room and run again" in done.stdout
