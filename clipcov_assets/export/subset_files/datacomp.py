"""DataComp's subset file: a sorted array of 128-bit uids, each as its upper and its lower 64 bits.

The benchmark's resharder loads it with numpy, asks for the dtype "u8,u8", and finds each uid by bisection.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipcov_assets.export.subset_files.export_format import (
    ChosenPairs,
    ExportError,
    ExportFormat,
    ExportOptions,
    Watch,
)
from resources.export_shelf import UnfinishedExport

NAME = "uids.npy"
UIDS_AT_ONCE = 65_536


def sorted_uids(uid: pa.ChunkedArray) -> np.ndarray:
    """Return (n,) of dtype "u8,u8", ascending; each uid is 32 hexadecimal digits.

    Raises:
        ExportError: Two uids are the same number.
    """
    pieces = (uid.slice(start, UIDS_AT_ONCE).to_pylist() for start in range(0, len(uid), UIDS_AT_ONCE))
    digits = b"".join(bytes.fromhex("".join(piece)) for piece in pieces)
    numbers = np.frombuffer(digits, ">u8").reshape(-1, 2).astype(np.uint64)
    numbers = numbers[np.lexsort((numbers[:, 1], numbers[:, 0]))]
    twice = np.flatnonzero((numbers[1:] == numbers[:-1]).all(axis=1))
    if twice.size:
        upper, lower = numbers[twice[0]].tolist()
        raise ExportError(
            f"uid {upper:016x}{lower:016x} is there in capital and in small letters, which are one number in "
            "DataComp's format: export the subset as parquet or keys"
        )
    return numbers.view(np.dtype("u8,u8")).reshape(-1)


def _obstacle(pairs: ChosenPairs) -> str | None:
    other = pc.invert(pc.match_substring_regex(pairs.rows["uid"], r"\A[0-9a-fA-F]{32}\z"))
    count = pc.sum(other).as_py()
    if not count:
        return None
    first = pairs.rows["uid"].filter(other)[0].as_py()
    return (
        f"DataComp's format holds uids of 32 hexadecimal digits, and {count} of {len(pairs.rows)} are not, first "
        f"{first!r}: export the subset as parquet, keys or webdataset"
    )


def _write(pairs: ChosenPairs, export: UnfinishedExport, *, options: ExportOptions, watch: Watch) -> None:
    if NAME not in export:
        with export.piece(NAME) as piece, piece.open(NAME) as file:
            np.save(file, sorted_uids(pairs.rows["uid"]), allow_pickle=False)


DATACOMP = ExportFormat(
    name="datacomp",
    summary="a sorted u8,u8 array of uids for DataComp's resharder",
    version=1,
    write=_write,
    obstacle=_obstacle,
)
