"""The directory of unfinished work, one place for each partition that is being made."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from pydantic import Field

from resources.mirror import Address, is_address
from resources.pieces import Pieces, only_one, removed
from resources.shared_pieces import SETTING, SharedPieces


class Staging(dg.ConfigurableResource):
    """Keeps the pieces of what is being made, for one run at a time."""

    directory: str = Field(description="Directory for unfinished work; it needs as much room as the largest table.")
    pieces_at: str = Field(
        default="",
        description="Where pieces are kept that processes of several machines make: a directory that all of them "
        "have, or an address, such as s3://bucket/pieces. In the directory for unfinished work where it is empty.",
    )

    @contextmanager
    def pieces(self, asset: str, partition: str, *, shared: bool = False) -> Iterator[Pieces]:
        """Lend the pieces of a partition; after an error or a kill they stay, otherwise they are removed.

        Args:
            asset: What is being made.
            partition: Of it.
            shared: Whether other machines add or read pieces, too.

        Raises:
            InUseError: Another run of this machine has them.
            UnreadableAddressError: The address of shared pieces cannot be reached.
        """
        name = f"{asset}.{partition.replace('|', '.')}"
        directory = self._directory / name
        with only_one(directory.with_name(f"{name}.lock"), f"{asset} of {partition}"):
            directory.mkdir(parents=True, exist_ok=True)
            yield self._shared(name) if shared and self.pieces_at else Pieces(directory)
            if shared and self.pieces_at:
                self._pieces.below(name).clear()
            shutil.rmtree(directory)

    def names(self) -> list[str]:
        """What there is unfinished work on: the asset, a dot, and the partition.

        Raises:
            UnreadableAddressError: The address of shared pieces cannot be read.
        """
        here = [one.name for one in self._directory.iterdir() if one.is_dir()] if self._directory.is_dir() else []
        return sorted({*here, *(self._pieces.names() if self.pieces_at else [])})

    def remove(self, name: str, *, dry_run: bool = False) -> int:
        """Remove unfinished work that nobody will go on with, or only look, and return its bytes.

        Raises:
            InUseError: A run of this machine works on it.
            UnreadableAddressError: The address of shared pieces cannot be reached.
        """
        directory, size = self._directory / name, 0
        with only_one(directory.with_name(f"{name}.lock"), name):
            if self.pieces_at:
                shared = self._pieces.below(name)
                size = sum(info.size for info in shared.files().values())
                if not dry_run:
                    shared.clear()
            return size + (removed(directory, dry_run=dry_run) if directory.is_dir() else 0)

    @property
    def _directory(self) -> Path:
        return Path(self.directory).resolve()

    @property
    def _pieces(self) -> Address:
        return Address.at(self.pieces_at, SETTING)

    def _shared(self, name: str) -> Pieces:
        if is_address(self.pieces_at):
            address, mark, options = self.pieces_at.partition("?")
            return SharedPieces(self._directory / name, f"{address.rstrip('/')}/{name}{mark}{options}")
        directory = Path(self.pieces_at).resolve() / name
        directory.mkdir(parents=True, exist_ok=True)
        return Pieces(directory)
