"""The directory of unfinished work, one place for each partition that is being made."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from pydantic import Field

from resources.pieces import Pieces, only_one, removed


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

    def names(self) -> list[str]:
        """What there is unfinished work on: the asset, a dot, and the partition."""
        path = Path(self.directory)
        return sorted(one.name for one in path.iterdir() if one.is_dir()) if path.is_dir() else []

    def remove(self, name: str, *, dry_run: bool = False) -> int:
        """Remove unfinished work that nobody will go on with, or only look, and return its bytes.

        Raises:
            InUseError: A run works on it.
        """
        directory = Path(self.directory).resolve() / name
        with only_one(directory.with_name(f"{name}.lock"), name):
            return removed(directory, dry_run=dry_run)
