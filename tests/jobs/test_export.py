"""Exports that are killed, at once, or not possible."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clipcov_assets.export.subset_files import FORMATS
from clipcov_assets.export.subset_files.export_format import ExportError, ExportOptions
from clipcov_assets.jobs.export import check_subset, materialized_subsets
from resources.export_shelf import JOURNAL
from resources.lance_store import LanceStore
from tests.subsets import ASSET, PARTITION, contents, export, raw_pair, two_crawls, write_subset

FOLDER = Path(ASSET, *PARTITION.split("|"))
EXPORTS = """
import sys
from pathlib import Path
from resources.lance_store import LanceStore
from tests.subsets import export
print("begins", flush=True)
export(LanceStore(uri=sys.argv[1]), Path(sys.argv[2]), sys.argv[3], pairs_per_shard=4)
"""


def run_until_killed(store, directory, format, *, new_pieces):
    """Kill an export once it has finished some more pieces; whether it came to that before it ended by itself."""
    journal = directory / FOLDER / f"{format}.unfinished" / JOURNAL
    command = [sys.executable, "-c", EXPORTS, store.uri, str(directory), format]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE)
    process.stdout.readline()
    wanted = len(finished_pieces(journal)) + new_pieces
    while process.poll() is None and len(finished_pieces(journal)) < wanted:
        time.sleep(0.001)
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def finished_pieces(journal):
    try:
        return [line for line in journal.read_text().splitlines()[1:] if line.endswith("}")]
    except OSError:
        return []


def finished_files(unfinished):
    """Files of the pieces in the journal, with what changes if one is written again."""
    names = [entry["name"] for line in finished_pieces(unfinished / JOURNAL) for entry in json.loads(line)["files"]]
    paths = [
        path for name in names for path in ((unfinished / name).iterdir() if name[-1] == "/" else [unfinished / name])
    ]
    return {str(path.relative_to(unfinished)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


@pytest.mark.parametrize(("format", "moments"), [("webdataset", (0, 1, 60, 200, 150)), ("csv", (0, 1, 1, 1))])
def test_an_export_that_is_killed_again_and_again_ends_as_an_undisturbed_one(tmp_path, format, moments):
    rows = [raw_pair(seed, image=b"\xff\xd8\xff" + bytes(seed % 50)) for seed in range(4_000)]
    store = write_subset(tmp_path, {"crawl-2": rows}, [row["uid"] for row in rows])
    target, finished = tmp_path / "out" / FOLDER / format, {}
    for new_pieces in moments:
        assert run_until_killed(store, tmp_path / "out", format, new_pieces=new_pieces)
        present = finished_files(target.with_name(f"{format}.unfinished"))
        assert finished.items() <= present.items()
        finished = present
    assert len(finished) > 1_000
    (done,) = export(store, tmp_path / "out", format, pairs_per_shard=4)
    found = {name: (target / name).stat() for name in finished}
    assert {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()} == finished
    killed = contents(target)
    # The same folder again, undisturbed: open_clip's table holds absolute paths.
    done.directory.rename(tmp_path / "elsewhere")
    export(store, tmp_path / "out", format, pairs_per_shard=4)
    assert contents(target) == killed


def test_a_subset_that_has_changed_replaces_its_export(tmp_path):
    rows = [raw_pair(seed) for seed in range(10)]
    for chosen in (rows[:4], rows[2:8]):
        store = write_subset(tmp_path, {"crawl-2": rows}, [row["uid"] for row in chosen])
        (done,) = export(store, tmp_path / "out", "webdataset")
        assert not done.already_there
        assert done.manifest["pairs"] == len(chosen)


def test_an_image_that_has_changed_under_the_same_uid_is_exported_again(tmp_path):
    for caption in ("old", "new"):
        row = raw_pair(0, caption=caption)
        store = write_subset(tmp_path, {"crawl-2": [row]}, [row["uid"]])
        (done,) = export(store, tmp_path / "out", "webdataset")
        assert caption.encode() in (done.directory / "00000.tar").read_bytes()


def test_all_formats_in_one_go_and_a_second_go_writes_nothing(tmp_path):
    store = two_crawls(tmp_path)
    first = export(store, tmp_path / "out", *FORMATS)
    assert [one.manifest["format"] for one in first] == list(FORMATS)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.suffix != ".lock"}
    assert all(one.already_there for one in export(store, tmp_path / "out", *FORMATS))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.suffix != ".lock"} == before


def test_names_that_a_delivery_chose_are_nowhere_a_path(tmp_path):
    evil = "../../../evil"
    rows = [raw_pair(0, uid=evil, caption=evil, file=evil, key=evil), raw_pair(1, uid="/etc/passwd", key="/etc/passwd")]
    store = write_subset(tmp_path, {"crawl-2": rows}, [row["uid"] for row in rows])
    export(store, tmp_path / "out", "parquet", "keys", "csv", "webdataset")
    assert {path.name for path in tmp_path.iterdir()} == {"lance", "out"}
    names = {path.name for path in (tmp_path / "out" / FOLDER).rglob("*") if path.is_file()}
    assert names == {
        *(f".{name}.lock" for name in ("parquet", "keys", "csv", "webdataset")),
        *("manifest.json", "pairs.parquet", "keys.parquet", "pairs.csv", "000000000.webp", "000000001.webp"),
        *("00000.tar", "00000.parquet", "00000_stats.json"),
    }


def test_an_unknown_subset_or_partition_or_format_is_answered_with_those_there_are(tmp_path):
    store = two_crawls(tmp_path)
    with pytest.raises(ExportError, match="choose from .*clipcov_subset"):
        export_of(store, tmp_path, asset="clipcov")
    for partition in ("crawl-9|f20", "crawl-2|f30", "crawl-2", "../../x|f20"):
        with pytest.raises(ExportError, match=r'it is for: "crawl-2\|f20"'):
            export_of(store, tmp_path, partition=partition)
    with pytest.raises(ExportError, match="it is for: none"):
        export_of(store, tmp_path, asset="random_subset")
    with pytest.raises(ExportError, match="choose from parquet, datacomp, keys, csv, webdataset"):
        export(store, tmp_path / "out", "tfrecord")
    with pytest.raises(ExportError, match="from 1 on"):
        ExportOptions(pairs_per_shard=0)
    assert not (tmp_path / "out").exists()


def export_of(store, tmp_path, *, asset=ASSET, partition=PARTITION):
    check_subset(store, asset, partition)


def test_subsets_are_listed_oldest_crawl_first(tmp_path):
    store = LanceStore(uri=str(tmp_path))
    table = two_crawls(tmp_path / "other").read(ASSET, PARTITION)
    for partition in ("crawl-10|f20", "crawl-2|f20", "v1.2|f05"):
        store.write(ASSET, partition, table)
    store.write("clipcov_ranking", "crawl-2", table)
    store.write("full_subset", "crawl-2|f100", table)
    assert materialized_subsets(store) == [
        (ASSET, "crawl-2|f20"),
        (ASSET, "crawl-10|f20"),
        (ASSET, "v1.2|f05"),
        ("full_subset", "crawl-2|f100"),
    ]
