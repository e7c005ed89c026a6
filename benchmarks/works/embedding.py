"""Embedding: a crawl's pairs out of LanceDB in, its embeddings in LanceDB out, beside the bare model."""

import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image

from benchmarks.bare_model import BareModel, seconds_of
from benchmarks.measure import Benchmark, Floor, Line, Measurement, Work, in_words, scaled
from clipcov_assets.tables import RAW_PAIRS
from resources.clip_encoder import ClipEncoder
from resources.compute import Compute
from resources.lance_store import LanceStore
from resources.staging import Staging

# Imported where it is used: every benchmark loads this module, and torch would count into the memory of all.
if TYPE_CHECKING:
    from torch import Tensor

    from clipcov_assets.core.clip_model import ClipModel
    from clipcov_assets.jobs.embed import PairEncoder, StoredPairs

WORKERS = os.cpu_count() or 1
DISTINCT_IMAGES, ROWS_AT_ONCE = 500, 2_000
ITEM_PAIRS = 256
REPEATED, SECOND = 0.9, "a second crawl"
WORDS = "a the small large red blue old new dog cat house tree face hand sky water smiling of on with"


class Case(NamedTuple):
    """A crawl, the model that embeds it, and what is promised.

    Attributes:
        architecture: open_clip's name; random weights cost what others cost.
        pairs: Of the crawl.
        side: Of its images in pixels.
        format: Of its images.
        in_memory: Pairs that the bare model gets.
        bar: Share of the model's rate; where `decoding` counts, of 1 / (1 / model + 1 / decoding).
        decoding: Whether decoding takes time of its own: it shares the cores with a model that is quick.
    """

    architecture: str
    pairs: int
    side: int
    format: str
    in_memory: int
    bar: float
    decoding: bool


CASES = {
    "ViT-B/32": Case("ViT-B-32", 333, 256, "JPEG", 111, 0.95, False),
    "the demo's model": Case("demo", 40_000, 64, "WEBP", 8_192, 0.9, True),
}
SECOND_CRAWL = Case("demo", 10_000, 64, "WEBP", 0, 1 - REPEATED, False)


