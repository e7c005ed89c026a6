"""A model and evaluation sets in, one prediction an image out: workers read and decode while the model computes.

All sets are one stream of images, so that workers start once and the model never waits for the next set. Models
compute in float32 whatever `compute.precision` says: a prediction is that of the weights.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from clipcov_assets.core.clip_model import ClipModel
from clipcov_assets.core.encoding import Preparation, batches, image_rows, preparation, text_rows
from clipcov_assets.core.evaluation import Classification, Predictions, Retrieval
from clipcov_assets.core.prompts import Prompts
from clipcov_assets.core.zero_shot import class_embeddings
from clipcov_assets.ingest.evaluation_set import EvaluationSet
from clipcov_assets.jobs.embed import PAIRS_WORTH_WORKERS, PairEncoder, counted, in_threads, prepare_items, units_of
from clipcov_assets.progress import Progress
from clipcov_assets.tables import PREDICTIONS
from resources.compute import Compute
from resources.head_cache import HeadCache

if TYPE_CHECKING:
    from torch import Tensor

HEAD_VERSION = "1"  # class rows that another version of this code has made are made again
Report = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class SetImages:
    """The images of evaluation sets by number of the set and places in it, as a model takes them."""

    sets: tuple[EvaluationSet, ...]
    preparation: Preparation

    def __getitem__(self, item: tuple[int, np.ndarray]) -> "Tensor":
        """Return pixels (b, 3, h, w) uint8.

        Raises:
            ValueError: An image cannot be decoded; the message names its set and key.
        """
        number, places = item
        one = self.sets[number]
        return self.preparation.pixels((_place(one, place), one.image(place)) for place in places.tolist())


def predictions_of(
    clip: ClipModel,
    sets: Sequence[EvaluationSet],
    *,
    seed: int,
    compute: Compute,
    heads: HeadCache,
    report: Report,
) -> pa.Table:
    """Evaluate a model on sets, and return the predictions of all of them in one table; see `predictions_by_set`."""
    return pa.concat_tables(predictions_by_set(clip, sets, seed=seed, compute=compute, heads=heads, report=report))


def predictions_by_set(
    clip: ClipModel,
    sets: Sequence[EvaluationSet],
    *,
    seed: int,
    compute: Compute,
    heads: HeadCache,
    report: Report,
) -> Iterator[pa.Table]:
    """Evaluate a model on classification and retrieval sets, and yield the predictions of one after the other.

    Args:
        clip: The model.
        sets: In any order.
        seed: Of the model's training, for the column of that name.
        compute: Device, batch size and workers.
        heads: Class rows of models that were evaluated before.
        report: Takes a sentence on the progress now and then.

    Returns:
        The columns PREDICTIONS of each set, sorted by its name, as in the set; of a retrieval set the images come
        before the captions.

    Raises:
        ValueError: No set, one without images, a label without a class name, an image without a caption, a blank
            caption, or an image that cannot be decoded; the message names the set and the key.
        FloatingPointError: The model's class rows are not finite.
    """
    ordered = tuple(sorted(sets, key=lambda one: one.name))
    if not ordered:
        raise ValueError("no evaluation set to evaluate on; give at least one")
    tasks = [_task(one) for one in ordered]
    encoder = PairEncoder.on(compute, clip)
    texts = [
        _captions(encoder, one, report) if one.prompts is None else head(encoder, one.prompts, heads, report)
        for one in ordered
    ]
    units = [list(units_of(encoder, np.arange(len(one)))) for one in ordered]
    images = _images(encoder, ordered, units, compute.resolved_workers(), report)
    for one, task, text, own in zip(ordered, tasks, texts, units, strict=True):
        found = task.predictions(islice(images, len(own)), text)
        yield pa.concat_tables(_table(part, one.name, seed) for part in found)


def head(encoder: PairEncoder, prompts: Prompts, heads: HeadCache, report: Report) -> np.ndarray:
    """Return the class rows (K, d) float32 of a model; those that it was asked for before come from the cache.

    Each name is embedded on its own: its row does not depend on the names around it, to the last bit, and sets with
    the same templates share it.

    Raises:
        FloatingPointError: A row is not finite, so the weights are not usable.
    """

    def embed(class_names: Sequence[str]) -> np.ndarray:
        progress = Progress(len(class_names), "class names", report)
        alone = (Prompts((name,), prompts.templates) for name in class_names)
        rows = in_threads(
            lambda one: class_embeddings(encoder.clip, one, device=encoder.device), alone, threads=encoder.threads
        )
        return np.concatenate(list(counted(rows, progress, len)))

    kind = encoder.device.partition(":")[0]
    made_with = f"{encoder.clip.architecture} {encoder.sha256} {kind} head {HEAD_VERSION}"
    return heads.rows(made_with, prompts.templates, prompts.class_names, embed)


def _task(one: EvaluationSet) -> Classification | Retrieval:
    """What is asked of a set."""
    if one.prompts is None or one.labels is None:
        return Retrieval(one.name, one.keys, np.array([len(texts) for texts in one.captions or ()], np.int64))
    return Classification(one.name, one.keys, one.labels, len(one.prompts.class_names))


def _captions(encoder: PairEncoder, one: EvaluationSet, report: Report) -> np.ndarray:
    """Unit rows (m, d) float32 of all captions, those of the first image first."""
    named = [(_place(one, place), caption) for place, captions in enumerate(one.captions or ()) for caption in captions]
    prepare = preparation(encoder.clip)
    units = map(prepare.tokens, batches(named, encoder.batch_size))
    rows = in_threads(
        lambda tokens: text_rows(encoder.clip, tokens, device=encoder.device), units, threads=encoder.threads
    )
    return np.concatenate([part.cpu().numpy() for part in counted(rows, Progress(len(named), "captions", report), len)])


def _images(
    encoder: PairEncoder,
    sets: tuple[EvaluationSet, ...],
    units: Sequence[Sequence[Sequence[np.ndarray]]],
    workers: int,
    report: Report,
) -> Iterator[np.ndarray]:
    """Yield unit rows (b, d) float32 of the images of each unit, set after set."""
    import torch

    def embed(parts: "Sequence[Tensor]") -> "Tensor":
        pixels = torch.cat([part.to(encoder.device, non_blocking=True) for part in parts])
        return image_rows(encoder.clip, pixels, device=encoder.device)

    total = sum(map(len, sets))
    items = [(number, places) for number, own in enumerate(units) for unit in own for places in unit]
    prepared = prepare_items(
        SetImages(sets, preparation(encoder.clip)),
        items,
        workers=workers if total >= PAIRS_WORTH_WORKERS else 0,
        pin=encoder.device != "cpu",
    )
    parts = ([next(prepared) for _ in unit] for own in units for unit in own)
    embedded = in_threads(embed, parts, threads=encoder.threads)
    for rows in counted(embedded, Progress(total, "images", report), len):
        yield rows.cpu().numpy()


def _table(found: Predictions, name: str, seed: int) -> pa.Table:
    n = len(found.key)
    numbers = {
        column: pa.array(getattr(found, column), pa.int32()) for column in ("label", "predicted", "rank_of_label")
    }
    same = {"evaluation_set": name, "seed": seed, "task": found.task}
    repeated = {
        column: pa.repeat(pa.scalar(value, PREDICTIONS.field(column).type), n) for column, value in same.items()
    }
    return pa.table({**repeated, "key": list(found.key), **numbers}, schema=PREDICTIONS)


def _place(one: EvaluationSet, place: int) -> str:
    return f"{one.keys[place]} of evaluation set {one.name!r}"
