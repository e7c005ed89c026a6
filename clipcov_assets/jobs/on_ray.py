"""The parts of jobs on a Ray cluster: as tasks, or through Ray Data where many parts share a model.

Only this module and `clipcov_assets.jobs.submit` know Ray, which is an extra: `pip install '.[ray]'`.
"""

import json
import logging
import os
import pickle
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import lru_cache
from typing import Any, cast
from urllib.error import HTTPError
from urllib.request import urlopen

from clipcov_assets.jobs.job import Job, Voice, packed, unpacked
from resources.compute import Compute
from resources.patience import asked, in_time

ANSWER_SECONDS = 15  # a cluster that does not answer by then is not there
LOOK_SECONDS = 30  # without a result, until it is asked whether there still is a node that can make one
RETRIES = 5  # of a part whose worker or node was lost, or had no memory for it
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
        """What `auto` means on the nodes that do the parts: one that has a GPU is asked.

        Raises:
            ValueError: A device or precision that is not there.
            RuntimeError: Workers were lost again and again.
        """
        import ray

        takes = self._takes(compute, 1)
        compute = _of_part(compute, takes)
        if not takes["GPU"]:
            return compute.settled()
        task = ray.remote(_settled).options(num_cpus=takes["CPU"], num_gpus=takes["GPU"], max_retries=RETRIES)
        try:
            found = self._next_task([task.remote(compute.model_dump_json())], takes)
            fields, fault = ray.get(found)
        except ray.exceptions.RayError as error:
            raise _lost(error) from error
        return Compute.model_validate_json(_result((fields, fault)))

    def each(self, job: Job, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yield the parts as they are finished; one whose worker or node was lost is done again by another.

        Raises:
            ValueError: No node has what a part takes.
            RuntimeError: Workers were lost again and again, or every node that could do a part. What a part raises is
                raised here.
        """
        if not items:
            return
        takes = self._takes(job.compute, job.gpus)
        job = job.model_copy(update={"compute": _of_part(job.compute, takes)})
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
                ready = self._next_task(list(waiting), takes)
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
            max_restarts=RETRIES,  # of a worker; tasks are sent again all the time until a lost node is missed
        )
        done = cast("Generator[dict[str, Any]]", iter(parts.iter_rows()))
        found = asked(lambda: next(done, None))
        try:
            while row := self._waited_for(found, takes):
                yield int(row[PLACE]), _result(pickle.loads(row[RESULT]))  # noqa: S301  (our own worker wrote it)
                found = asked(lambda: next(done, None))
        except ray.exceptions.RayError as error:
            raise _lost(error) from error
        finally:
            # Ends the workers. While a row is waited for nobody can: then whoever waits for it does so after it.
            found.add_done_callback(lambda _: done.close())

    def _next_task(self, waiting: list[Any], takes: Mapping[str, float]) -> Any:  # noqa: ANN401
        """The task that is done next; while none is, the nodes are looked at now and then.

        Raises:
            RuntimeError: None that is left has what a part takes.
        """
        import ray

        while not (ready := ray.wait(waiting, num_returns=1, timeout=LOOK_SECONDS)[0]):
            self._look_for(takes)
        return ready[0]

    def _waited_for(self, row: "Future[dict[str, Any] | None]", takes: Mapping[str, float]) -> dict[str, Any] | None:
        """The same for a row of Ray Data, which waits for ever by itself; None after the last."""
        while not wait([row], timeout=LOOK_SECONDS).done:
            self._look_for(takes)
        return row.result()

    def _takes(self, compute: Compute, gpus: int) -> dict[str, float]:
        """What a part takes of one node that has all of it; waits for such a node.

        Raises:
            ValueError: None has it in time.
        """
        takes = {"CPU": self._compute.ray_cpus or 1, "GPU": self._gpus(gpus) if compute.device != "cpu" else 0}
        self._wait_for(takes)
        if takes["GPU"] and self._compute.ray_cpus is None:
            takes["CPU"] = cores_beside(takes["GPU"], _nodes())
        return takes

    def _gpus(self, wanted: int) -> float:
        """GPUs of a part: the share that the settings name, or as many as it uses, where the cluster has any."""
        if self._compute.ray_gpus is not None:
            return self._compute.ray_gpus * wanted
        wants_them = self._compute.device.startswith("cuda")
        return wanted if wants_them or any(node.get("GPU") for node in _nodes()) else 0

    def _slots(self, takes: Mapping[str, float]) -> int:
        """Parts that fit on the cluster at a time."""
        wanted = {kind: amount for kind, amount in takes.items() if amount}
        return sum(int(min(node.get(kind, 0) // amount for kind, amount in wanted.items())) for node in _nodes())

    def _wait_for(self, takes: Mapping[str, float]) -> None:
        """Wait until one node has what a part takes: a cluster that scales itself brings it when it is asked.

        Raises:
            ValueError: None has it in time.
        """
        deadline = time.monotonic() + self._compute.ray_patience
        while not any(has_room(node, takes) for node in _nodes()):
            if time.monotonic() > deadline:
                there = "; ".join(sorted({_in_words(node, takes) for node in _nodes()}))
                raise ValueError(
                    f"a part of this job takes {_in_words(takes, takes)}, and no node of the Ray cluster has all of it "
                    f"(they have {there or 'nothing'}): lower CLIPCOV_RAY_CPUS, CLIPCOV_RAY_GPUS or compute.devices, "
                    "add a node, or give a cluster that scales itself more time than CLIPCOV_RAY_PATIENCE "
                    f"({self._compute.ray_patience} s)"
                )
            _ask_for([takes])
            time.sleep(0.5)
        _ask_for([])

    def _look_for(self, takes: Mapping[str, float]) -> None:
        """Look whether there still is a node that has what a part takes: else Ray would wait for one for ever.

        Raises:
            RuntimeError: There is none, and none came in time.
        """
        try:
            self._wait_for(takes)
        except ValueError as error:
            raise RuntimeError(f"the Ray cluster lost its nodes; what is finished is kept. Now {error}") from error


class Actor:
    """A worker of Ray Data, which keeps the job, and what it has loaded, from part to part."""

    def __init__(self, name: str, fields: str) -> None:
        """Nothing is loaded yet: a worker that dies of it dies in a part, whose retries are counted."""
        self._job = name, fields

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Do the parts of some rows."""
        done = [pickle.dumps(_part(*self._job, pickle.loads(item))) for item in batch[ITEM]]  # noqa: S301
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
    """Ray calls nobody, starts workers with the Python that runs, and does not run out of memory again and again."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))


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
    """Raise a ConnectionError where no Ray answers in time, at `host:port` of a cluster or `http://host:port`."""
    try:
        in_time(lambda: _check_dashboard(address) if "://" in address else _check_head(address), ANSWER_SECONDS)
    except Exception as error:  # what is no Ray answers in all kinds of ways
        raise ConnectionError(
            f"no Ray cluster answers at {address!r} (CLIPCOV_RAY_ADDRESS): {error}. Start it, or mend the address: "
            "host:6379 of a cluster that this machine belongs to, http://host:8265 of its dashboard, or nothing"
        ) from error


def has_room(node: Mapping[str, float], takes: Mapping[str, float]) -> bool:
    """Whether one node has all that a part takes."""
    return all(node.get(kind, 0) >= amount for kind, amount in takes.items())


def cores_beside(gpus: float, nodes: Sequence[Mapping[str, float]]) -> int:
    """Cores of a part that takes GPUs: their share of a node's, where a node has fewest for each."""
    there = [node for node in nodes if has_room(node, {"CPU": 1, "GPU": gpus})]
    fewest = min((node["CPU"] / node["GPU"] for node in there), default=1)
    return max(1, int(fewest * gpus))


def _check_dashboard(address: str) -> None:
    try:
        with urlopen(f"{address.rstrip('/')}/api/version", timeout=ANSWER_SECONDS) as answer:
            told = answer.read()
    except HTTPError as error:
        if error.code in (401, 403):  # it asks for the token, which the client sends
            return
        raise
    if "ray_version" not in json.loads(told):
        raise ValueError("what answers is no Ray dashboard")


def _check_head(address: str) -> None:
    import grpc  # type: ignore[import-untyped]

    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=ANSWER_SECONDS)
        except grpc.RpcError as error:
            raise ConnectionError(error.details()) from error


def _ask_for(bundles: Sequence[Mapping[str, float]]) -> None:
    """Ask a cluster that scales itself for nodes with this room; others do not listen."""
    from ray.autoscaler import sdk

    with suppress(Exception):
        sdk.request_resources(bundles=[dict(bundle) for bundle in bundles])


def _nodes() -> list[dict[str, float]]:
    """What each node has."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def _in_words(room: Mapping[str, float], kinds: Mapping[str, float]) -> str:
    return ", ".join(f"{room.get(kind, 0):g} {kind}" for kind in kinds)


def _of_part(compute: Compute, takes: Mapping[str, float]) -> Compute:
    """What a part is told of its machine: its cores, and that a GPU that it does not take is not its own."""
    return compute.model_copy(update={"ray_cpus": takes["CPU"]} | ({} if takes["GPU"] else {"device": "cpu"}))


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
