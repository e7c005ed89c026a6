"""How far long work is: counts enter, now and then a sentence with rate and time left leaves."""

import time
from collections.abc import Callable


class Progress:
    """Reports counts, rate and time left; work that is over quickly says nothing.

    Args:
        total: All there is to do, in the unit, or in another measure that `add` then gets as well, such as bytes.
        unit: What is counted, in the plural, such as `pairs`.
        report: Takes a sentence, such as a logger's `info`.
        every_seconds: Between two reports, and before the first.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        report: Callable[[str], None],
        every_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock."""
        self._total, self._unit, self._report = total, unit, report
        self._every, self._clock = every_seconds, clock
        self._count = self._done = 0
        self._start = self._reported = clock()

    def add(self, count: int, *, of_total: int | None = None) -> None:
        """Count what has just been done; the last of it is reported if anything ever was.

        Args:
            count: In the unit.
            of_total: The same in the measure of the total, where that is not the unit.
        """
        self._count += count
        self._done += count if of_total is None else of_total
        now = self._clock()
        spoke = self._reported > self._start
        if now - self._reported >= self._every or (spoke and self._done >= self._total):
            self._reported = now
            self._report(self._sentence(now - self._start, in_units=of_total is None))

    def _sentence(self, seconds: float, *, in_units: bool) -> str:
        rate = self._count / seconds
        share = f" of {self._total:,} {self._unit}" if in_units else f" {self._unit}, {self._done / self._total:.0%}"
        words = f"{self._count:,}{share}, {rate:,.{0 if rate >= 10 else 1}f} {self._unit}/s"
        if self._done >= self._total:
            return f"{words}, done in {in_words(seconds)}"
        if not self._done:
            return words
        return f"{words}, {in_words(seconds * (self._total - self._done) / self._done)} left"


def in_words(seconds: float) -> str:
    """Return a duration as a person says it: `42 s`, `2 min 51 s`, `3 h 4 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
