import json
import subprocess
import sys

import pytest

from clipcov_assets.export.__main__ import main
from resources.export_shelf import ExportShelf
from tests.subsets import ASSET, PARTITION, two_crawls


@pytest.fixture
def home(tmp_path, monkeypatch):
    two_crawls(tmp_path)
    monkeypatch.setenv("CLIPCOV_LANCE", str(tmp_path / "lance"))
    return tmp_path


def command(home, *arguments):
    return main([ASSET, PARTITION, "--to", str(home / "out"), *arguments])


def test_one_command_exports_several_formats(home, capsys):
    assert command(home, "--format", "webdataset", "--format", "datacomp", "--pairs-per-shard", "5") == 0
    folder = home / "out/clipcov_subset/crawl-2/f20"
    assert len(list((folder / "webdataset").glob("*.tar"))) == 3
    manifest = json.loads((folder / "datacomp/manifest.json").read_text())
    assert (manifest["asset"], manifest["partition"], manifest["pairs"]) == (ASSET, PARTITION, 15)
    assert f"{folder}/datacomp: 1 files" in capsys.readouterr().out


def test_the_default_is_a_table(home):
    assert command(home) == 0
    assert (home / "out/clipcov_subset/crawl-2/f20/parquet/pairs.parquet").exists()


def test_what_can_be_exported_is_listed(home, capsys):
    assert main(["--list"]) == 0
    assert capsys.readouterr().out == f'{ASSET} "{PARTITION}"\n'


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((ASSET, "crawl-3|f20"), 'it is for: "crawl-2|f20"'),
        (("cat_subset", PARTITION), "choose from c_rho_subset"),
        ((ASSET,), "is not materialized for ''"),
        ((ASSET, PARTITION, "--format", "zip"), "choose from parquet"),
        ((ASSET, PARTITION, "--pairs-per-shard", "0"), "from 1 on"),
    ],
)
def test_a_mistake_is_answered_in_one_line(home, capsys, arguments, words):
    assert main([*arguments, "--to", str(home / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_a_second_command_for_the_same_export_is_refused(home, capsys):
    def write(export):
        assert command(home) == 1

    ExportShelf(directory=str(home / "out")).make(ASSET, PARTITION, "parquet", {}, write)
    assert "another run works on the parquet export" in capsys.readouterr().err


def test_the_command_imports_no_torch():
    program = (
        "import sys, clipcov_assets.export.__main__; print([m for m in ('torch', 'open_clip') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
