"""Questions that may stay without an answer, such as those to a silent endpoint: nobody waits for them for ever."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

Answer = TypeVar("Answer")


def asked(question: Callable[[], Answer]) -> "Future[Answer]":
    """Ask in a thread of its own, which nobody has to wait for, not even the end of this process."""
    future = Future[Answer]()

    def ask() -> None:
        try:
            future.set_result(question())
        except BaseException as error:  # it belongs to whoever asked
            future.set_exception(error)

    # No pool: at its end Python would wait for its threads.
    Thread(target=ask, daemon=True).start()
    return future


def in_time(question: Callable[[], Answer], seconds: float) -> Answer:
    """Ask, and wait for the answer, but not for ever.

    Raises:
        TimeoutError: There is none within these seconds. What the question raises is raised here.
    """
    try:
        return asked(question).result(seconds)
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"no answer within {seconds:g} seconds") from error
