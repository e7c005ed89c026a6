"""Reads one tar of pairs, NNNNN.tar, held against the table and the statistics that may lie beside it.

Every pair that was promised or found leaves as a `Pair` or as a `Fault`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from clipcov_assets.ingest.delivery import (
    Fault,
    Pair,
    Place,
    Reason,
    ShardContents,
    content_uid,
    files_fingerprint,
    printable,
)
from clipcov_assets.ingest.img2dataset_promise import Promise, read_promise, statistics_of, table_of
from clipcov_assets.ingest.pair_parts import (
    RejectedPartError,
    check_caption,
    check_image,
    read_caption,
    read_metadata,
)
from clipcov_assets.ingest.tar_shard import IMAGE_SUFFIXES, Entry, TarHeaders, read_content

_PART_OF_SUFFIX = dict.fromkeys(IMAGE_SUFFIXES, "image") | {"txt": "caption", "json": "metadata"}
_REASON_OF_PART = {
    "image": Reason.IMAGE_MISSING,
    "caption": Reason.CAPTION_MISSING,
    "metadata": Reason.METADATA_INVALID,
}

Parts = dict[str, Entry]  # "image", "caption", "metadata" -> where its bytes are


@dataclass(frozen=True)
class TarOfPairs:
    """A tar with an image, a txt and perhaps a json for every key.

    Attributes:
        path: Of the tar.
        caption: The suffix of the member that holds the caption: "txt" or "json".
    """

    path: Path
    caption: str = "txt"

    @property
    def name(self) -> str:
        """The tar's stem, printable."""
        return printable(self.path.stem)

    @property
    def size(self) -> int:
        """Bytes of the tar, 0 if it is gone."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def fingerprint(self) -> str:
        """Digest of tar, table and statistics, and of where captions come from."""
        return files_fingerprint([self.path, table_of(self.path), statistics_of(self.path)], self.caption)

    def read(self) -> ShardContents:
        """Read all headers of the tar; the pairs are read and judged as they are asked for."""
        tar = _index(self.path)
        promise = read_promise(self.path, key_width=max(map(len, tar.occurrences), default=0))
        keys = tar.occurrences.keys() | promise.uids.keys()
        n_named = sum(max(len(tar.occurrences.get(key, ())), len(promise.uids.get(key, ()))) for key in keys)
        promised = max(n_named, promise.successes)
        remarks = [*tar.remarks, *promise.remarks]
        outcomes = _Judge(self.path, self.caption, tar, promise).outcomes(promised - n_named, remarks)
        return ShardContents(promised, outcomes, remarks)


@dataclass(frozen=True)
class _Tar:
    """Where everything in a tar is: for every key its occurrences in order."""

    occurrences: Mapping[str, list[Parts]]
    damage: str
    remarks: tuple[str, ...]


def _index(path: Path) -> _Tar:
    occurrences: dict[str, list[Parts]] = defaultdict(list)
    n_others, first_other = 0, ""
    try:
        with path.open("rb") as file:
            headers = TarHeaders(file)
            for entry in headers:
                part = _PART_OF_SUFFIX.get(entry.suffix)
                if part is None:
                    n_others, first_other = n_others + 1, first_other or printable(f"{entry.key}.{entry.suffix}")
                    continue
                uses = occurrences[entry.key]
                if not uses or part in uses[-1]:
                    uses.append({})
                uses[-1][part] = entry
            damage = headers.damage
    except OSError as error:
        damage = f"it cannot be read: {error.strerror}"
    remarks = []
    if damage:
        remarks.append(f"{printable(path.name)}: {damage}; what could be found is read, fetch it again for the rest")
    if n_others:
        remarks.append(f"{printable(path.name)}: {n_others} members belong to no pair; first: {first_other}")
    return _Tar(dict(occurrences), damage, tuple(remarks))


@dataclass
class _Tallies:
    """What is true of several pairs, with how many and the first of them."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, key: str) -> None:
        self.counts[what] += 1
        self.first.setdefault(what, printable(key))

    def remarks(self) -> list[str]:
        return [f"{count} {what}; first: {self.first[what]}" for what, count in self.counts.items()]


