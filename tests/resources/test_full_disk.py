"""A disk of eight megabytes, in a mount namespace of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
import pyarrow as pa
from resources.lance_store import LanceStore
from resources.pieces import FullDiskError, Pieces

disk = Path(sys.argv[1])
store, pieces = LanceStore(uri=str(disk / "lance")), Pieces(disk / "pieces")
small, large = (pa.table({"value": np.random.default_rng(0).integers(0, 2**60, n)}) for n in (3, 2_000_000))
reader = lambda table: {"rows": pa.RecordBatchReader.from_batches(table.schema, table.to_batches())}
store.write("pool", "crawl-1", small)
pieces.add("a", reader(small))
for write in (lambda: store.write("pool", "crawl-1", large), lambda: pieces.add("b", reader(large))):
    try:
        write()
    except FullDiskError as error:
        print(error)
assert store.read("pool", "crawl-1").equals(small)
assert "a" in pieces and "b" not in pieces
"""
MOUNT = 'mount -t tmpfs -o size=8m tmpfs "$0" && exec "$@"'


def test_on_a_full_disk_the_earlier_data_is_intact_and_the_error_says_what_to_do(tmp_path):
    namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c", MOUNT, str(tmp_path)]
    if subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a disk of eight megabytes")
    done = subprocess.run(
        [*namespace, sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is full: free some room and run again") == 2
