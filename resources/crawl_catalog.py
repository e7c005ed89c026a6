"""The directory or address where deliveries land, one folder a crawl, and the marks of crawls that were withdrawn."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
from pydantic import Field

from resources.mirror import Address, Listing, is_address, without_secret

SETTING = "CLIPCOV_CRAWLS"
MARK = ".withdrawn"
LONGEST_REASON = 500  # characters
READ_AT_ONCE = 8


class CrawlCatalog(dg.ConfigurableResource):
    """Finds the folder of a crawl by its name."""

    directory: str = Field(
        description="Directory that holds one folder per crawl, or its address, such as s3://bucket/crawls."
    )
    most_quarantined: float = Field(
        default=0.2, ge=0, le=1, description="Share of quarantined pairs above which a crawl goes no further."
    )

    @property
    def is_remote(self) -> bool:
        """Whether crawls lie at an address, and are copied before they are read."""
        return is_address(self.directory)

    @property
    def shown(self) -> str:
        """The directory or address as people may see it, without secrets."""
        return without_secret(self.directory)

    def crawls(self) -> tuple[str, ...]:
        """The name of every folder, complete or not, but for hidden ones and crawls that were withdrawn.

        Raises:
            FileNotFoundError: The directory is missing.
            UnreadableAddressError: The address cannot be read.
        """
        folders, files = self._names()
        marks = set(files)
        return tuple(name for name in folders if f"{name}{MARK}" not in marks)

    def check_there(self, crawl: str) -> None:
        """Look for the folder of a crawl.

        Raises:
            FileNotFoundError: No such crawl, and the message lists those that are there; or it was withdrawn, or is a
                link.
            UnreadableAddressError: The address cannot be read.
        """
        names = self.crawls()
        if crawl in names:
            return
        if (reason := self.withdrawn().get(crawl)) is not None:
            raise FileNotFoundError(why_withdrawn(crawl, reason))
        if crawl in self.links():
            raise FileNotFoundError(why_not_followed(crawl))
        raise FileNotFoundError(
            f"no folder named {crawl!r} in {self.shown}; there are: {', '.join(names) or 'none'}. "
            "Deliver the crawl there, or delete the partition"
        )

    def folder(self, crawl: str) -> Path:
        """The folder of one crawl in a directory.

        Raises:
            FileNotFoundError: It is not there, was withdrawn, or is a link.
        """
        self.check_there(crawl)
        return Path(self.directory) / crawl

    def listing(self, crawl: str) -> Listing:
        """The files of one crawl at an address; none is read.

        Raises:
            UnreadableAddressError: The address cannot be read.
        """
        return Address.of(self.directory, SETTING).below(crawl).listing()

    def withdrawn(self) -> dict[str, str]:
        """The crawls that were withdrawn, and why, as the marks beside them say.

        Raises:
            FileNotFoundError: The directory is missing.
            UnreadableAddressError: The address cannot be read.
        """
        _, files = self._names()
        marks = [name for name in files if name.endswith(MARK)]
        with ThreadPoolExecutor(READ_AT_ONCE) as pool:
            return dict(zip((name.removesuffix(MARK) for name in marks), pool.map(self._reason, marks), strict=True))

    def links(self) -> tuple[str, ...]:
        """The names in a directory that are links, which may lead anywhere and are not followed; a store has none.

        Raises:
            FileNotFoundError: The directory is missing.
        """
        return () if self.is_remote else tuple(path.name for path in self._entries() if path.is_symlink())

    def withdraw(self, crawl: str, reason: str) -> None:
        """Write the mark `<crawl>.withdrawn` beside a crawl: from now on it is passed over; nothing of it is removed.

        Raises:
            ValueError: There is no reason, or the name is none of a folder.
            FileNotFoundError: The directory is missing.
            UnreadableAddressError: The address cannot be written.
        """
        words = " ".join(reason.split())[:LONGEST_REASON]
        if not words:
            raise ValueError(f"say why {crawl} is withdrawn: whoever misses it later looks for the reason")
        if not crawl or crawl.startswith(".") or "/" in crawl:
            raise ValueError(f"{crawl!r} is no name of a crawl: give the name of its folder in {self.shown}")
        self._root().write(f"{crawl}{MARK}", f"{words}\n{datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n".encode())

    def _reason(self, mark: str) -> str:
        text = self._root().read(mark, most=4 * LONGEST_REASON).decode("utf-8", "replace")
        first, _, _ = text.strip().partition("\n")
        return " ".join(first.split())[:LONGEST_REASON] or "no reason given"

    def _names(self) -> tuple[list[str], list[str]]:
        """The names of the folders, and of the files beside them, but for hidden ones and links of a directory."""
        if self.is_remote:
            folders, files = self._root().entries()
            return [name for name in folders if name[0] != "."], [name for name in files if name[0] != "."]
        entries = [path for path in self._entries() if not path.is_symlink()]
        return [path.name for path in entries if path.is_dir()], [path.name for path in entries if path.is_file()]

    def _entries(self) -> list[Path]:
        """What lies in a directory, but for what is hidden, such as a delivery that is still being copied."""
        return sorted(path for path in Path(self._root().base).iterdir() if path.name[0] != ".")

    def _root(self) -> Address:
        if self.is_remote:
            return Address.of(self.directory, SETTING)
        root = Path(self.directory)
        if not root.is_dir():
            raise FileNotFoundError(
                f"the crawls directory {root} does not exist: create it, or point CLIPCOV_CRAWLS at the one you use"
            )
        return Address.at(str(root), SETTING)


def why_not_followed(crawl: str) -> str:
    """Say that a crawl is a link, and what to do instead."""
    return f"{crawl} is a link, and links are not followed: put the folder itself there, or mount it there"


def why_withdrawn(crawl: str, reason: str) -> str:
    """Say that a crawl was withdrawn, why, and how it comes back."""
    return f"{crawl} is withdrawn: {reason}; delete {crawl}{MARK} to take it back"
