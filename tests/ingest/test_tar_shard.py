import gzip
import io
import os
import re
import tarfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipcov_assets.ingest import tar_shard
from clipcov_assets.ingest.tar_shard import TarHeaders, read_content

UNUSUAL_TYPES = (
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.FIFOTYPE,
    tarfile.DIRTYPE,
    tarfile.GNUTYPE_SPARSE,
    b"V",
)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "0.tar"
        path.write_bytes(content)
        return path

    return write


def found(path: Path) -> tuple[list[str], str]:
    with path.open("rb") as file:
        headers = TarHeaders(file)
        keys = [entry.key for entry in islice(headers, 20) if not entry.flaw]
    return keys, headers.damage


def header(name: str, size: int, **fields: object) -> bytes:
    """A header that may declare anything."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def plain_files(path: Path) -> list[tuple[str, str, bytes]]:
    with path.open("rb") as file:
        entries = [entry for entry in TarHeaders(file) if not entry.flaw and entry.suffix]
        return [(entry.key, entry.suffix, read_content(file, entry)) for entry in entries]


def test_a_name_is_split_at_the_first_dot_of_its_last_part(
    write: Callable[[bytes], Path], make: SimpleNamespace
) -> None:
    path = write(make.tar([("./a.b/c.seg.TXT", b"1"), ("../../etc/x.txt", b"2"), ("README", b"3")]))
    assert plain_files(path) == [("a.b/c", "seg.txt", b"1"), ("../../etc/x", "txt", b"2")]


@pytest.fixture
def unusual(write: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tar_shard, "LARGEST_MEMBER", 3)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for kind in UNUSUAL_TYPES:
            entry = tarfile.TarInfo("0.txt")
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
        for name, content in (("1.txt", b"four"), ("2.txt", b"two")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return write(buffer.getvalue())


def test_only_plain_files_are_read(unusual: Path) -> None:
    assert plain_files(unusual) == [("2", "txt", b"two")]


def test_what_is_no_plain_file_is_found_with_its_flaw(unusual: Path) -> None:
    with unusual.open("rb") as file:
        flaws = [entry.flaw for entry in TarHeaders(file)]
    kinds = ["symbolic link", "hard link", "device", "pipe", "sparse", "unknown type", "4 bytes, 3 are the most"]
    assert len(flaws) == len(kinds) + 1  # the directory is left out
    assert all(kind in flaw for kind, flaw in zip(kinds, flaws, strict=False))
    assert flaws[-1] == ""


def test_a_damaged_header_costs_only_its_member(write: Callable[[bytes], Path], make: SimpleNamespace) -> None:
    content = bytearray(make.tar([(f"{number}.txt", b"x") for number in range(4)]))
    content[1024:1034] = b"\xff" * 10  # the header of the second member
    path = write(bytes(content))
    keys, damage = found(path)
    assert keys == ["0", "2", "3"]
    assert damage.startswith("no header at byte 1024")


def test_damaged_places_are_counted(write: Callable[[bytes], Path], make: SimpleNamespace) -> None:
    content = bytearray(make.tar([(f"{number}.txt", b"x") for number in range(6)]))
    for number in (1, 3, 4):
        content[number * 1024 : number * 1024 + 10] = b"\xff" * 10
    keys, damage = found(write(bytes(content)))
    assert keys == ["0", "2", "5"]
    assert "1 more damaged places" in damage  # 3 and 4 are one


@pytest.mark.parametrize(
    "end, keys", [(100, []), (512, []), (1024, ["0"]), (1500, ["0"]), (1540, ["0"]), (2048, ["0", "1"])]
)
def test_a_tar_cut_short_keeps_its_head_and_says_so(
    write: Callable[[bytes], Path], make: SimpleNamespace, end: int, keys: list[str]
) -> None:
    path = write(make.tar([(f"{number}.txt", b"x" * 10) for number in range(4)])[:end])
    assert found(path)[0] == keys
    assert re.search("cut short|no tar", found(path)[1])


def test_concatenated_tars_are_read_whole(write: Callable[[bytes], Path], make: SimpleNamespace) -> None:
    path = write(make.tar([("0.txt", b"x")]) + make.tar([("1.txt", b"x")]))
    assert found(path) == (["0", "1"], "")


@pytest.mark.parametrize("size", [8 * 2**30, 2**60, 5000, -1, -1536])
def test_behind_a_member_that_declares_more_than_there_is_the_reading_goes_on(
    write: Callable[[bytes], Path], make: SimpleNamespace, size: int
) -> None:
    keys, damage = found(write(header("0.txt", size) + make.tar([("1.txt", b"x")])[:2048]))
    assert keys == ["1"]
    assert f"declares {size} bytes, 2048 are left" in damage


@pytest.mark.parametrize(
    "kind",
    [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE],
)
@pytest.mark.parametrize("size", [8 * 2**30, 100_000, -1536])
def test_a_long_name_that_asks_for_the_whole_file_does_not_get_it(
    write: Callable[[bytes], Path], make: SimpleNamespace, kind: bytes, size: int
) -> None:
    content = header("long", size, type=kind) + make.tar([("1.txt", b"x")]) + bytes(200_000)
    keys, damage = found(write(content))
    assert keys == ["1"]
    assert "no header at byte 0" in damage


LONG_NAMES = ["x" * 10_000, "ü" * 5000, "x" * 99]
NAMES = ["/etc/passwd", "../../out", "a\nb", "caf\udce9", "folder/" * 20 + "x"]


@pytest.mark.parametrize(
    "format, name",
    [(tarfile.USTAR_FORMAT, name) for name in NAMES]
    + [(format, name) for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT) for name in NAMES + LONG_NAMES],
)
def test_any_name_is_a_label(write: Callable[[bytes], Path], format: int, name: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, encoding="utf-8") as archive:
        for number in range(2):
            archive.addfile(tarfile.TarInfo(f"{name}{number}.txt"))
    assert found(write(buffer.getvalue())) == ([f"{name}0", f"{name}1"], "")


def test_a_chain_of_long_names_ends(write: Callable[[bytes], Path], make: SimpleNamespace) -> None:
    link = header("long", 2, type=tarfile.GNUTYPE_LONGNAME) + b"x".ljust(512, b"\0")
    keys, damage = found(write(link * 2000 + make.tar([("1.txt", b"x")])))
    assert keys == ["x"]
    assert damage


def test_a_global_header_does_not_rename_what_follows(write: Callable[[bytes], Path]) -> None:
    buffer = io.BytesIO()
    headers = {"path": "same.txt", "size": "7"}
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers=headers) as archive:
        for number in range(3):
            archive.addfile(tarfile.TarInfo(f"{number}.txt"))
    assert found(write(buffer.getvalue()))[0][1:] == ["1", "2"]


@pytest.mark.parametrize(
    "content, what",
    [
        (b"", "zero bytes"),
        (b"x", "something else, no tar"),
        (b"\n<html>" * 1000, "HTML"),
        (b"\xff" * 5000, "something else, no tar"),
        (gzip.compress(bytes(10_240)), "gzip, no tar"),
        (b"PK\x03\x04" + b"x" * 2000, "zip, no tar"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS"),
    ],
    ids=["empty", "short", "HTML", "noise", "gzip", "zip", "Git LFS"],
)
def test_what_is_no_tar_is_named(write: Callable[[bytes], Path], content: bytes, what: str) -> None:
    keys, damage = found(write(content))
    assert not keys
    assert what in damage


def test_an_empty_tar_is_sound(write: Callable[[bytes], Path], make: SimpleNamespace) -> None:
    assert found(write(make.tar([]))) == ([], "")


def test_a_tar_that_shrinks_while_it_is_read_is_noticed(write: Callable[[bytes], Path], make: SimpleNamespace) -> None:
    path = write(make.tar([("0.txt", b"x" * 2000)]))
    with path.open("rb") as file:
        (entry,) = TarHeaders(file)
        os.truncate(path, 1000)
        with pytest.raises(OSError, match="has changed"):
            read_content(file, entry)


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=600), kind=st.sampled_from(list(b"0123456789LKSxgXV\0")), at=st.integers(0, 511))
def test_whatever_a_header_declares_the_reading_ends(make: SimpleNamespace, content: bytes, kind: int, at: int) -> None:
    block = bytearray(header("0.txt", len(content), type=bytes([kind])))
    block[at : at + len(content)] = content[: 512 - at]
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    with io.BytesIO(bytes(block) + content.ljust(1024, b"1") + make.tar([("1.txt", b"x")])) as file:
        assert len(list(islice(TarHeaders(file), 20))) < 20
