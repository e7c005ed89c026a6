"""Worker processes: a function and its arguments enter, results leave in the order in which they are ready."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import TypeVar

Result = TypeVar("Result")


def in_workers(
    function: Callable[..., Result], items: Sequence[object], *shared: object, workers: int
) -> Iterator[tuple[int, Result]]:
    """Yield the place and the result of every item; a single worker is this process.

    Args:
        function: Of a module, so that a worker finds it.
        items: Its first argument, one after the other; they can be pickled.
        shared: Its other arguments.
        workers: Processes at a time.

    Raises:
        RuntimeError: A worker died, most likely for want of memory. What the function raises is raised here.
    """
    workers = min(workers, len(items))
    if workers <= 1:
        yield from ((place, function(item, *shared)) for place, item in enumerate(items))
        return
    context = forking_context(function.__module__)
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_die_with_the_parent)
    try:
        places = {executor.submit(function, item, *shared): place for place, item in enumerate(items)}
        for future in as_completed(places):
            yield places[future], future.result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a worker process died, most likely for want of memory: run again with fewer workers (compute.workers); "
            "what is finished is kept"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def forking_context(module: str) -> BaseContext:
    """Return how workers are started: by a server that has loaded a module, if it is the first to start.

    A fork of this process could inherit a lock that another thread holds; the server has one thread.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    return context


def _die_with_the_parent() -> None:
    """End this worker when its parent is killed: a worker would otherwise wait for work for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
