"""Finished parts of unfinished work at an address, where processes of several machines add and read them.

Worker processes import this module: it needs neither Dagster nor LanceDB.
"""

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from resources.mirror import Address
from resources.pieces import Pieces, disk_of

SETTING = "CLIPCOV_PIECES"
FINISHED = "finished"  # the file that is written last: without it, a piece is not there
REMOVED_AT_ONCE = 8


@dataclass(frozen=True)
class SharedPieces(Pieces):
    """Pieces at an address; what is asked is whether they are there now, whoever added them.

    Attributes:
        directory: Of this machine, for whoever locks or writes beside them.
        address: Where they are kept.
    """

    address: str

    @property
    def place(self) -> str:
        """The address."""
        return self.address

    def __contains__(self, key: str) -> bool:
        return FINISHED in self._of(key).names()

    def finished(self, keys: Collection[str]) -> set[str]:
        """Which of these pieces are there, in few requests however many they are.

        Raises:
            UnreadableAddressError: The address cannot be read.
        """
        marked = {place.parts[0] for place in self._root.files() if place.parts[1:] == (FINISHED,)}
        return marked.intersection(keys)

    def add(self, key: str, tables: Mapping[str, pa.RecordBatchReader]) -> None:
        """Keep the tables of a piece: all of them, or none if this process dies on the way.

        Raises:
            FullDiskError: There is no room for a table on this machine.
            UnreadableAddressError: The address cannot be written.
        """
        piece = self._of(key)
        with TemporaryDirectory() as unfinished, disk_of(unfinished):
            for name, rows in tables.items():
                file = Path(unfinished) / name
                with pa.ipc.new_file(str(file), rows.schema) as writer:
                    for batch in rows:
                        writer.write_batch(batch)
                piece.put(f"{name}.arrow", file)
        piece.write(FINISHED, b"")

    def batches(self, key: str, table: str) -> Iterator[pa.RecordBatch]:
        """Read a table of a piece as it was added, batch by batch; memory holds the table.

        Raises:
            UnreadableAddressError: The address cannot be read.
        """
        opened = pa.ipc.open_file(pa.py_buffer(self._of(key).read(f"{table}.arrow")))
        for number in range(opened.num_record_batches):
            yield opened.get_batch(number)

    def keep(self, keys: Collection[str]) -> None:
        """Remove every other piece, and what a killed run left half done.

        Raises:
            UnreadableAddressError: The address cannot be written.
        """
        others = [name for name in self._root.names() if name not in keys]
        with ThreadPoolExecutor(REMOVED_AT_ONCE) as pool:
            list(pool.map(self._remove, others))

    def _remove(self, key: str) -> None:
        self._of(key).remove(FINISHED)  # first: a piece that is half removed is not there
        self._of(key).clear()

    @property
    def _root(self) -> Address:
        return Address.of(self.address, SETTING)

    def _of(self, key: str) -> Address:
        return self._root.below(key)
