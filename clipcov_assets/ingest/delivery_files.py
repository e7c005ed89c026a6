"""Files that a delivery names by path: only plain files inside its folder are opened."""

import stat
from pathlib import Path

from clipcov_assets.ingest.delivery import Reason, printable
from clipcov_assets.ingest.pair_parts import RejectedPartError
from clipcov_assets.ingest.tar_shard import LARGEST_MEMBER


class DeliveryFiles:
    """The files below one folder; it remembers where folders lie, so make one a reading."""

    def __init__(self, directory: Path) -> None:
        self._root = directory.resolve()
        self._folders: dict[str, Path] = {}

    def read(self, name: str, *, beside: Path) -> bytes:
        """Return the content of the file that `name` means, as `find` finds it.

        Raises:
            RejectedPartError: IMAGE_OUTSIDE or IMAGE_MISSING.
        """
        path = self.find(name, beside=beside)
        try:
            return path.read_bytes()
        except OSError as error:
            raise _missing(name, error.strerror or str(error)) from error

    def find(self, name: str, *, beside: Path) -> Path:
        """Return the plain file that `name` means, after all links have been followed.

        Args:
            name: Absolute, or relative to `beside` or to the delivery's folder, in this order.
            beside: The folder of the table that names it.

        Raises:
            RejectedPartError: IMAGE_OUTSIDE or IMAGE_MISSING.
        """
        if not name:
            raise RejectedPartError(Reason.IMAGE_MISSING, "no path")
        try:
            return self._plain_file(name, beside / name)
        except RejectedPartError:
            if beside == self._root:
                raise
            try:
                return self._plain_file(name, self._root / name)
            except RejectedPartError:
                pass
            raise

    def _plain_file(self, name: str, path: Path) -> Path:
        try:
            path = self._resolve(path)
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                path = self._inside(path.resolve())
                status = path.lstat()
        except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name, links in a circle
            raise _missing(name, getattr(error, "strerror", None) or str(error)) from error
        if not stat.S_ISREG(status.st_mode):  # to open a fifo or a device may wait for ever
            raise _missing(name, "no plain file")
        if status.st_size > LARGEST_MEMBER:
            raise _missing(name, f"{status.st_size} bytes, {LARGEST_MEMBER} are the most")
        return path

    def _resolve(self, path: Path) -> Path:
        """Follow all links but the last; a folder is looked up once, since most images share theirs."""
        folder, _, name = str(path).rpartition("/")
        if name == "..":
            return self._inside(path.resolve())
        if folder not in self._folders:
            self._folders[folder] = self._inside(Path(folder or "/").resolve())
        return self._folders[folder] / name

    def _inside(self, resolved: Path) -> Path:
        if not resolved.is_relative_to(self._root):
            detail = f"{printable(str(resolved))} lies outside of the delivery's folder"
            raise RejectedPartError(Reason.IMAGE_OUTSIDE, detail)
        return resolved


def _missing(name: str, why: str) -> RejectedPartError:
    return RejectedPartError(Reason.IMAGE_MISSING, f"{printable(name)}: {why}")
