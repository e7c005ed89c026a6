"""The directory of evaluation sets in CLIP_benchmark's webdataset layout, local or in an object store."""

import fcntl
import hashlib
from pathlib import Path, PurePosixPath

import dagster as dg
from pydantic import Field

from resources.mirror import Address, UnreadableAddressError, is_address, mirror, without_secret

SETTING = "CLIPCOV_EVALUATION"


class EvaluationSuite(dg.ConfigurableResource):
    """Points at the evaluation sets, one folder a set."""

    directory: str = Field(
        description="Directory that holds one folder per evaluation set, or its address, such as s3://bucket/sets."
    )
    cache: str = Field(
        description="Directory for copies of sets from an address, as large as they are, and for hashes of shards."
    )

    @property
    def digests(self) -> Path:
        """The file that keeps the hashes of the shards."""
        return Path(self.cache).absolute() / "digests.json"

    def folder(self) -> Path:
        """Return the local directory of the sets; from an address, what is new or has changed is copied first.

        Raises:
            UnreadableAddressError: The address cannot be read, or holds no set; the message names it.
            FullDiskError: There is no room for the copy; files that were copied are kept.
        """
        if not is_address(self.directory):
            return Path(self.directory)
        shown = without_secret(self.directory)
        copy = Path(self.cache).absolute() / hashlib.sha256(shown.encode()).hexdigest()[:16]
        copy.mkdir(parents=True, exist_ok=True)
        with copy.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # while another run copies, this one waits
            listing = Address.of(self.directory, SETTING).listing().only(_is_read)
            if not listing.files:
                raise UnreadableAddressError(f"there is no evaluation set at {shown}: point CLIPCOV_EVALUATION at them")
            mirror(listing, copy)
        return copy


def _is_read(path: PurePosixPath) -> bool:
    """Whether scoring reads a file: names, templates, numbers and test shards, but no shards for training."""
    hidden = any(part.startswith(".") for part in path.parts)  # and no way out of the folder
    return not hidden and (path.suffix == ".txt" or (path.suffix == ".tar" and path.parent.name == "test"))
