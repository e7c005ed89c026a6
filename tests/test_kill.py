"""SIGKILL at several moments of ingest and embedding: the next run goes on, and the result is that of a quiet one."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resources.lance_store import LanceStore
from tests.deliveries import deliver

CRAWL, SHARDS, SHARD_PAIRS, PIECE_PAIRS = "crawl-1", 8, 150, 64
STEP = f"""
import sys
from pathlib import Path
import dagster as dg
from tests.world import Machine

if "embeddings" in sys.argv:
    from clipcov_assets.jobs import embed
    embed.PIECE_PAIRS = {PIECE_PAIRS}
home = Path(sys.argv[1])
with dg.DagsterInstance.local_temp(str(home / "dagster")) as instance:
    instance.add_dynamic_partitions("crawl", ["{CRAWL}"])
    for asset in sys.argv[2:]:
        partition = None if asset == "proxy_checkpoint" else "{CRAWL}"
        Machine(home, instance).materialize(asset, partition=partition)
"""


def start(home, *assets):
    (home / "dagster").mkdir(exist_ok=True)
    command = [sys.executable, "-c", STEP, str(home), *assets]
    return subprocess.Popen(
        command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(home, *assets):
    with start(home, *assets) as process:
        output = process.communicate()[0]
    assert process.returncode == 0, output
    return output


def kill_when(home, asset, moment):
    with start(home, asset) as process:
        while process.poll() is None and not moment(home):
            time.sleep(0.001)
        process.kill()
        process.communicate()
    return process.returncode


def pieces(asset, count):
    """The moment at which so many pieces of an asset are finished."""
    return lambda home: len(finished(home, asset)) >= count


def table(asset):
    """The moment at which the table of an asset begins to be there."""
    return lambda home: (home / f"lance/{asset}.{CRAWL}.lance").exists()


def finished(home, asset):
    return [path for path in (home / f"staging/{asset}.{CRAWL}").glob("*") if "." not in path.name]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    home = tmp_path_factory.mktemp("quiet")
    for number in range(SHARDS):
        seeds = range(number * SHARD_PAIRS, (number + 1) * SHARD_PAIRS)
        spoiled = {seeds[5]: b"no image", seeds[9]: b""}
        deliver(home / "crawls" / CRAWL, seeds, spoiled=spoiled, shard=f"{number:05d}")
    run(home, "raw_pairs", "proxy_checkpoint")
    return home


def assert_equal_tables(quiet, disturbed, *assets):
    for asset in assets:
        tables = [LanceStore(uri=str(home / "lance")).read(asset, CRAWL) for home in (quiet, disturbed)]
        assert tables[0].equals(tables[1]), asset


def test_a_killed_ingest_goes_on_and_ends_as_a_quiet_one(quiet, tmp_path):
    shutil.copytree(quiet / "crawls", tmp_path / "crawls")
    for moment in (pieces("raw_pairs", 2), table("quarantine")):
        assert kill_when(tmp_path, "raw_pairs", moment) == -9
        there = len(finished(tmp_path, "raw_pairs"))
        assert there >= 2
    found = re.search(r"(\d+) of 8 shards had been read by a run that was broken off", run(tmp_path, "raw_pairs"))
    assert int(found[1]) == there
    assert_equal_tables(quiet, tmp_path, "raw_pairs", "quarantine")
    assert not finished(tmp_path, "raw_pairs")


def test_a_killed_embedding_goes_on_and_ends_as_a_quiet_one(quiet, tmp_path):
    shutil.copytree(quiet, tmp_path, dirs_exist_ok=True)
    run(quiet, "embeddings")
    for moment in (pieces("embeddings", 2), pieces("embeddings", 9)):
        assert kill_when(tmp_path, "embeddings", moment) == -9
        there = len(finished(tmp_path, "embeddings"))
        assert there >= 2
    found = re.search(r"([\d,]+) of 1,184 pairs had been embedded by a run", run(tmp_path, "embeddings"))
    assert int(found[1].replace(",", "")) == min(there * PIECE_PAIRS, 1_184)
    assert_equal_tables(quiet, tmp_path, "embeddings")
