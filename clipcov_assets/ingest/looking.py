"""Looks at a delivery's folder by names: its files near ones first, without links, rubbish and hidden ones."""

import os
import re
import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".parquet"})
NAMES_LOOKED_AT = 200_000  # of a folder whose format is to be found: a fifth of a second

_RUBBISH = frozenset({"Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir"})
_COPIED_SUFFIXES = (".part", ".partial", ".filepart", ".tmp", ".crdownload", ".unfinished", ".aria2")
_COPIED_BY_RSYNC = re.compile(r"\..+\.\w+\.[A-Za-z0-9]{6}")  # .00000.tar.Qh3xZ1


def walk(directory: Path) -> Iterator["os.DirEntry[str]"]:
    """Yield the entries of a folder and of its folders, near ones first; a link to a folder is not entered.

    Hidden files and what operating systems leave behind are passed over.

    Raises:
        OSError: A folder cannot be read.
    """
    for entry in _all_entries(directory):
        if not _is_passed_over(entry.name):
            yield entry


def walk_files(directory: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    """Yield all files with one of `suffixes` (lower case, with the dot), near ones first.

    A link counts where it leads to a file inside the folder; `linked_out` finds the others.
    """
    return _files(directory, walk(directory), suffixes)


def first_files(directory: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    """Yield the files that `walk_files` yields among the first `NAMES_LOOKED_AT` entries."""
    return _files(directory, islice(walk(directory), NAMES_LOOKED_AT), suffixes)


def suffix_of(name: str) -> str:
    """Return the end of a name from its last dot on, in lower case; empty without a dot."""
    _, dot, suffix = name.rpartition(".")
    return (dot + suffix).lower() if dot else ""


def copy_in_progress(directory: Path) -> Path | None:
    """Return what looks like a file or folder still being copied, among the first names looked at."""
    for entry in islice(_all_entries(directory), NAMES_LOOKED_AT):
        if is_copied_now(entry.name):
            return Path(entry.path)
    return None


def is_copied_now(name: str) -> bool:
    """Whether the name of a file or folder looks like a copy in progress."""
    return name == "_temporary" or name.endswith(_COPIED_SUFFIXES) or _COPIED_BY_RSYNC.fullmatch(name) is not None


def linked_out(directory: Path, suffixes: frozenset[str]) -> Path | None:
    """Return a link that leads to nothing inside the folder: to a folder, or by the name of a file to be read."""
    for entry in islice(walk(directory), NAMES_LOOKED_AT):
        if not entry.is_symlink() or _is_inside(Path(entry.path), directory):
            continue
        if suffix_of(entry.name) in suffixes or entry.is_dir():
            return Path(entry.path)
    return None


def last_change(directory: Path) -> float:
    """Return when a folder, or a large file in it, changed last, in seconds since the epoch.

    Of images and captions only the folders are asked: a file that comes or goes changes its folder. The time of
    change is the file system's own, and not the time of modification, which a copy may bring along.
    """
    latest = directory.stat().st_ctime
    small = IMAGE_SUFFIXES | {".txt", ".json"}
    try:
        for entry in walk(directory):
            if suffix_of(entry.name) not in small:
                latest = max(latest, entry.stat(follow_symlinks=False).st_ctime)
    except FileNotFoundError:  # it has just gone
        return time.time()
    return latest


def _files(directory: Path, entries: Iterator["os.DirEntry[str]"], suffixes: frozenset[str]) -> Iterator[Path]:
    for entry in entries:
        if suffix_of(entry.name) in suffixes:
            path = Path(entry.path)
            if _is_inside(path, directory) if entry.is_symlink() else entry.is_file(follow_symlinks=False):
                yield path


def _is_inside(link: Path, directory: Path) -> bool:
    try:
        return link.resolve(strict=True).is_relative_to(directory.resolve())
    except (OSError, RuntimeError):  # leads nowhere, or in a circle
        return False


def _is_passed_over(name: str) -> bool:
    return name.startswith(".") or name in _RUBBISH


def _all_entries(directory: Path) -> Iterator["os.DirEntry[str]"]:
    folders = deque([str(directory)])
    while folders:
        with os.scandir(folders.popleft()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False) and not _is_passed_over(entry.name):
                    folders.append(entry.path)
                yield entry
