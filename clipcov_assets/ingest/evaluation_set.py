"""Reads evaluation sets in CLIP_benchmark's webdataset layout.

<directory>/<set>/ holds test/nshards.txt and test/0.tar, test/1.tar, ... with an image for every key. In a set for
classification a .cls beside it is the number of its class, and classnames.txt and
zeroshot_classification_templates.txt are the prompts. In a set for retrieval a .txt beside it has one caption a line,
and dataset_type.txt says "retrieval".
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcov_assets.core.prompts import Prompts
from clipcov_assets.core.suite import KnownSet, known_set, slice_classes
from clipcov_assets.ingest.delivery import DeliveryError
from clipcov_assets.ingest.shard_digests import ShardDigests, file_state
from clipcov_assets.ingest.tar_shard import IMAGE_SUFFIXES, DamagedTarError, Entry, TarHeaders, read_content

CLASS_NAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
DATASET_TYPE = "dataset_type.txt"
CLASSES_OF_IMAGENET = 1000


@dataclass(frozen=True, eq=False)
class ImagePlaces:
    """Where the encoded images of a set lie.

    Attributes:
        shards: The tars, in the order of their numbers.
        states: Size and time of each when it was read.
        shard: Number of the tar of each image (n,).
        offset: First byte of each image in its tar (n,).
        size: Bytes of each image (n,).
    """

    shards: tuple[Path, ...]
    states: tuple[tuple[int, int], ...]
    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]

    def read(self, place: int) -> bytes:
        """Return an encoded image.

        Raises:
            OSError: The tar is gone, or has changed since it was read.
        """
        number, offset, size = int(self.shard[place]), int(self.offset[place]), int(self.size[place])
        # No handle is kept: opening costs microseconds, and processes and threads have nothing to share.
        with self.shards[number].open("rb", buffering=0) as file:
            content = os.pread(file.fileno(), size, offset)
            if file_state(os.fstat(file.fileno())) != self.states[number] or len(content) != size:
                raise OSError(f"{self.shards[number]} has changed")
            return content


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Images with what they are scored against: labels and prompts, or captions.

    It is small and can be sent to other processes; the images stay in their shards.

    Attributes:
        name: Of its folder, such as `food101` or `vtab/dtd`.
        known: What the field knows it as; None for a set of one's own.
        prompts: One class name a label; None where images and captions are retrieved.
        keys: "shard/key" of each image, in order; unique.
        labels: Class of each image (n,); None for retrieval.
        captions: Captions of each image, at least one; None for classification.
        sha256: Of the prompts and of every byte of the shards.
        places: Where the images lie.
    """

    name: str
    known: KnownSet | None
    prompts: Prompts | None
    keys: tuple[str, ...]
    labels: NDArray[np.int64] | None
    captions: tuple[tuple[str, ...], ...] | None
    sha256: str
    places: ImagePlaces

    def __len__(self) -> int:
        return len(self.keys)

    def image(self, place: int) -> bytes:
        """Return an image as it lies in its shard; it may be called in several threads and processes.

        Raises:
            DeliveryError: The shard is gone, or has changed since the set was read.
        """
        try:
            return self.places.read(place)
        except OSError as error:
            raise DeliveryError(
                f"evaluation set {self.name!r}, {self.keys[place]}: {error}; leave the sets as they are while models "
                "are scored, and run again"
            ) from error

    @property
    def is_retrieval(self) -> bool:
        """Whether images and captions are to find each other."""
        return self.prompts is None

    @property
    def other_prompts(self) -> bool:
        """Whether it is a known set whose class names or templates are not the published ones."""
        if self.prompts is None or self.known is None or not self.known.prompts_sha256:
            return False
        return self.prompts.sha256 not in self.known.prompts_sha256


