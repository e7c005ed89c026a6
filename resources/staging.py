"""The directory of unfinished work, one place for each partition that is being made."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from pydantic import Field

from resources.pieces import Pieces, only_one


class Staging(dg.ConfigurableResource):
    """Keeps the pieces of what is being made, for one run at a time."""

    directory: str = Field(description="Directory for unfinished work; it needs as much room as the largest table.")

    @contextmanager
    def pieces(self, asset: str, partition: str) -> Iterator[Pieces]:
        """Lend the pieces of a partition; after an error or a kill they stay, otherwise they are removed.

        Raises:
            InUseError: Another run has them.
        """
        name = f"{asset}.{partition.replace('|', '.')}"
        directory = Path(self.directory).resolve() / name
        with only_one(directory.with_name(f"{name}.lock"), f"{asset} of {partition}"):
            directory.mkdir(parents=True, exist_ok=True)
            yield Pieces(directory)
            shutil.rmtree(directory)
