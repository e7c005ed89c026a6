"""What a model reaches on batches in memory, with nothing around it: no reading, no decoding, no writing."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

# Imported where it is used: every benchmark loads this module, and torch would count into the memory of all.
if TYPE_CHECKING:
    from torch import Tensor

    from clipcov_assets.jobs.embed import PairEncoder


class BareModel:
    """A model, batches as it takes them, and the faster of two ways to use the cores."""

    def __init__(
        self, encoder: "PairEncoder", batches: "Sequence[tuple[Tensor, ...]]", *towers: "Callable[[Tensor], Tensor]"
    ) -> None:
        """Take batches that are ready.

        Args:
            encoder: The model, and how many threads compute at once.
            batches: A tensor for each tower, pixels first.
            towers: Methods of the model, such as `encode_image`.
        """
        import torch

        self._encoder, self._batches, self._towers = encoder, batches, towers
        self._ways = [self._batch_by_batch, self._a_batch_in_each_thread]
        encoder.clip.model.visual.to(encoder.device, memory_format=torch.channels_last)

    def rate(self) -> float:
        """Rows a second; the first time both ways of using the cores are tried, and then the faster one is kept."""
        seconds = {way: seconds_of(way) for way in self._ways}
        self._ways = [min(self._ways, key=lambda way: seconds[way])]
        return sum(len(batch[0]) for batch in self._batches) / min(seconds.values())

    def _batch_by_batch(self) -> None:
        for batch in self._batches:
            self._embed(batch)

    def _a_batch_in_each_thread(self) -> None:
        import torch

        threads = torch.get_num_threads()
        with ThreadPoolExecutor(self._encoder.threads, initializer=torch.set_num_threads, initargs=(1,)) as executor:
            list(executor.map(self._embed, self._batches))
        torch.set_num_threads(threads)

    def _embed(self, batch: "tuple[Tensor, ...]") -> None:
        import torch

        from clipcov_assets.core.clip_model import inference

        kind, half = torch.device(self._encoder.device).type, self._encoder.precision
        with (
            inference(self._encoder.clip, device=self._encoder.device),
            torch.autocast(kind, getattr(torch, half), enabled=half != "float32"),
        ):
            for tower, inputs in zip(self._towers, batch, strict=True):
                tower(inputs).cpu()


def seconds_of(call: Callable[[], object]) -> float:
    """Time a call once."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