def find_evaluation_sets(directory: Path, digests: Path | None = None) -> tuple[EvaluationSet, ...]:
    """Return every evaluation set of a folder, sorted by name; those of a folder in it are `folder/set`.

    Args:
        directory: Holds one folder a set.
        digests: A file that keeps the hashes of the shards, so that a shard is read through once for as long as its
            size and time stay the same; None to read them through each time.

    Raises:
        DeliveryError: No set, two of the same known set, a missing, empty or damaged file, a wrong number of shards,
            an image without its label or captions or the reverse, a label out of range, a key used twice.
    """
    folders = {folder.relative_to(directory).as_posix(): folder.absolute() for folder in _set_folders(directory)}
    if not folders:
        raise DeliveryError(
            f"no evaluation set in {directory}; put folders there in CLIP_benchmark's webdataset layout "
            f"({CLASS_NAMES}, {TEMPLATES}, test/nshards.txt, test/0.tar, ...)"
        )
    _check_that_known_sets_come_once(folders)
    shard_digests = ShardDigests(digests)
    return tuple(_read_evaluation_set(name, folder, shard_digests) for name, folder in sorted(folders.items()))


def read_prompts(class_names_file: Path, templates_file: Path) -> Prompts:
    """Read class names and templates, one a line; the line number of a class is its label.

    Raises:
        DeliveryError: A file is missing, empty or not UTF-8, a class has no name, a template has no `{c}`.
    """
    class_names, templates = _lines(class_names_file), _lines(templates_file)
    try:
        return Prompts(class_names=class_names, templates=templates)
    except ValueError as error:
        raise DeliveryError(f"{class_names_file} and {templates_file}: {error}") from error


def _set_folders(directory: Path) -> Iterator[Path]:
    for folder in _folders(directory):
        inner = [] if _looks_like_set(folder) else [one for one in _folders(folder) if _looks_like_set(one)]
        # A folder that is nothing is read as a set, which says what is missing.
        yield from inner or [folder]


def _folders(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("*") if path.is_dir() and path.name[0] != ".")


def _looks_like_set(folder: Path) -> bool:
    return any((folder / name).exists() for name in (CLASS_NAMES, TEMPLATES, DATASET_TYPE, "test"))


def _check_that_known_sets_come_once(names: Iterable[str]) -> None:
    name_of: dict[str, str] = {}
    for name in names:
        known = known_set(name)
        if known and name_of.setdefault(known.name, name) != name:
            raise DeliveryError(
                f"evaluation sets {name_of[known.name]!r} and {name!r} are both {known.title}: move one of them away, "
                "averages count a set once"
            )


def _read_evaluation_set(name: str, folder: Path, digests: ShardDigests) -> EvaluationSet:
    known = known_set(name)
    prompts = None if _is_retrieval(folder) else read_prompts(folder / CLASS_NAMES, folder / TEMPLATES)
    shards = _shards(folder / "test")
    states = tuple(file_state(shard.stat()) for shard in shards)
    samples = [sample for shard in shards for sample in _samples(name, shard, "cls" if prompts else "txt")]
    keys = tuple(sample.key for sample in samples)
    if not keys:
        raise DeliveryError(f"evaluation set {name!r} holds no image; fetch {folder / 'test'} again")
    if len(set(keys)) < len(keys):
        raise DeliveryError(f"evaluation set {name!r} uses a key twice; give every image its own key")
    labels, captions = None, None
    if prompts is None:
        captions = tuple(_captions(name, sample) for sample in samples)
    else:
        labels = np.array([_label(name, sample, len(prompts.class_names)) for sample in samples], np.int64)
        if known and known.imagenet_slice and len(prompts.class_names) == CLASSES_OF_IMAGENET:
            prompts, labels = _sliced(name, known.imagenet_slice, prompts, labels, keys)
    digest = hashlib.sha256((prompts.sha256 if prompts else "retrieval").encode())
    for shard in shards:
        digest.update(digests.of(shard))
    if states != tuple(file_state(shard.stat()) for shard in shards):
        raise DeliveryError(f"evaluation set {name!r} has changed while it was read; run again once it is complete")
    places = ImagePlaces(
        shards,
        states,
        shard=np.array([sample.shard for sample in samples], np.int32),
        offset=np.array([sample.image.offset for sample in samples], np.int64),
        size=np.array([sample.image.size for sample in samples], np.int64),
    )
    return EvaluationSet(name, known, prompts, keys, labels, captions, digest.hexdigest(), places)


def _is_retrieval(folder: Path) -> bool:
    path = folder / DATASET_TYPE
    if not path.exists():
        return False
    kind = _lines(path)[0].lower()
    if kind not in ("retrieval", "classification"):
        raise DeliveryError(
            f"{path} says {kind[:20]!r}; only sets for classification and retrieval are scored: move the set away"
        )
    return kind == "retrieval"


