"""Evaluation: a set on disk in, a prediction for each image out, beside the bare image tower and beside peers' code."""

import io
import tarfile
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from benchmarks.bare_model import BareModel, seconds_of
from benchmarks.measure import Benchmark, Floor, Line, Measurement, Work, in_words, scaled
from benchmarks.works.embedding import DISTINCT_IMAGES, WORDS, pictures
from clipcov_assets.core.prompts import Prompts, fill, imagenet_prompts
from clipcov_assets.ingest.evaluation_set import (
    CLASS_NAMES,
    DATASET_TYPE,
    TEMPLATES,
    EvaluationSet,
    find_evaluation_sets,
)
from resources.compute import Compute
from resources.head_cache import HeadCache

# Imported where it is used: every benchmark loads this module, and torch would count into the memory of all.
if TYPE_CHECKING:
    from torch import Tensor

    from clipcov_assets.core.clip_model import ClipModel
    from clipcov_assets.jobs.embed import PairEncoder

IN_MEMORY = 222  # images that the bare tower gets
CAPTIONS_EACH, RECALLS, LEAST_IMAGES = 5, (1, 5, 10), 20
PEER_BATCH = 64
TIE = 1e-6  # cosines that are no farther apart differ by rounding


class Case(NamedTuple):
    """A set and a model; random weights cost what others cost.

    Attributes:
        architecture: open_clip's name.
        images: Of the set.
        side: Of its images in pixels.
        format: Of its images.
        names: Of ImageNet's classes; 0 for a retrieval set.
        templates: Of OpenAI's 80.
    """

    architecture: str
    images: int
    side: int
    format: str
    names: int
    templates: int


TOWER, SECOND = "beside the tower", "a second time"
OPEN_CLIP, CLASSIFICATION, RETRIEVAL = "open_clip", "clip_benchmark, classification", "clip_benchmark, retrieval"
BARS = {TOWER: 0.9, SECOND: 0.1}
AS_PEERS = Case("demo", DISTINCT_IMAGES, 64, "WEBP", 1_000, 80)
CASES = {
    TOWER: Case("ViT-B-32", 1_000, 256, "JPEG", 10, 1),
    SECOND: AS_PEERS._replace(images=200),
    OPEN_CLIP: AS_PEERS,
    CLASSIFICATION: AS_PEERS,
    RETRIEVAL: AS_PEERS._replace(names=0),
}


class World(NamedTuple):
    """A model, the set that it is evaluated on, and where both are kept."""

    home: TemporaryDirectory
    clip: "ClipModel"
    one: EvaluationSet
    heads: HeadCache

    def predictions(self) -> pa.Table:
        """Evaluate as a scorecard does."""
        from clipcov_assets.jobs.evaluate import predictions_of

        return predictions_of(
            self.clip, [self.one], seed=0, compute=Compute(), heads=self.heads, report=lambda words: None
        )

    def head(self) -> NDArray[np.float32]:
        """Return the class rows as an evaluation makes them, or finds them."""
        from clipcov_assets.jobs.evaluate import head

        return head(self.encoder, self.prompts, self.heads, lambda words: None)

    @property
    def encoder(self) -> "PairEncoder":
        """The model as an evaluation runs it."""
        from clipcov_assets.jobs.embed import PairEncoder

        return PairEncoder.on(Compute(), self.clip)

    @property
    def prompts(self) -> Prompts:
        """Of a set for classification."""
        if self.one.prompts is None:
            raise ValueError(f"{self.one.name} has no classes")
        return self.one.prompts

    def work(self, call: Callable[[], Any], **changes: Any) -> Work:  # noqa: ANN401
        """Return work on the set, which reads every image once."""
        size = sum(len(self.one.image(place)) for place in range(len(self.one)))
        floor = Floor("every image of the set is read once", bytes=size)
        return Work(**{"set_up": lambda: None, "call": lambda _: call(), "floor": floor, "inputs": size, **changes})


