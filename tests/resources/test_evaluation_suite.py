import os
import shutil
from pathlib import Path

import pytest

from clipcov_assets.ingest.evaluation_set import find_evaluation_sets
from resources.evaluation_suite import EvaluationSuite
from tests.deliveries import evaluation_set, retrieval_set


@pytest.fixture
def source(tmp_path: Path) -> Path:
    evaluation_set(tmp_path / "source/colours", range(6))
    retrieval_set(tmp_path / "source/vtab/pairs", range(3))
    return tmp_path / "source"


@pytest.fixture
def remote(tmp_path: Path, source: Path) -> EvaluationSuite:
    return EvaluationSuite(directory=source.as_uri(), cache=str(tmp_path / "cache"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_local_directory_is_used_where_it_is(tmp_path: Path, source: Path) -> None:
    suite = EvaluationSuite(directory=str(source), cache=str(tmp_path / "cache"))
    assert suite.folder() == source
    assert not (tmp_path / "cache").exists()


def test_sets_from_an_address_are_copied_and_read(source: Path, remote: EvaluationSuite) -> None:
    copy = remote.folder()
    assert copy != source
    assert files(copy) == files(source)
    found = find_evaluation_sets(copy, remote.digests)
    assert [one.name for one in found] == ["colours", "vtab/pairs"]
    assert [one.sha256 for one in found] == [one.sha256 for one in find_evaluation_sets(source)]


def test_only_what_is_new_or_has_changed_is_copied(source: Path, remote: EvaluationSuite) -> None:
    copy = remote.folder()
    names = source / "colours" / "classnames.txt"
    names.write_text(names.read_text().upper())
    os.utime(names, ns=(1, 1))
    evaluation_set(source / "new", range(2))
    before = {path: path.stat().st_ino for path in copy.rglob("*") if path.is_file()}
    assert remote.folder() == copy
    changed = {str(path.relative_to(copy)) for path, inode in before.items() if path.stat().st_ino != inode}
    assert changed == {"colours/classnames.txt"}
    assert files(copy) == files(source)


def test_what_is_gone_at_the_source_goes_away(source: Path, remote: EvaluationSuite) -> None:
    copy = remote.folder()
    shutil.rmtree(source / "vtab")
    assert remote.folder() == copy
    assert [path.name for path in copy.iterdir()] == ["colours"]


def test_shards_for_training_and_hidden_files_stay_where_they_are(source: Path, remote: EvaluationSuite) -> None:
    expected = files(source)
    for name in ("colours/train/0.tar", "colours/.cache/0.tar", "colours/README.md"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b"large")
    assert files(remote.folder()) == expected


def test_a_copy_that_breaks_off_leaves_no_part_of_a_file_and_goes_on_later(
    source: Path, remote: EvaluationSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = shutil.copyfileobj

    def break_off(read: object, written: object, length: int) -> None:
        original(read, written, length)
        raise OSError("connection reset")

    with monkeypatch.context() as patch, pytest.raises(ValueError, match="connection reset"):
        patch.setattr(shutil, "copyfileobj", break_off)
        remote.folder()
    (copy,) = (path for path in Path(remote.cache).iterdir() if path.is_dir())
    assert not [path for path in copy.rglob("*") if path.suffix in (".txt", ".tar")]
    assert files(remote.folder()) == files(source)


@pytest.mark.parametrize("address", ["file:///nowhere/at/all", "gopher://sets/eval", "file://"])
def test_an_address_that_cannot_be_read_is_named(tmp_path: Path, address: str) -> None:
    suite = EvaluationSuite(directory=address, cache=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=address):
        suite.folder()


def test_an_empty_address_leaves_the_copy_alone(source: Path, remote: EvaluationSuite) -> None:
    kept = files(remote.folder())
    for path in source.iterdir():
        shutil.rmtree(path)
    with pytest.raises(ValueError, match="no evaluation set"):
        remote.folder()
    (copy,) = (path for path in Path(remote.cache).iterdir() if path.is_dir())
    assert files(copy) == kept


def test_two_addresses_have_a_copy_each(tmp_path: Path, source: Path, remote: EvaluationSuite) -> None:
    shutil.copytree(source / "colours", tmp_path / "other" / "colours")
    other = EvaluationSuite(directory=(tmp_path / "other").as_uri(), cache=remote.cache)
    assert remote.folder() != other.folder()


def test_a_secret_in_an_address_is_not_shown(tmp_path: Path) -> None:
    suite = EvaluationSuite(directory="gopher://key:hunter2@sets/eval", cache=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match="gopher://sets/eval") as raised:
        suite.folder()
    assert "hunter2" not in str(raised.value)
