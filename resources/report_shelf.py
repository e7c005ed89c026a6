"""The directory of reports and pictures that people open outside Dagster."""

from pathlib import Path

import dagster as dg
from pydantic import Field


class ReportShelf(dg.ConfigurableResource):
    """Writes reports and pictures."""

    directory: str = Field(description="Directory for reports and pictures.")
    dagster_ui: str = Field(default="http://127.0.0.1:3000", description="Where Dagster is looked at.")

    def write(self, name: str, content: bytes) -> str:
        """Write a file, whole or not at all, and return its absolute path."""
        path = Path(self.directory).resolve() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{name}.unfinished")
        unfinished.write_bytes(content)
        unfinished.replace(path)
        return str(path)
