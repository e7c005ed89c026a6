"""The parts of jobs on a Ray cluster: as tasks, or through Ray Data where many parts share a model.

Only this module and `clipcov_assets.jobs.submit` know Ray, which is an extra: `pip install '.[ray]'`.
"""

import logging
import os
import pickle
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from clipcov_assets.jobs.job import Job, Voice, packed, unpacked
from resources.compute import Compute

ANSWER_SECONDS = 15  # a cluster that does not answer by then is not there
RETRIES = 5  # of a part whose worker or node was lost
WAITING = 64  # parts at least that wait with all that they need: a cluster that scales itself sees what to grow for
PLACE, ITEM, RESULT = "place", "item", "result"

Attempt = tuple[Any, Exception | None]  # what a part made, or what it raised


class OnRay:
    """A Ray cluster does the parts.

    Attributes:
        voice: Where the job speaks; parts speak in the log of their worker.
    """

    def __init__(self, compute: Compute, voice: Voice, *, address: str) -> None:
        """Connect this process, once, to the cluster at an address; to one of its own where that is empty.

        Raises:
            ConnectionError: Nothing answers there.
            ValueError: Ray is not installed, or the cluster refuses: another version of Ray or Python, or no token.
        """
        self.voice = voice
        self._compute = compute
        connect(address)

    def settled(self, compute: Compute) -> Compute:
        """What `auto` means on the nodes that do the parts: one of them is asked.

        Raises:
            ValueError: A device or precision that is not there.
        """
        import ray

        gpus = self._gpus(1) if compute.device != "cpu" else 0
        task = ray.remote(_settled).options(num_cpus=compute.ray_cpus, num_gpus=gpus, max_retries=RETRIES)
        self._wait_for({"CPU": compute.ray_cpus, "GPU": gpus})
        try:
            fields, fault = ray.get(task.remote(compute.model_dump_json()))
        except ray.exceptions.RayError as error:
            raise _lost(error) from error
        return Compute.model_validate_json(_result((fields, fault)))

    def each(self, job: Job, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yield the parts as they are finished; one whose worker or node was lost is done again by another.

        Raises:
            ValueError: No node has what a part takes.
            RuntimeError: Workers were lost again and again. What a part raises is raised here.
        """
        if not items:
            return
        gpus = self._gpus(job.gpus) if job.compute.device != "cpu" else 0
        takes = {"CPU": self._compute.ray_cpus, "GPU": gpus}
        self._wait_for(takes)
        # An actor has to load what its parts share, and earns that back with its second part.
        do = self._through_actors if job.streams and len(items) > self._slots(takes) else self._as_tasks
        for done, found in enumerate(do(job, items, takes), start=1):
            if len(items) > 1:
                self.voice.report(f"{done} of {len(items)} parts are done")
            yield found

    def _as_tasks(self, job: Job, items: Sequence[Any], takes: dict[str, float]) -> Iterator[tuple[int, Any]]:
        import ray

        task = ray.remote(_part).options(num_cpus=takes["CPU"], num_gpus=takes["GPU"], max_retries=RETRIES)
        travelling, most, waiting = packed(job), max(WAITING, 2 * self._slots(takes)), dict[Any, int]()
        places = iter(range(len(items)))
        try:
            while True:
                while len(waiting) < most and (place := next(places, None)) is not None:
                    waiting[task.remote(*travelling, items[place])] = place
                if not waiting:
                    return
                (ready,), _ = ray.wait(list(waiting), num_returns=1)
                yield waiting.pop(ready), _result(ray.get(ready))
        except ray.exceptions.RayError as error:
            raise _lost(error) from error
        finally:
            for one in waiting:
                ray.cancel(one, force=True)

    def _through_actors(self, job: Job, items: Sequence[Any], takes: dict[str, float]) -> Iterator[tuple[int, Any]]:
        import ray
        from ray import data

        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        rows = [{PLACE: place, ITEM: pickle.dumps(item)} for place, item in enumerate(items)]
        parts = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            Actor,
            fn_constructor_args=packed(job),
            batch_size=1,
            compute=data.ActorPoolStrategy(min_size=1, max_size=len(rows)),  # as many as there is room for
            num_cpus=takes["CPU"],
            num_gpus=takes["GPU"],
        )
        try:
            for row in parts.iter_rows():
                yield int(row[PLACE]), _result(pickle.loads(row[RESULT]))  # noqa: S301  (our own worker wrote it)
        except ray.exceptions.RayError as error:
            raise _lost(error) from error

    def _gpus(self, wanted: int) -> float:
        """GPUs of a part: the share that the settings name, or as many as it uses, where the cluster has any."""
        if self._compute.ray_gpus is not None:
            return self._compute.ray_gpus * wanted
        wants_them = self._compute.device.startswith("cuda")
        return wanted if wants_them or _resources().get("GPU", 0) else 0

    def _slots(self, takes: dict[str, float]) -> int:
        """Parts that fit on the cluster at a time."""
        has = _resources()
        return max(1, int(min(has.get(kind, 0) // amount for kind, amount in takes.items() if amount)))

    def _wait_for(self, takes: dict[str, float]) -> None:
        """Wait until one node has what a part takes: a cluster that scales itself brings it when it is asked.

        Raises:
            ValueError: None has it in time.
        """

        def most() -> dict[str, float]:
            return {kind: max((node.get(kind, 0) for node in _nodes()), default=0) for kind in takes}

        deadline = time.monotonic() + self._compute.ray_patience
        while any(amount > most()[kind] for kind, amount in takes.items()):
            if time.monotonic() > deadline:
                there = ", ".join(f"{amount:g} {kind}" for kind, amount in most().items())
                wanted = ", ".join(f"{amount:g} {kind}" for kind, amount in takes.items())
                raise ValueError(
                    f"a part of this job takes {wanted}, and the largest node of the Ray cluster has {there}: lower "
                    "CLIPCOV_RAY_CPUS, CLIPCOV_RAY_GPUS or compute.devices, add a node, or give a cluster that scales "
                    f"itself more time than CLIPCOV_RAY_PATIENCE ({self._compute.ray_patience} s)"
                )
            _ask_for([takes])
            time.sleep(0.5)
        _ask_for([])


class Actor:
    """A worker of Ray Data, which keeps the job, and what it has loaded, from part to part."""

    def __init__(self, name: str, fields: str) -> None:
        """Unpack the job."""
        self._job = unpacked(name, fields)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Do the parts of some rows."""
        done = [pickle.dumps(_attempt(self._job, pickle.loads(item))) for item in batch[ITEM]]  # noqa: S301
        return {PLACE: list(batch[PLACE]), RESULT: done}


def connect(address: str) -> None:
    """Connect this process to a cluster, if it is not connected; where the address is empty, start one here.

    Raises:
        ConnectionError: Nothing answers there.
        ValueError: Ray is not installed, or the cluster refuses: another version of Ray or Python, or no token.
    """
    quiet()
    ray = the_library()
    if ":" in address:
        check_answer(address)
    if ray.is_initialized():
        return
    try:
        ray.init(
            address=address or "local",
            logging_level=logging.WARNING,
            **({} if address else {"include_dashboard": False}),
        )
    except (RuntimeError, ConnectionError, ray.exceptions.RayError) as error:
        raise ValueError(
            f"the Ray cluster at {address or 'this machine'} (CLIPCOV_RAY_ADDRESS) cannot be joined: {error} "
            "Use the same image, or the same versions of Python, ray and this project, on all machines, and where the "
            "cluster asks for a token, RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        ) from error


def quiet() -> None:
    """Ray calls nobody, and starts workers with the Python that runs."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")


def the_library() -> Any:  # noqa: ANN401
    """Ray.

    Raises:
        ValueError: It is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "CLIPCOV_COMPUTE is 'ray', and Ray is not installed: pip install 'clipcov-assets[ray]', or use 'local'"
        ) from error
    return ray


def check_answer(address: str) -> None:
    """Raise a ConnectionError where nothing answers at `host:port` or `http://host:port`."""
    host, _, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"no Ray cluster answers at {address!r} (CLIPCOV_RAY_ADDRESS): {error}. Start it, or mend the address: "
            "host:6379 of a cluster that this machine belongs to, http://host:8265 of its dashboard, or nothing"
        ) from error


