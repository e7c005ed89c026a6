"""The directory where deliveries land, one folder a crawl."""

from pathlib import Path

import dagster as dg
from pydantic import Field


class CrawlCatalog(dg.ConfigurableResource):
    """Finds the folder of a crawl by its name."""

    directory: str = Field(description="Directory that holds one folder per crawl.")
    most_quarantined: float = Field(
        default=0.2, ge=0, le=1, description="Share of quarantined pairs above which a crawl goes no further."
    )

    def folders(self) -> tuple[Path, ...]:
        """Every folder of the directory, by name, whether or not it holds a complete delivery.

        Raises:
            FileNotFoundError: The directory is missing.
        """
        root = Path(self.directory)
        if not root.is_dir():
            raise FileNotFoundError(
                f"the crawls directory {root} does not exist: create it, or point CLIPCOV_CRAWLS at the one you use"
            )
        return tuple(sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink()))

    def folder(self, crawl: str) -> Path:
        """The folder of one crawl.

        Raises:
            FileNotFoundError: No such crawl; the message lists those that are there.
        """
        found = {path.name: path for path in self.folders()}
        if crawl not in found:
            raise FileNotFoundError(
                f"no folder named {crawl!r} in {self.directory}; there are: {', '.join(found) or 'none'}. "
                "Deliver the crawl there, or delete the partition"
            )
        return found[crawl]
