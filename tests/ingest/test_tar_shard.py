import io
import tarfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest

from clipcov_assets.ingest import tar_shard
from clipcov_assets.ingest.delivery import DeliveryError
from clipcov_assets.ingest.tar_shard import DamagedTarError, Member, read_members

UNUSUAL_TYPES = (
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.FIFOTYPE,
    tarfile.DIRTYPE,
    tarfile.GNUTYPE_SPARSE,
)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "0.tar"
        path.write_bytes(content)
        return path

    return write


def readable(path: Path, *, salvage: bool) -> tuple[list[str], bool]:
    members = []
    try:
        for member in islice(read_members(path, {"txt"}, salvage=salvage), 10):
            members.append(member.key)
    except DamagedTarError as error:
        assert str(path) in str(error)
        return members, True
    return members, False


def test_a_name_is_split_at_the_first_dot_of_its_last_part(
    write: Callable[[bytes], Path], make: SimpleNamespace
) -> None:
    path = write(make.tar([("./a.b/c.seg.TXT", b"1"), ("../../etc/x.txt", b"2"), ("README", b"3")]))
    members = list(read_members(path, {"seg.txt", "txt"}, salvage=False))
    assert members == [Member("a.b/c", "seg.txt", b"1"), Member("../../etc/x", "txt", b"2")]


def test_only_plain_files_are_read(write: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
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
    path = write(buffer.getvalue())
    assert list(read_members(path, {"txt"}, salvage=False)) == [Member("2", "txt", b"two")]


def test_a_damaged_header_stops_a_strict_reader_and_costs_a_salvaging_one_only_its_member(
    write: Callable[[bytes], Path], make: SimpleNamespace
) -> None:
    content = bytearray(make.tar([(f"{number}.txt", b"x") for number in range(4)]))
    content[1024:1034] = b"\xff" * 10  # the header of the second member
    path = write(bytes(content))
    assert readable(path, salvage=False) == (["0"], True)
    assert readable(path, salvage=True) == (["0", "2", "3"], False)


@pytest.mark.parametrize(
    "end, keys", [(0, []), (100, []), (1024, ["0"]), (1500, ["0"]), (1540, ["0"]), (2048, ["0", "1"])]
)
def test_a_tar_cut_short_keeps_its_head_and_a_strict_reader_says_so(
    write: Callable[[bytes], Path], make: SimpleNamespace, end: int, keys: list[str]
) -> None:
    path = write(make.tar([(f"{number}.txt", b"x" * 10) for number in range(4)])[:end])
    assert readable(path, salvage=False) == (keys, True)
    assert readable(path, salvage=True)[0] == keys


def test_concatenated_tars_are_salvaged_whole(write: Callable[[bytes], Path], make: SimpleNamespace) -> None:
    path = write(make.tar([("0.txt", b"x")]) + make.tar([("1.txt", b"x")]))
    assert readable(path, salvage=True) == (["0", "1"], False)


def test_a_member_of_negative_size_does_not_turn_the_reader_in_circles(
    write: Callable[[bytes], Path], make: SimpleNamespace
) -> None:
    content = bytearray(make.tar([("0.txt", b"x"), ("1.png", b"x")]))
    header = content[1024:1536]
    header[124:136] = b"\xff" * 8 + (-1536 % 2**32).to_bytes(4, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content[1024:1536] = header
    assert readable(write(bytes(content)), salvage=True) == (["0"], True)


def test_what_is_no_tar_at_all_holds_nothing(write: Callable[[bytes], Path]) -> None:
    assert readable(write(b"<html>" * 1000), salvage=True)[0] == []
    with pytest.raises(DeliveryError, match="fetch it again"):
        list(read_members(write(b"<html>" * 1000), {"txt"}, salvage=False))
