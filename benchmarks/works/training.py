"""Training: pairs out of LanceDB in, a trained model out, beside a bare loop over batches in memory."""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Mapping
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks.measure import Benchmark, Floor, Line, Measurement, Work, in_words, scaled
from benchmarks.works.embedding import pictures, write_pairs
from clipcov_assets.core.recipe import Execution, Recipe, Schedule
from resources.lance_store import LanceStore

# Imported where it is used: every benchmark loads this module, and torch would count into the memory of all.
if TYPE_CHECKING:
    from clipcov_assets.core.clip_model import ClipModel
    from clipcov_assets.jobs.training_pairs import TrainingPairs

WORKERS, CRAWL = os.cpu_count() or 1, "crawl-1"
MEMORY, MOST_GROWTH = "memory over epochs", 0.02


class Case(NamedTuple):
    """A crawl, the model that is trained on it, and what is promised.

    Attributes:
        architecture: open_clip's name.
        pairs: Of the crawl.
        side: Of its images in pixels.
        format: Of its images.
        batch_size: Pairs a step.
        steps: Of the training.
        cache_bytes: What decoded images may take to be kept.
        whole: Whether the rate counts from the call on, and not from the end of the first step: few steps stand for
            a long training, in which nobody sees the start.
    """

    architecture: str
    pairs: int
    side: int
    format: str
    batch_size: int
    steps: int
    cache_bytes: int
    whole: bool


CASES = {
    "the demo's model": Case("demo", 1_024, 64, "WEBP", 64, 320, 2**30, whole=True),
    "ViT-B/32": Case("ViT-B-32", 24, 256, "JPEG", 8, 3, 0, whole=False),
}
BAR = 0.95
OF_MEMORY = Case("demo", 1_024, 64, "WEBP", 64, 320, 0, whole=True)


class Training:
    """A model and its pairs, in LanceDB and as ready batches in memory."""

    def __init__(self, case: Case, scale: float) -> None:
        from clipcov_assets.core.clip_model import create_clip
        from clipcov_assets.core.encoding import normalized

        self._case, self._directory = case, tempfile.TemporaryDirectory()
        self._store = LanceStore(uri=self._directory.name)
        self._n = max(2, scaled(case.pairs, scale))
        size, steps = min(case.batch_size, self._n), max(2, scaled(case.steps, scale))
        self._recipe = Recipe(batch_size=size, samples_seen=steps * size, learning_rate=1e-4)
        self._plan = Schedule.of(self._recipe, self._n)
        self._epoch = self._n // size
        self.epochs = steps / self._epoch
        self.bytes = write_pairs(self._store, CRAWL, range(self._n), pictures(case.side, case.format))
        self._clip: ClipModel = create_clip(case.architecture, seed=0)
        rows = np.arange(self._epoch * size).reshape(-1, size)
        self._ready = [(normalized(self._clip, pixels), tokens) for pixels, tokens in self._pairs().batches(rows)]

    def ours(self) -> tuple[list[float], list[int]]:
        """Train as the assets do; return the time before, then after every step, and the memory after every epoch."""
        from clipcov_assets.core.training import TrainingStep, train_clip

        times, memory = [time.perf_counter()], list[int]()

        def on_step(step: TrainingStep) -> None:
            times.append(time.perf_counter())
            if (step.step + 1) % self._epoch == 0:
                memory.append(resident_memory())

        train_clip(self._clip, self._pairs(), self._recipe, Execution(), seed=0, on_step=on_step)
        return times, memory

    def bare(self) -> list[float]:
        """Train on ready batches with nothing around it; return the time before, then after every step."""
        import open_clip
        import torch

        recipe, loss_of = self._recipe, open_clip.ClipLoss()
        model = self._clip.model.to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.AdamW(
            model.parameters(), betas=recipe.betas, eps=recipe.epsilon, weight_decay=recipe.weight_decay, fused=True
        )
        times = [time.perf_counter()]
        for step, batch in enumerate(islice(cycle(self._ready), self._plan.steps)):
            for group in optimizer.param_groups:
                group["lr"] = self._plan.rate(step)
            optimizer.zero_grad()
            loss = loss_of(*model(*batch))
            loss.backward()
            optimizer.step()
            loss.item()
            times.append(time.perf_counter())
        return times

    def rate(self, times: list[float]) -> float:
        """Samples a second."""
        first = 0 if self._case.whole else 1
        return self._plan.batch_size * (len(times) - 1 - first) / (times[-1] - times[first])

    def _pairs(self) -> "TrainingPairs":
        from clipcov_assets.core.encoding import preparation
        from clipcov_assets.jobs.training_pairs import TrainingPairs
        from clipcov_assets.subset_pairs import pairs_of_crawl

        found, prepare = pairs_of_crawl(self._store, CRAWL), preparation(self._clip)
        return TrainingPairs(found, prepare, workers=WORKERS, cache_bytes=self._case.cache_bytes, device="cpu")


