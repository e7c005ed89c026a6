"""Members of a tar shard: first all headers, then the content of one member at a time; nothing is extracted to disk.

Names inside a tar are labels and never paths: they are split into key and suffix and opened nowhere.
"""

import io
import sys
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from clipcov_assets.ingest.delivery import DeliveryError

IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp"})
LARGEST_MEMBER = 64 * 2**20  # bytes
LARGEST_HEADER = 32 * 2**10  # bytes, with the headers of a long name; the names of real pairs have some ten

_BLOCK = tarfile.BLOCKSIZE
_UNREADABLE_TYPES = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}
_OTHER_FORMATS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"PK": "zip",
    b"PAR1": "parquet",
    b"<": "HTML or XML",
    b"version https://git-lfs": "a pointer of Git LFS",
}


class DamagedTarError(DeliveryError):
    """A tar that is cut short, has damaged places or is something else."""


class Entry(NamedTuple):
    """The header of a member: "dir/0001.seg.txt" has key "dir/0001" and suffix "seg.txt".

    `flaw` says why its content cannot be had, and is empty where it can.
    """

    key: str
    suffix: str
    offset: int
    size: int
    flaw: str


class TarHeaders:
    """Every header that can be found in an uncompressed tar, in order; directories are left out.

    The reading goes on behind damaged headers, behind end marks (so concatenated tars are read whole), and right
    behind a header that declares more content than the file has left.

    Attributes:
        damage: What is wrong with the tar, empty if nothing is; complete once all headers have been read.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._first_damage = ""
        self._n_damages = 0
        self.damage = ""

    def __iter__(self) -> Iterator[Entry]:
        """Read the headers, from the start of the file."""
        size = self._file.seek(0, io.SEEK_END)
        window = _Window(self._file)
        archive = tarfile.TarFile(fileobj=io.BytesIO(bytes(_BLOCK)), encoding="utf-8")  # an empty one
        archive.fileobj = window  # type: ignore[assignment]
        offset, n_entries, at_end_mark, in_damage = 0, 0, False, False
        while offset + _BLOCK <= size:
            window.open(offset)
            archive.pax_headers = {}  # hostile ones would grow from member to member
            try:
                header = tarfile.TarInfo.fromtarfile(archive)
            except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
                at_end_mark, in_damage = True, False
                offset += _BLOCK
                continue
            except Exception as error:  # besides its own errors, tarfile lets many others escape on hostile headers
                if not in_damage:
                    self._note(f"no header at byte {offset} ({error})")
                at_end_mark, in_damage = False, True
                offset += _BLOCK
                continue
            at_end_mark = in_damage = False
            n_entries += 1
            left = size - header.offset_data
            if header.size >= 0 and header.offset_data <= archive.offset < size + _BLOCK:
                offset = archive.offset
            else:
                self._note(f"the member at byte {offset} declares {header.size} bytes, {left} are left")
                offset = header.offset_data
            if not header.isdir():
                yield Entry(*_key_and_suffix(header.name), header.offset_data, header.size, _flaw(header, left))
        self.damage = self._describe(size, n_entries, at_end_mark=at_end_mark)

    def _note(self, damage: str) -> None:
        self._first_damage = self._first_damage or damage
        self._n_damages += 1

    def _describe(self, size: int, n_entries: int, *, at_end_mark: bool) -> str:
        if size == 0:
            return "it has zero bytes"
        if not n_entries and not at_end_mark:
            return f"it is {self._other_format()}, no tar"
        others = f"{self._n_damages - 1} more damaged places" if self._n_damages > 1 else ""
        end = "" if at_end_mark else "cut short: no end mark"
        return ", ".join(filter(None, (self._first_damage, others, end)))

    def _other_format(self) -> str:
        self._file.seek(0)
        start = self._file.read(_BLOCK).lstrip()
        return next((name for magic, name in _OTHER_FORMATS.items() if start.startswith(magic)), "something else")


def read_content(file: BinaryIO, entry: Entry) -> bytes:
    """Return the content of a member that has no flaw.

    Raises:
        OSError: It cannot be read, or the file has become shorter since its header was read.
    """
    file.seek(entry.offset)
    content = file.read(entry.size)
    if len(content) != entry.size:
        raise OSError(f"the tar has changed: {len(content)} of {entry.size} bytes")
    return content


class _Window:
    """What tarfile may read for one header: a hostile one asks for the whole file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = 0
        self.tell = file.tell

    def open(self, offset: int) -> None:
        self._file.seek(offset)
        self._left = LARGEST_HEADER

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self._left:
            raise tarfile.ReadError(f"a header above {LARGEST_HEADER} bytes")
        self._left -= size
        return self._file.read(size)


def _key_and_suffix(name: str) -> tuple[str, str]:
    directory, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, suffix = base.partition(".")
    # The members of a pair share their key, and all pairs their suffixes: once in memory is enough.
    return sys.intern(directory + slash + stem), sys.intern(suffix.lower())


def _flaw(header: tarfile.TarInfo, left: int) -> str:
    if header.issparse():
        return "a sparse file"
    if not header.isreg():
        return _UNREADABLE_TYPES.get(header.type, "a member of an unknown type")
    if not 0 <= header.size <= left:
        return f"declares {header.size} bytes, {left} are left in the tar"
    if header.size > LARGEST_MEMBER:
        return f"{header.size} bytes, {LARGEST_MEMBER} are the most"
    return ""