def pictures(side: int, kind: str) -> list[bytes]:
    """Return encoded images with large shapes and some grain."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(DISTINCT_IMAGES):
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).resize(
            (side, side), Image.Resampling.BICUBIC
        )
        grain = random.integers(-8, 9, (side, side, 3))
        stream = io.BytesIO()
        Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).save(stream, kind, quality=90)
        made.append(stream.getvalue())
    return made


def write_pairs(store: LanceStore, crawl: str, numbers: range, images: Sequence[bytes]) -> int:
    """Write raw pairs with these numbers, equal numbers with equal content; return the bytes of the images."""
    size = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal size
        for start in range(numbers.start, numbers.stop, ROWS_AT_ONCE):
            some = range(start, min(start + ROWS_AT_ONCE, numbers.stop))
            words = np.random.default_rng(start).choice(WORDS.split(), (len(some), 10)).tolist()
            found = [images[number % len(images)] for number in some]
            size += sum(map(len, found))
            columns = {
                "uid": [f"{number:032x}" for number in some],
                "caption": [" ".join(row) for row in words],
                "image": found,
                "bytes": [len(image) for image in found],
                "content": [number.to_bytes(16, "big") for number in some],
            }
            nothing = dict.fromkeys(("file", "key", "row"), [None] * len(some))
            yield pa.RecordBatch.from_pydict({**columns, **nothing}, schema=RAW_PAIRS)

    store.write("raw_pairs", crawl, pa.RecordBatchReader.from_batches(RAW_PAIRS, batches()))
    return size


def embed(encoder: "PairEncoder", pairs: "StoredPairs", store: LanceStore) -> dict[str, Any]:
    """Embed a crawl into a store as the asset does; return where its embeddings came from."""
    from clipcov_assets.jobs.embed_crawl import EmbedCrawl
    from clipcov_assets.jobs.job import Local, Voice

    with tempfile.TemporaryDirectory() as directory:
        job = EmbedCrawl(
            compute=Compute(workers=WORKERS),
            crawl=pairs.crawl,
            version=pairs.version,
            architecture=encoder.clip.architecture,
            weights="",
            proxy="",
            store=store,
            staging=Staging(directory=directory),
            encoder=ClipEncoder(directory=directory),
        )
        # The model is in memory already, and its embeddings go to a store of their own: neither is what is measured.
        vars(job).update(model=encoder, pairs=pairs)
        origin: dict[str, Any] = job.run(Local(Voice(_nothing, _nothing)))["origin"]
    return origin


def _nothing(words: str) -> None:
    pass


def stored_pairs(store: LanceStore, crawl: str, clip: "ClipModel") -> "StoredPairs":
    """Open a crawl."""
    from clipcov_assets.core.encoding import preparation
    from clipcov_assets.jobs.embed import StoredPairs

    return StoredPairs(store.uri, crawl, store.version("raw_pairs", crawl), preparation(clip))


def bare_model(encoder: "PairEncoder", pairs: "StoredPairs", count: int) -> BareModel:
    """The model on so many pairs of the crawl in memory."""
    from clipcov_assets.core.encoding import normalized

    def in_memory(places: np.ndarray) -> "tuple[Tensor, Tensor]":
        pixels, tokens = (one.to(encoder.device) for one in pairs[places])
        return normalized(encoder.clip, pixels), tokens

    batches = np.split(np.arange(count), range(encoder.batch_size, count, encoder.batch_size))
    model = encoder.clip.model
    return BareModel(encoder, list(map(in_memory, batches)), model.encode_image, model.encode_text)


def decoding_rate(pairs: "StoredPairs") -> float:
    """Pairs a second that workers on all cores read, decode and tokenise while no model computes; they start first."""
    from clipcov_assets.jobs.embed import prepare_items

    items = np.array_split(np.arange(len(pairs)), -(-len(pairs) // ITEM_PAIRS))
    return len(pairs) / seconds_of(lambda: _exhaust(prepare_items(pairs, items, workers=WORKERS, pin=False)))


def _exhaust(stream: Iterator[object]) -> None:
    for _ in stream:
        pass


def prepare(case: str, scale: float) -> Work:
    """Write the crawl; the bare model is measured anew before each run, so that both see the same machine."""
    if case == SECOND:
        return second_crawl(scale)
    architecture, pairs, side, kind, in_memory, _, decoding = CASES[case]
    directory = tempfile.TemporaryDirectory()
    raw = LanceStore(uri=f"{directory.name}/raw")
    n = scaled(pairs, scale)
    size = write_pairs(raw, "crawl-1", range(n), pictures(side, kind))
    encoder = _encoder(architecture)
    crawl = stored_pairs(raw, "crawl-1", encoder.clip)
    model = bare_model(encoder, crawl, min(n, in_memory))
    rates: list[dict[str, float]] = []

    def set_up() -> LanceStore:
        found = {"model": model.rate()}
        found["decoding"] = decoding_rate(crawl) if decoding else float("inf")
        rates.append(found)
        return LanceStore(uri=tempfile.mkdtemp(dir=directory.name))

    def call(store: LanceStore) -> None:
        rates[-1]["ours"] = n / seconds_of(lambda: embed(encoder, crawl, store))

    def facts(result: None) -> dict[str, float]:
        shares = [one["ours"] / one["model"] + one["ours"] / one["decoding"] for one in rates]
        return {"share": median(shares), **{name: median(one[name] for one in rates) for name in rates[0]}}

    model.rate()  # both ways are tried
    why = "the bare model on batches in memory, measured in the same run; every image is read once"
    return Work(set_up, call, Floor(why, bytes=size, seconds=n / model.rate()), facts=facts)


def _encoder(architecture: str) -> "PairEncoder":
    from clipcov_assets.core.clip_model import create_clip
    from clipcov_assets.jobs.embed import PairEncoder

    return PairEncoder.on(Compute(), create_clip(architecture, seed=0))


def second_crawl(scale: float) -> Work:
    """Embed a crawl, and write another that repeats most of its pairs."""
    directory = tempfile.TemporaryDirectory()
    raw, first = (LanceStore(uri=f"{directory.name}/{name}") for name in ("raw", "first"))
    n = scaled(SECOND_CRAWL.pairs, scale)
    new = round(n * (1 - REPEATED))
    images = pictures(SECOND_CRAWL.side, SECOND_CRAWL.format)
    write_pairs(raw, "crawl-1", range(n), images)
    size = write_pairs(raw, "crawl-2", range(new, new + n), images)
    encoder = _encoder(SECOND_CRAWL.architecture)
    crawls = [stored_pairs(raw, crawl, encoder.clip) for crawl in ("crawl-1", "crawl-2")]
    once = seconds_of(lambda: embed(encoder, crawls[0], first))

    def set_up() -> LanceStore:
        copy = tempfile.mkdtemp(dir=directory.name)
        shutil.copytree(first.uri, copy, dirs_exist_ok=True)
        return LanceStore(uri=copy)

    width = encoder.clip.model.text_projection.shape[1]
    return Work(
        set_up,
        lambda store: embed(encoder, crawls[1], store),
        Floor(
            "the images of new pairs are read once, the embeddings of known ones moved", bytes=size / 10 + 8 * n * width
        ),
        facts=lambda origin: {"embedded": origin["pairs_embedded"], "expected": new, "once": once},
    )


def lines(measured: Mapping[str, Measurement], scale: float) -> list[Line]:
    """Return a line for each model, and one for the second crawl."""
    found = []
    for name, case in CASES.items():
        facts = measured[name].facts
        beside = "1 / (1 / model + 1 / decoding)" if case.decoding else "the bare model"
        rates = ", ".join(
            f"{words} {facts[words]:,.1f}" for words in ("ours", "model", "decoding") if facts[words] < 1e9
        )
        found.append(
            Line(
                f"embeddings, {name}, {scaled(case.pairs, scale):,} pairs of {case.side} px: share of {beside}",
                f"{facts['share']:.1%}",
                f"{case.bar:.0%}",
                facts["share"] >= case.bar,
                measured[name],
                note=f"pairs a second: {rates}",
            )
        )
    second = measured[SECOND]
    embedded, expected = second.facts["embedded"], second.facts["expected"]
    return [
        *found,
        Line(
            f"embeddings, a second crawl of {scaled(SECOND_CRAWL.pairs, scale):,} pairs that repeats {REPEATED:.0%}",
            f"{embedded:,} embedded",
            f"{expected:,}",
            embedded == expected,
            second,
            note=f"{in_words(second.median)}, and the first crawl took {in_words(second.facts['once'])}",
        ),
    ]


BENCHMARK = Benchmark("embeddings beside the bare model, and of a second crawl", (*CASES, SECOND), prepare, lines)