def _shards(folder: Path) -> tuple[Path, ...]:
    lines = _lines(folder / "nshards.txt")
    found = {path.name for path in folder.glob("*.tar") if path.is_file()}
    if lines != (str(len(found)),) or found != {f"{number}.tar" for number in range(len(found))}:
        raise DeliveryError(
            f"{folder / 'nshards.txt'} says {lines[0]!r} shards, but {folder} holds {len(found)} .tar; "
            "it must hold 0.tar, 1.tar, ... up to that number: fetch what is missing or correct the number"
        )
    return tuple(folder / f"{number}.tar" for number in range(len(found)))


class _Sample(NamedTuple):
    """An image, and the bytes of its label or captions."""

    key: str
    shard: int
    image: Entry
    text: bytes


def _samples(name: str, shard: Path, suffix: str) -> Iterator[_Sample]:
    """Yield the images of a shard with the member of that suffix; images are not read."""
    number, wanted = int(shard.stem), IMAGE_SUFFIXES | {suffix}
    try:
        with shard.open("rb") as file:
            headers = TarHeaders(file)
            entries = [entry for entry in headers if entry.suffix in wanted and not entry.flaw]
            if headers.damage:
                raise DamagedTarError(f"{shard} is damaged or cut short ({headers.damage}); fetch it again")
            for key, group in groupby(entries, key=lambda entry: entry.key):
                parts = list(group)
                place = f"{number}/{ascii(key)[1:-1]}"
                texts = [part for part in parts if part.suffix == suffix]
                images = [part for part in parts if part.suffix != suffix]
                if len(texts) != 1 or len(images) != 1:
                    raise DeliveryError(
                        f"evaluation set {name!r}, {place}: {len(images)} images and {len(texts)} .{suffix}; "
                        "every key needs one of each, side by side in the tar"
                    )
                yield _Sample(place, number, images[0], read_content(file, texts[0]))
    except OSError as error:
        raise DeliveryError(f"{shard} cannot be read ({error}); fetch it again") from error


def _label(name: str, sample: _Sample, n_classes: int) -> int:
    text = sample.text.strip()
    if not text.isdigit() or len(text) > 9 or int(text) >= n_classes:
        raise DeliveryError(
            f"evaluation set {name!r}, {sample.key}: label {text[:20]!r} is not in 0..{n_classes - 1}; "
            f"correct {CLASS_NAMES} or the .cls file"
        )
    return int(text)


def _captions(name: str, sample: _Sample) -> tuple[str, ...]:
    try:
        captions = tuple(sample.text.decode().splitlines())
    except UnicodeDecodeError as error:
        raise DeliveryError(f"evaluation set {name!r}, {sample.key}: captions are not UTF-8 ({error})") from error
    if not captions or not all(caption.strip() for caption in captions):
        raise DeliveryError(
            f"evaluation set {name!r}, {sample.key}: a caption is blank, or there is none; write one a line"
        )
    return captions


def _sliced(
    name: str, slice_name: str, prompts: Prompts, labels: NDArray[np.int64], keys: tuple[str, ...]
) -> tuple[Prompts, NDArray[np.int64]]:
    """Cut ImageNet's 1,000 classes to those of a slice: the others are no answers to choose from."""
    classes = slice_classes(slice_name)
    inside = np.isin(labels, classes)
    if not inside.all():
        place = int(np.argmin(inside))
        raise DeliveryError(
            f"evaluation set {name!r}, {keys[place]}: class {labels[place]} ({prompts.class_names[labels[place]]!r}) "
            f"is not among its {len(classes)} classes of ImageNet; remove the image or correct its label"
        )
    names = tuple(prompts.class_names[label] for label in classes)
    return Prompts(names, prompts.templates), np.searchsorted(classes, labels)


def _lines(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8").rstrip()
    except (OSError, UnicodeDecodeError) as error:
        raise DeliveryError(f"{path} cannot be read ({error}); it must be UTF-8, one entry a line") from error
    if not text:
        raise DeliveryError(f"{path} is empty; write one entry a line")
    return tuple(line.strip() for line in text.split("\n"))