class _Judge:
    """Turns what a tar holds and lacks into pairs and faults, one at a time."""

    def __init__(self, path: Path, caption: str, tar: _Tar, promise: Promise) -> None:
        self._path = path
        self._file_name = printable(path.name)
        self._caption_suffix = caption
        self._tar = tar
        self._promise = promise
        self._tallies = _Tallies()

    def outcomes(self, n_unnamed: int, remarks: list[str]) -> Iterator[Pair | Fault]:
        """Yield what the tar holds, what it lacks, and at the end add to the remarks."""
        if self._tar.occurrences:
            with self._path.open("rb") as file:
                for key, occurrences in self._tar.occurrences.items():
                    yield from self._occurrences(file, key, occurrences)
        for key, uids in self._promise.uids.items():
            for uid in uids[len(self._tar.occurrences.get(key, ())) :]:
                yield self._lost(Place(self._file_name, printable(key)), uid)
        for _ in range(n_unnamed):
            yield self._lost(Place(self._file_name), None)
        remarks += [f"{self._file_name}: {remark}" for remark in self._tallies.remarks()]

    def _lost(self, place: Place, uid: str | None) -> Fault:
        return Fault(place, uid, Reason.LOST_IN_TAR, self._tar.damage or "the tar reads to its end without it")

    def _occurrences(self, file: BinaryIO, key: str, occurrences: list[Parts]) -> Iterator[Pair | Fault]:
        # Occurrences that lack different parts may have swapped them: then none can be trusted.
        mixed = any(parts.keys() != occurrences[0].keys() for parts in occurrences)
        uids = self._promise.uids.get(key, [])
        for number, parts in enumerate(occurrences):
            duplicate = f"occurrence {number + 1} of {len(occurrences)}" if number or mixed else ""
            yield self._judged(file, key, parts, uids[number] if number < len(uids) else None, duplicate)

    def _judged(self, file: BinaryIO, key: str, parts: Parts, uid: str | None, duplicate: str) -> Pair | Fault:
        place = Place(self._file_name, printable(key))
        try:
            fields = read_metadata(self._content(file, parts, "metadata"))
            own_uid = fields.get("uid") or None
            if own_uid and uid and own_uid != uid:
                self._tallies.add("uids differ between json and table, json's is kept", key)
            uid = own_uid or uid
            if duplicate:
                raise RejectedPartError(Reason.DUPLICATE_KEY, duplicate)
            image = check_image(self._content(file, parts, "image"))
            caption = self._caption(file, key, parts, fields.get("caption"))
        except RejectedPartError as rejected:
            missing = rejected.reason in (Reason.IMAGE_MISSING, Reason.CAPTION_MISSING)
            damage = f"; the tar is damaged: {self._tar.damage}" if missing and self._tar.damage else ""
            return Fault(place, uid, rejected.reason, rejected.detail + damage)
        if uid is None:
            self._tallies.add("uids are made of image and caption, there is none in json or table", key)
            uid = content_uid(image, caption)
        return Pair(place, uid, caption, image)

    def _caption(self, file: BinaryIO, key: str, parts: Parts, in_json: object) -> str:
        if self._caption_suffix == "json":
            if in_json is not None and not isinstance(in_json, str):
                raise RejectedPartError(Reason.METADATA_INVALID, "caption is not text")
            return check_caption(in_json)
        if "caption" not in parts and isinstance(in_json, str):
            detail = 'no txt, but a caption in json: take it with caption = "json" in delivery.toml'
            raise RejectedPartError(Reason.CAPTION_MISSING, detail)
        caption = read_caption(self._content(file, parts, "caption"))
        if isinstance(in_json, str) and in_json.strip() != caption.strip():
            self._tallies.add("captions differ between txt and json, txt is kept", key)
        return caption

    def _content(self, file: BinaryIO, parts: Parts, part: str) -> bytes | None:
        if part not in parts:
            return None
        entry = parts[part]
        try:
            if entry.flaw:
                raise OSError(entry.flaw)
            return read_content(file, entry)
        except OSError as error:
            raise RejectedPartError(_REASON_OF_PART[part], f"{entry.suffix}: {error}") from error
