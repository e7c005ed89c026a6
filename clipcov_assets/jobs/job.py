"""Work that can be done anywhere: a job travels as JSON, and its parts are done by whoever has hands free.

`run` plans, hands its parts to a backend, and writes what they make; `parts` does some of them, in this process or in
one of a cluster. Results depend neither on who does a part nor on the order in which parts are finished.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel

from resources.compute import Compute

Say = Callable[[str], None]
Outcome = dict[str, Any]


@dataclass(frozen=True)
class Voice:
    """Where a job speaks: sentences on its progress, and on what it lost but can do without."""

    report: Say
    warn: Say


class Backend(Protocol):
    """Does the parts of jobs."""

    @property
    def voice(self) -> Voice:
        """Where the job speaks."""
        ...

    def settled(self, compute: Compute) -> Compute:
        """What `auto` means where the parts are done.

        Raises:
            ValueError: A device or precision that is not there.
        """
        ...

    def each(self, job: "Job", items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yield the place of each item and what `job.parts` makes of it, as they are finished.

        Raises:
            RuntimeError: Hands were lost more often than is tried again. What a part raises is raised here.
        """
        ...


class Job(BaseModel):
    """Work whose fields are all that it needs; resources among them open what they name wherever the job is.

    Attributes:
        compute: The machine that does the parts.
        streams: Whether there are many parts that share something dear to load, such as a model.
    """

    compute: Compute
    streams: ClassVar[bool] = False

    @property
    def divides(self) -> bool:
        """Whether a cluster can help; else the job is done where Dagster is."""
        return True

    @property
    def gpus(self) -> int:
        """GPUs that a part uses at once, where there are any."""
        return 1

    def run(self, backend: Backend) -> Outcome:
        """Do the work, and say what was made, in what JSON can hold."""
        raise NotImplementedError

    def parts(self, items: Sequence[Any], voice: Voice) -> Iterator[Any]:
        """Yield what is made of each item, in their order; it may be called in any process, and again for an item."""
        raise NotImplementedError


@dataclass(frozen=True)
class Local:
    """This process does all parts, one after the other."""

    voice: Voice

    def settled(self, compute: Compute) -> Compute:
        """What `auto` means on this machine."""
        return compute.settled()

    def each(self, job: Job, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yield the parts in the order of the items."""
        return enumerate(job.parts(items, self.voice))


def packed(job: Job) -> tuple[str, str]:
    """A job as it travels: the name of its class, and its fields as JSON."""
    return f"{type(job).__module__}:{type(job).__qualname__}", job.model_dump_json()


def unpacked(name: str, fields: str) -> Job:
    """The job that was packed."""
    module, _, kind = name.partition(":")
    found: type[Job] = getattr(import_module(module), kind)
    return found.model_validate_json(fields)
