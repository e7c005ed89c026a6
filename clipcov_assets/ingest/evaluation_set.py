"""Reads evaluation sets in CLIP_benchmark's webdataset layout.

<directory>/<set>/ holds classnames.txt, zeroshot_classification_templates.txt, test/nshards.txt and
test/0.tar, test/1.tar, ... with an image and a .cls (the number of its class) for every key.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from clipcov_assets.core.prompts import Prompts
from clipcov_assets.ingest.delivery import DeliveryError
from clipcov_assets.ingest.tar_shard import IMAGE_SUFFIXES, Member, read_members

CLASS_NAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"


@dataclass(frozen=True)
class EvaluationSet:
    """Labelled images and the prompts that they are classified with.

    Attributes:
        name: The name of its folder.
        prompts: One class name a label.
        shards: The tars, in the order of their numbers.
        sha256: Of the prompts and of every byte of the shards.
    """

    name: str
    prompts: Prompts
    shards: tuple[Path, ...]
    sha256: str

    def images(self) -> Iterator[tuple[str, bytes, int]]:
        """Yield key ("shard/key", unique in the set), encoded image and label of every image.

        Raises:
            DeliveryError: A damaged shard, an image without a label or the reverse, a label out of range.
        """
        for shard in self.shards:
            members = read_members(shard, IMAGE_SUFFIXES | {"cls"})
            for key, parts in groupby(members, key=lambda member: member.key):
                place = f"{shard.stem}/{ascii(key)[1:-1]}"
                image, label = self._image_and_label(list(parts), place=place)
                yield place, image, label

    def _image_and_label(self, parts: list[Member], *, place: str) -> tuple[bytes, int]:
        labels = [part.content for part in parts if part.suffix == "cls"]
        images = [part.content for part in parts if part.suffix != "cls"]
        if len(labels) != 1 or len(images) != 1:
            raise DeliveryError(
                f"evaluation set {self.name!r}, {place}: {len(images)} images and {len(labels)} labels; "
                "every key needs one of each, side by side in the tar"
            )
        n_classes = len(self.prompts.class_names)
        text = labels[0].strip()
        if not text.isdigit() or len(text) > 9 or int(text) >= n_classes:
            raise DeliveryError(
                f"evaluation set {self.name!r}, {place}: label {text[:20]!r} is not in 0..{n_classes - 1}; "
                f"correct {CLASS_NAMES} or the .cls file"
            )
        return images[0], int(text)


def find_evaluation_sets(directory: Path) -> tuple[EvaluationSet, ...]:
    """Return every evaluation set of a folder, sorted by name, each read through once.

    Raises:
        DeliveryError: No set, a missing or empty file, a wrong number of shards, or what `images` raises.
    """
    folders = sorted(path for path in directory.glob("*") if path.is_dir() and path.name[0] != ".")
    if not folders:
        raise DeliveryError(
            f"no evaluation set in {directory}; put folders there in CLIP_benchmark's webdataset layout "
            f"({CLASS_NAMES}, {TEMPLATES}, test/nshards.txt, test/0.tar, ...)"
        )
    return tuple(_read_evaluation_set(folder) for folder in folders)


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


def _read_evaluation_set(folder: Path) -> EvaluationSet:
    prompts = read_prompts(folder / CLASS_NAMES, folder / TEMPLATES)
    shards = _shards(folder / "test")
    digest = hashlib.sha256(prompts.sha256.encode())
    for shard in shards:
        with shard.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    evaluation_set = EvaluationSet(folder.name, prompts, shards, digest.hexdigest())
    keys = [key for key, _, _ in evaluation_set.images()]
    if not keys:
        raise DeliveryError(f"evaluation set {folder.name!r} holds no image; fetch {folder / 'test'} again")
    if len(set(keys)) < len(keys):
        raise DeliveryError(f"evaluation set {folder.name!r} uses a key twice; give every image its own key")
    return evaluation_set


def _shards(folder: Path) -> tuple[Path, ...]:
    lines = _lines(folder / "nshards.txt")
    found = {path.name for path in folder.glob("*.tar")}
    if lines != (str(len(found)),) or found != {f"{number}.tar" for number in range(len(found))}:
        raise DeliveryError(
            f"{folder / 'nshards.txt'} says {lines[0]!r} shards, but {folder} holds {len(found)} .tar; "
            "it must hold 0.tar, 1.tar, ... up to that number: fetch what is missing or correct the number"
        )
    return tuple(folder / f"{number}.tar" for number in range(len(found)))


def _lines(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8").rstrip()
    except (OSError, UnicodeDecodeError) as error:
        raise DeliveryError(f"{path} cannot be read ({error}); it must be UTF-8, one entry a line") from error
    if not text:
        raise DeliveryError(f"{path} is empty; write one entry a line")
    return tuple(line.strip() for line in text.split("\n"))
