"""Members of a tar shard, one by one and in memory; a path on disk enters, nothing is extracted to disk.

Names inside a tar are labels and never paths: they are split into key and suffix and opened nowhere.
"""

import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from clipcov_assets.ingest.delivery import DeliveryError

IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp"})
LARGEST_MEMBER = 64 * 2**20  # bytes


class DamagedTarError(DeliveryError):
    """A tar that ends too early or cannot be read on; what came before it has been yielded."""


@dataclass(frozen=True)
class Member:
    """One regular file of a tar: "dir/0001.seg.txt" has key "dir/0001" and suffix "seg.txt"."""

    key: str
    suffix: str
    content: bytes


def read_members(path: Path, suffixes: Collection[str], *, salvage: bool) -> Iterator[Member]:
    """Yield the regular files with one of `suffixes` (lower case, without the dot), in the tar's order.

    Links, devices, sparse files and files above `LARGEST_MEMBER` are passed over.

    Args:
        path: An uncompressed tar.
        suffixes: What to read; everything else is skipped without being loaded.
        salvage: Go on behind damaged headers and end marks, as far as headers can be found, and ask for
            no end mark. The caller must know from elsewhere how many members there should be.

    Raises:
        DamagedTarError: After the last readable member.
    """
    with path.open("rb") as file:
        try:
            archive = tarfile.open(fileobj=file, mode="r:", ignore_zeros=salvage)  # noqa: SIM115
            for entry in archive:
                if entry.size < 0:  # would send tarfile backwards, for ever
                    raise tarfile.ReadError("a member of negative size")
                key, suffix = _key_and_suffix(entry.name)
                if suffix in suffixes and _is_plain(entry):
                    yield Member(key, suffix, _content(archive, entry))
            file.seek(archive.offset)
            if not salvage and file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise tarfile.ReadError("no end mark")  # tarfile itself stops here without a word
        # tarfile lets some of these escape on hostile headers.
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            raise DamagedTarError(f"{path} is damaged or cut short ({error}); fetch it again") from error


def _key_and_suffix(name: str) -> tuple[str, str]:
    directory, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, suffix = base.partition(".")
    return directory + slash + stem, suffix.lower()


def _is_plain(entry: tarfile.TarInfo) -> bool:
    return entry.isreg() and not entry.issparse() and entry.size <= LARGEST_MEMBER


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(entry)
    content = file.read() if file else b""
    if len(content) != entry.size:
        raise tarfile.ReadError("a member is cut short")
    return content