def world_of(case: Case, scale: float) -> World:
    """Write a set in the layout that is read, and make a model with random weights."""
    from clipcov_assets.core.clip_model import create_clip

    home = TemporaryDirectory()
    folder = Path(home.name) / "sets" / "images"
    (folder / "test").mkdir(parents=True)
    (folder / "test" / "nshards.txt").write_text("1")
    names = max(scaled(case.names, scale), 2) if case.names else 0
    if names:
        prompts = imagenet_prompts()
        (folder / CLASS_NAMES).write_text("\n".join(prompts.class_names[:names]))
        (folder / TEMPLATES).write_text("\n".join(prompts.templates[: case.templates]))
    else:
        (folder / DATASET_TYPE).write_text("retrieval")
    images, random = pictures(case.side, case.format), np.random.default_rng(0)
    with tarfile.open(folder / "test" / "0.tar", "w") as tar:
        for place in range(max(scaled(case.images, scale), LEAST_IMAGES)):
            texts = random.choice(WORDS.split(), (CAPTIONS_EACH, 10)).tolist()
            _add(tar, f"{place:06d}.{case.format.lower()}", images[place % len(images)])
            if names:
                _add(tar, f"{place:06d}.cls", str(place % names).encode())
            else:
                _add(tar, f"{place:06d}.txt", "\n".join(map(" ".join, texts)).encode())
    (one,) = find_evaluation_sets(folder.parent)
    clip, heads = create_clip(case.architecture, seed=0), HeadCache(directory=str(Path(home.name) / "heads"))
    return World(home, clip, one, heads)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def bare_tower(world: World) -> BareModel:
    """The image tower on batches in memory."""
    from clipcov_assets.core.encoding import normalized, preparation
    from clipcov_assets.jobs.evaluate import SetImages

    encoder, count = world.encoder, min(len(world.one), IN_MEMORY)
    places = np.split(np.arange(count), range(encoder.batch_size, count, encoder.batch_size))
    images = SetImages((world.one,), preparation(world.clip))
    batches = [(normalized(world.clip, images[0, some].to(encoder.device)),) for some in places]
    return BareModel(encoder, batches, world.clip.model.encode_image)


def prepare(case: str, scale: float) -> Work:
    """Write the set, make the model, and get ready what an evaluation is compared with."""
    world = world_of(CASES[case], scale)
    if case == TOWER:
        return beside_the_tower(world)
    if case == SECOND:
        return a_second_time(world)
    centre(world)
    # Of a peer the results are compared, not the times: one run has to do.
    if case == RETRIEVAL:
        compare = partial(recalls_beside_ours, world)
        return world.work(partial(recalls_of_clip_benchmark, world), facts=compare, once=True)
    peer = cosines_of_open_clip if case == OPEN_CLIP else cosines_of_clip_benchmark
    return world.work(partial(peer, world), facts=partial(cosines_beside_ours, world), once=True)


def beside_the_tower(world: World) -> Work:
    """Evaluate with a head that is known; the bare tower is measured anew before each run."""
    tower, rates = bare_tower(world), list[dict[str, float]]()
    tower.rate()  # both ways are tried
    world.head()

    def set_up() -> None:
        rates.append({"tower": tower.rate()})

    def call(_: None) -> None:
        rates[-1]["ours"] = len(world.one) / seconds_of(world.predictions)

    def facts(_: None) -> dict[str, float]:
        return {
            "share": median(one["ours"] / one["tower"] for one in rates),
            **{name: median(one[name] for one in rates) for name in ("ours", "tower")},
        }

    why = "the bare image tower on batches in memory, measured in the same run; every image is read once"
    size = sum(len(world.one.image(place)) for place in range(len(world.one)))
    floor = Floor(why, bytes=size, seconds=len(world.one) / tower.rate())
    return Work(set_up, call, floor, inputs=size, facts=facts)