def _ask_for(bundles: list[dict[str, float]]) -> None:
    """Ask a cluster that scales itself for nodes with this room; others do not listen."""
    from ray.autoscaler import sdk

    with suppress(Exception):
        sdk.request_resources(bundles=bundles)


def _nodes() -> list[dict[str, float]]:
    """What each node has."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def _resources() -> Counter[str]:
    """What all nodes have together."""
    return sum(map(Counter, _nodes()), Counter())


def _part(name: str, fields: str, item: Any) -> Attempt:  # noqa: ANN401
    """Do one part, in a worker."""
    return _attempt(_unpacked(name, fields), item)


@lru_cache(maxsize=1)
def _unpacked(name: str, fields: str) -> Job:
    """A worker keeps the job of its last part, and what it has loaded."""
    return unpacked(name, fields)


def _settled(fields: str) -> Attempt:
    try:
        return Compute.model_validate_json(fields).settled().model_dump_json(), None
    except Exception as fault:
        return None, fault


def _attempt(job: Job, item: Any) -> Attempt:  # noqa: ANN401
    """What a part makes, or what it raises: Ray would wrap that into words of its own."""

    def say(words: str) -> None:
        print(words, flush=True)  # noqa: T201  (Ray brings it to the log of the job)

    try:
        (result,) = job.parts([item], Voice(say, say))
    except Exception as fault:
        return None, fault
    return result, None


def _result(attempt: Attempt) -> Any:  # noqa: ANN401
    """What a part made; what it raised is raised here."""
    result, fault = attempt
    if fault is not None:
        raise fault
    return result


def _lost(error: Exception) -> RuntimeError:
    """What to say where Ray gave up."""
    return RuntimeError(
        f"the Ray cluster lost a part of this job {RETRIES} times, or had no memory for it: {error}. What is finished "
        "is kept; look at the cluster's nodes, or give parts more (CLIPCOV_RAY_CPUS)"
    )