def resident_memory() -> int:
    """Bytes of this process and of its workers; pages that they share count in each."""
    pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * os.sysconf("SC_PAGE_SIZE")


def prepare(case: str, scale: float) -> Work:
    """Write the crawl; the bare loop is measured anew before each run, so that both see the same machine."""
    if case == MEMORY:
        return over_epochs(scale)
    training = Training(CASES[case], scale)
    rates: list[dict[str, float]] = []

    def call(bare: float) -> list[float]:
        times, _ = training.ours()
        rates.append({"ours": training.rate(times), "model": bare, "start": times[1] - times[0]})
        return times

    def facts(times: list[float]) -> dict[str, float]:
        shares = [one["ours"] / one["model"] for one in rates]
        return {"share": median(shares), **{name: median(one[name] for one in rates) for name in rates[0]}}

    first = training.bare()  # its first steps are slow
    why = "the bare loop on batches in memory, measured in the same run; every image is read once"
    floor = Floor(why, bytes=training.bytes, seconds=first[-1] - first[0])
    return Work(lambda: training.rate(training.bare()), call, floor, facts=facts)


def over_epochs(scale: float) -> Work:
    """Train for many epochs on images that are read anew for each."""
    training = Training(OF_MEMORY, scale)

    def facts(result: tuple[list[float], list[int]]) -> dict[str, float]:
        _, memory = result
        return {"growth": max(memory[1:]) / memory[1] - 1, "epochs": len(memory)}

    floor = Floor("every image is read once an epoch", bytes=training.bytes * training.epochs)
    return Work(lambda: training, Training.ours, floor, facts=facts, once=True)


def lines(measured: Mapping[str, Measurement], scale: float) -> list[Line]:
    """Return a line for each model, and one for the memory."""
    found = []
    for name, case in CASES.items():
        facts, steps = measured[name].facts, max(2, scaled(case.steps, scale))
        start = "counted" if case.whole else "not counted"
        found.append(
            Line(
                f"training, {name}, {steps} steps of {case.batch_size} pairs: share of a bare loop",
                f"{facts['share']:.1%}",
                f"{BAR:.0%}",
                facts["share"] >= BAR,
                measured[name],
                note=f"samples a second: ours {facts['ours']:,.1f}, the bare loop {facts['model']:,.1f}; images are "
                f"{'decoded once' if case.cache_bytes else 'read for every batch'}, and the first step ended after "
                f"{in_words(facts['start'])}, which is {start}",
            )
        )
    facts = measured[MEMORY].facts
    return [
        *found,
        Line(
            f"training, the demo's model, {facts['epochs']} epochs: growth of resident memory after the second",
            f"{facts['growth']:.1%}",
            f"{MOST_GROWTH:.0%}",
            facts["growth"] <= MOST_GROWTH,
            measured[MEMORY],
            note="the highest after a later epoch, workers included; images are read for every batch",
        ),
    ]


BENCHMARK = Benchmark("training beside a bare loop, and its memory over epochs", (*CASES, MEMORY), prepare, lines)