def a_second_time(world: World) -> Work:
    """Evaluate once, and then again with the head from the cache."""
    found: list[pa.Table] = []
    once = seconds_of(lambda: found.append(world.predictions()))
    return world.work(world.predictions, facts=lambda again: {"once": once, "equal": again.equals(found[0])})


def centre(world: World) -> None:
    """Centre the features of the demo's model: with random weights it would give almost every image the same class."""
    import torch

    model = world.clip.model
    texts = world.one.prompts.class_names if world.one.prompts else [texts[0] for texts in world.one.captions or ()]
    pixels, _ = peer_batches(world, [None] * len(world.one))[0]
    with torch.no_grad():
        model.visual.attnpool.c_proj.bias -= model.encode_image(pixels).mean(dim=0)
        text = model.encode_text(world.clip.tokenizer(list(texts))).mean(dim=0)
        model.ln_final.bias -= text @ torch.linalg.pinv(model.text_projection)


def peer_batches(world: World, targets: list[Any]) -> "list[tuple[Tensor, Any]]":
    """Return pixels through open_clip's transform, and what belongs to them, as peers take them."""
    import torch
    from PIL import Image

    pixels = [world.clip.preprocess(Image.open(io.BytesIO(world.one.image(place)))) for place in range(len(world.one))]
    starts = range(0, len(pixels), PEER_BATCH)
    return [(torch.stack(pixels[start : start + PEER_BATCH]), targets[start : start + PEER_BATCH]) for start in starts]


def cosines_of_open_clip(world: World) -> NDArray[np.float32]:
    """Return cosines (n, K) of open_clip's classifier and image features."""
    import open_clip
    import torch

    templates = [partial(fill, template) for template in world.prompts.templates]
    model = world.clip.model
    with torch.no_grad():
        head = open_clip.build_zero_shot_classifier(model, world.clip.tokenizer, world.prompts.class_names, templates)
        batches = peer_batches(world, [None] * len(world.one))
        found: NDArray[np.float32] = torch.cat(
            [model.encode_image(pixels, normalize=True) @ head for pixels, _ in batches]
        ).numpy()
    return found


def cosines_of_clip_benchmark(world: World) -> NDArray[np.float32]:
    """Return cosines (n, K): CLIP_benchmark's logits without their factor of 100."""
    import torch
    from clip_benchmark.metrics.zeroshot_classification import run_classification, zero_shot_classifier

    names, templates = list(world.prompts.class_names), list(world.prompts.templates)
    head = zero_shot_classifier(world.clip.model, world.clip.tokenizer, names, templates, "cpu", amp=False)
    batches = [(pixels, torch.tensor(target)) for pixels, target in peer_batches(world, [0] * len(world.one))]
    logits, _ = run_classification(world.clip.model, head, batches, "cpu", amp=False)
    found: NDArray[np.float32] = logits.numpy() / 100
    return found


def cosines_beside_ours(world: World, theirs: NDArray[np.float32]) -> dict[str, Any]:
    """Compare a peer's cosines (n, K) with those that an evaluation computes, and its predictions with ours."""
    from clipcov_assets.core.encoding import encode_images
    from clipcov_assets.core.zero_shot import cosines

    named = ((key, world.one.image(place)) for place, key in enumerate(world.one.keys))
    images = np.concatenate(list(encode_images(world.clip, named, device="cpu", batch_size=PEER_BATCH)))
    predicted = world.predictions()["predicted"].to_numpy()
    behind = theirs.max(axis=1) - theirs[np.arange(len(theirs)), predicted]
    return {
        "different": int((behind > TIE).sum()),
        "classes": len(np.unique(predicted)),
        "tied": int(((predicted != theirs.argmax(axis=1)) & (behind <= TIE)).sum()),
        "logits": float(100 * np.abs(cosines(images, world.head()) - theirs).max()),
    }


