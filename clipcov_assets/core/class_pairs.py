"""The pairs of one latent class, all that a greedy needs at a time: a pool enters, class after class leaves."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from clipcov_assets.core.cores import core_count
from clipcov_assets.core.pool import Array, Pool, rows_by_class
from clipcov_assets.core.similarity import side_by_side

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class ClassPairs:
    """All pairs of one latent class.

    Args:
        latent_class: Which one.
        uid: (n_k,) in ascending order.
        pairs: (n_k, 2d) float16 or float32, image and text embedding side by side.
    """

    latent_class: int
    uid: Array
    pairs: Array

    def __len__(self) -> int:
        return len(self.uid)


# Reads latent classes that lie together, one after the other; called from several threads at once.
LoadClasses = Callable[[Sequence[int]], Iterable[ClassPairs]]


def class_loader(pool: Pool, chosen: Array | None = None) -> tuple[list[list[int]], LoadClasses]:
    """Return the latent classes that have pairs in a pool, each alone, and what gathers one of them.

    The uids of the classes are the places of the pool's uids in ascending order, which sort faster.

    Args:
        pool: Reads `image_embeddings`, `text_embeddings`, `latent_class`.
        chosen: (n,) which rows count; all of them where None.
    """
    images, texts = pool.require("image_embeddings", "text_embeddings", method="a walk over classes")
    rows = {k: rows if chosen is None else rows[chosen[rows]] for k, rows in rows_by_class(pool)}

    def load(together: Sequence[int]) -> Iterator[ClassPairs]:
        for k in together:
            yield ClassPairs(k, pool.uid_rank[rows[k]], side_by_side(images, texts, rows[k]))

    return [[k] for k in rows if len(rows[k])], load


def on_all_cores(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the function's results as they come, with one item in work on each core and none waiting in memory."""
    cores, left = core_count(), iter(items)
    with ThreadPoolExecutor(cores) as executor:
        working: set[Future[Result]] = set()
        while True:
            working |= {executor.submit(function, item) for item in islice(left, cores - len(working))}
            if not working:
                return
            done, working = wait(working, return_when=FIRST_COMPLETED)
            for one in done:
                yield one.result()
