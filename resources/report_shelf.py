"""The directory of reports and pictures that people open outside Dagster."""

import os
from pathlib import Path
from urllib.parse import quote

import dagster as dg
from pydantic import Field

from resources.pieces import removed


class ReportShelf(dg.ConfigurableResource):
    """Writes reports and pictures."""

    directory: str = Field(description="Directory for reports and pictures.")
    dagster_ui: str = Field(default="http://127.0.0.1:3000", description="Where Dagster is looked at.")
    pages: str = Field(default="http://127.0.0.1:3001", description="Where the reports are looked at.")

    def address(self, name: str) -> str:
        """Where a file is looked at in a browser: one that Dagster's pages can link to."""
        return f"{self.pages.rstrip('/')}/{quote(name)}"

    def write(self, name: str, content: bytes) -> str:
        """Write a file, whole or not at all, and return its absolute path."""
        path = Path(self.directory).resolve() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")  # several runs may write it at once
        unfinished.write_bytes(content)
        unfinished.replace(path)
        return str(path)

    def folders(self, name: str) -> list[str]:
        """Names of the folders in a folder; none where it is not there."""
        path = Path(self.directory) / name
        return sorted(one.name for one in path.iterdir() if one.is_dir()) if path.is_dir() else []

    def remove(self, name: str, *, dry_run: bool = False) -> int:
        """Remove a folder with all its files, or only look, and return their bytes.

        Raises:
            ValueError: It is not a folder below the shelf's directory.
        """
        shelf, path = Path(self.directory).resolve(), Path(self.directory).resolve() / name
        if path.is_symlink() or not path.is_dir() or shelf not in path.resolve().parents:
            raise ValueError(f"{name!r} is no folder of {shelf}: nothing was removed")
        return removed(path, dry_run=dry_run)