def recalls_of_clip_benchmark(world: World) -> dict[str, float]:
    """Return CLIP_benchmark's recalls by its names."""
    from clip_benchmark.metrics.zeroshot_retrieval import evaluate

    batches = peer_batches(world, [list(captions) for captions in world.one.captions or ()])
    found: dict[str, float] = evaluate(
        world.clip.model, batches, world.clip.tokenizer, "cpu", amp=False, recall_k_list=list(RECALLS)
    )
    return found


def recalls_beside_ours(world: World, theirs: dict[str, float]) -> dict[str, Any]:
    """Compare recalls with those of our ranks."""
    found = world.predictions()
    tasks = {"text": "image_to_text", "image": "text_to_image"}
    ranks = {
        wanted: found.filter(pc.equal(found["task"], task))["rank_of_label"].to_numpy()
        for wanted, task in tasks.items()
    }
    apart = [
        abs((ranks[wanted] < k).mean() - theirs[f"{wanted}_retrieval_recall@{k}"]) for wanted in tasks for k in RECALLS
    ]
    return {"different": int(np.sum(np.array(apart) > TIE)), "recall": max(apart)}  # theirs are means in float32


def lines(measured: Mapping[str, Measurement], scale: float) -> list[Line]:
    """Return a line for each comparison."""
    tower, second = measured[TOWER], measured[SECOND]
    images = {case: max(scaled(made.images, scale), LEAST_IMAGES) for case, made in CASES.items()}
    prompts = f"{max(scaled(AS_PEERS.names, scale), 2):,} names x {AS_PEERS.templates} templates"
    share = second.median / second.facts["once"]
    beside = [
        Line(
            f"evaluation, ViT-B/32, {images[TOWER]:,} images of 256 px: share of the bare image tower's rate",
            f"{tower.facts['share']:.1%}",
            f"{BARS[TOWER]:.0%}",
            tower.facts["share"] >= BARS[TOWER],
            tower,
            note=f"images a second: ours {tower.facts['ours']:,.1f}, tower {tower.facts['tower']:,.1f}",
        ),
        Line(
            f"evaluation again, the demo's model, {images[SECOND]:,} images, {prompts}: share of the first time",
            f"{share:.1%}",
            f"{BARS[SECOND]:.0%}",
            share <= BARS[SECOND] and second.facts["equal"],
            second,
            note=f"{in_words(second.median)} after {in_words(second.facts['once'])}; the predictions are "
            f"{'equal' if second.facts['equal'] else 'NOT equal'}",
        ),
    ]
    return beside + [
        equality(case, measured.get(case), f"{images[case]:,} images{'' if case == RETRIEVAL else f', {prompts}'}")
        for case in (OPEN_CLIP, CLASSIFICATION, RETRIEVAL)
    ]


def equality(case: str, one: Measurement | None, size: str) -> Line:
    """Return how many predictions, or recalls, of a peer are not ours."""
    counted = "recalls" if case == RETRIEVAL else "predictions"
    work = f"evaluation beside {case}, the demo's model, {size}: different {counted}"
    if one is None:
        return Line(work, "not measured", "0", note="clip-benchmark is not installed here")
    facts = one.facts
    if case == RETRIEVAL:
        note = f"recall at {', '.join(map(str, RECALLS))} both ways; the largest difference is {facts['recall']:.1g}"
    else:
        note = (
            f"{facts['classes']} classes are predicted; the largest difference of logits is {facts['logits']:.1g}; "
            f"{facts['tied']} predictions differ where cosines tie within {TIE:g}"
        )
    return Line(work, str(facts["different"]), "0", facts["different"] == 0, one, note=note)


MEASURED = tuple(case for case in CASES if not case.startswith("clip_benchmark") or find_spec("clip_benchmark"))

BENCHMARK = Benchmark(
    "evaluation beside the bare image tower, and beside open_clip and CLIP_benchmark", MEASURED, prepare, lines
)
