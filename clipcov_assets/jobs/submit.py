"""How a step has its job done: by this process, by a Ray that it connects to, or by a Ray job that Pipes starts.

The cluster never sees Dagster's history: a job takes its fields along, and sends back what it made.
"""

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from clipcov_assets.jobs.job import Job, Local, Outcome, Voice, packed
from resources.compute import Compute
from resources.mirror import without_secret
from resources.patience import in_time

if TYPE_CHECKING:
    from dagster_ray import PipesRayJobClient
    from dagster_ray.kuberay import PipesKubeRayJobClient

KUBERNETES = "kubernetes"
# Ray tells what it starts that it has one core; the driver has its node's, and computes on them (semdedup's k-means).
ENTRYPOINT = "env -u OMP_NUM_THREADS python -m clipcov_assets.jobs"
ROOT, SOURCES = Path(__file__).parents[2], ("clipcov_assets", "resources")
# Names in what goes to a job and comes back from it.
JOB, FIELDS, VERSIONS, OUTCOME, FAULT = "job", "fields", "versions", "outcome", "fault"
MESSAGE = "report_custom_message"  # how Pipes calls what brings them
WORK = "clipcov/work"  # metadata of a Ray job, and label of a RayJob: what it makes, and where
ENDED = ("Complete", "Failed", "ValidationFailed")  # how KubeRay calls RayJobs that do nothing any more
STARTING_SECONDS = 600  # of a RayJob's cluster
STOPPING_SECONDS = 60  # of a job that is told to stop


class JobFault(dg.Failure):
    """What a job on a cluster says that a person has to mend; trying again would not help."""


def carry_out(context: dg.AssetExecutionContext, job: Job) -> Outcome:
    """Do a job where the settings say, and return what it made.

    Raises:
        ValueError: What the job raises for bad data; or Ray is not installed, refuses this machine, or has no node
            with what a part takes.
        JobFault: The same, where the job ran elsewhere.
        ConnectionError: No cluster answers.
        RuntimeError: The cluster, or Kubernetes, lost the job.
    """
    compute, voice = job.compute, Voice(context.log.info, context.log.warning)
    if not (compute.on_cluster and job.divides):
        return job.run(Local(voice))
    if compute.ray_address == KUBERNETES or "://" in compute.ray_address:
        return _submitted(context, job)
    from clipcov_assets.jobs.on_ray import OnRay

    return job.run(OnRay(compute, voice, address=compute.ray_address))


def versions() -> dict[str, str]:
    """What must be equal on both sides: else a job could mean, or compute, something else there."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    project = f"{version('clipcov-assets')} {sources_digest(ROOT)}"
    return {"python": python, "ray": version("ray"), "clipcov-assets": project}


@cache
def sources_digest(root: Path) -> str:
    """Digest of the project's sources: one version has many commits."""
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(path for package in SOURCES for path in (root / package).rglob("*.py")):
        digest.update(f"{path.relative_to(root)} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _submitted(context: dg.AssetExecutionContext, job: Job) -> Outcome:
    """Start a Ray job, follow it, and return what it sends."""
    from clipcov_assets.jobs.on_ray import quiet, the_library

    quiet()
    the_library()
    name, fields = packed(job)
    if without_secret(fields) != fields:
        raise ValueError(
            "an address in the settings (such as MLFLOW_TRACKING_URI) holds a password, and a Ray cluster shows what "
            "its jobs are sent: take it out, and give it to the processes of the cluster in their environment"
        )
    extras = {JOB: name, FIELDS: json.loads(fields), VERSIONS: versions()}
    follow, failed = _on_kubernetes if job.compute.ray_address == KUBERNETES else _on_cluster, None
    with _listening() as (reader, heard):
        try:
            follow(context, job.compute, reader, extras)
        except RuntimeError as error:
            failed = error
        # What follows the log may break, and then an outcome is in it that was not heard.
        told = found if (found := heard()).keys() & {OUTCOME, FAULT} else _in_log(reader)
    if FAULT in told:
        fault = told[FAULT]
        if fault["may_pass"]:
            raise RuntimeError(fault["words"])
        raise JobFault(fault["words"], allow_retries=False)
    if OUTCOME not in told:
        raise RuntimeError(_in_words(failed, job.compute)) from failed
    outcome: Outcome = told[OUTCOME]
    return outcome


def _on_cluster(context: dg.AssetExecutionContext, compute: Compute, reader: Any, extras: dict[str, Any]) -> None:  # noqa: ANN401
    """Have a standing cluster do the job, and wait for its end.

    Raises:
        ConnectionError: No cluster answers.
        ValueError: It refuses this machine.
        TimeoutError: An earlier job that makes the same goes on.
        RuntimeError: The job failed.
    """
    from clipcov_assets.jobs.on_ray import check_answer

    check_answer(compute.ray_address)
    client, work = _cluster(compute, reader), {WORK: _work(context, extras)}
    _stop_earlier(context, client, work)
    client.run(context=context, submit_job_params={"entrypoint": ENTRYPOINT, "metadata": work}, extras=extras)


def _on_kubernetes(context: dg.AssetExecutionContext, compute: Compute, reader: Any, extras: dict[str, Any]) -> None:  # noqa: ANN401
    """Have a RayJob of Kubernetes do the job, and wait for its end.

    Raises:
        ValueError: There is no template.
        ConnectionError: Kubernetes does not answer, or refuses.
        TimeoutError: An earlier job that makes the same goes on, or this one does not start.
        RuntimeError: The job failed.
    """
    client, ray_job = _kubernetes(compute, reader), _ray_job(compute)
    from kubernetes.client import ApiException  # type: ignore[import-untyped]
    from urllib3.exceptions import HTTPError

    label = hashlib.blake2b(_work(context, extras).encode(), digest_size=16).hexdigest()
    ray_job["metadata"].setdefault("labels", {})[WORK] = label
    try:
        _delete_earlier(context, client, ray_job["metadata"]["namespace"], label)
        client.run(context=context, ray_job=ray_job, extras=extras)
    except (ApiException, HTTPError) as error:
        raise ConnectionError(
            "Kubernetes (CLIPCOV_RAY_ADDRESS is 'kubernetes') does not answer, or refuses: "
            f"{' '.join(str(error).split())[:500]}. Look at its API server, and at the rights of this account "
            "(deploy/kubernetes/rights.yaml). A RayJob that was started goes on until this step is tried again"
        ) from error


def _work(context: dg.AssetExecutionContext, extras: Mapping[str, Any]) -> str:
    """What a job makes, and in which tables: no two may make it at once, and what others make is left alone."""
    partition = context.partition_key if context.has_partition_key else ""
    return f"{context.asset_key.to_user_string()} {partition} in {extras[FIELDS]['store']['uri']}"


@contextmanager
def _listening() -> Iterator[tuple[Any, Any]]:
    """A reader of a job's messages, and what has been heard so far: a job that failed has said why."""
    from dagster_ray.core.pipes import PipesRayJobMessageReader

    class Reader(PipesRayJobMessageReader):
        handler: Any = None

        @contextmanager
        def read_messages(self, handler: Any) -> Iterator[Any]:  # noqa: ANN401
            self.handler = handler
            with super().read_messages(handler) as parameters:
                yield parameters

    reader = Reader()

    def heard() -> dict[str, Any]:
        messages = reader.handler.get_custom_messages() if reader.handler else ()
        return {name: value for message in messages for name, value in message.items()}

    yield reader, heard


def _cluster(compute: Compute, reader: Any) -> "PipesRayJobClient":  # noqa: ANN401
    """A client of a standing cluster.

    Raises:
        ValueError: It refuses this machine.
    """
    from dagster_ray import PipesRayJobClient

    client = PipesRayJobClient(address=compute.ray_address, message_reader=reader)
    try:
        _ = client.client
    except Exception as error:
        raise ValueError(
            f"the Ray cluster at {compute.ray_address} (CLIPCOV_RAY_ADDRESS) takes no jobs: {error} Where it asks for "
            "a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN; its Ray must be of the same version as here"
        ) from error
    return client


def _in_log(reader: Any) -> dict[str, Any]:  # noqa: ANN401
    """The messages in the log of a job; none where the job never began, or its log cannot be read."""
    from clipcov_assets.jobs.on_ray import ANSWER_SECONDS

    try:
        log = in_time(lambda: reader.client.get_job_logs(reader.job_id), ANSWER_SECONDS)
    except Exception:  # the client raises what its libraries raise
        return {}
    return messages_in(log)


def messages_in(log: str) -> dict[str, Any]:
    """What a job has sent through Pipes, which writes a line of JSON into its log for each message."""
    told: dict[str, Any] = {}
    for line in log.splitlines():
        if MESSAGE in line:
            with suppress(ValueError, LookupError, TypeError):  # a line of somebody else's
                told |= json.loads(line)["params"]["payload"]
    return told


def _stop_earlier(context: dg.AssetExecutionContext, client: "PipesRayJobClient", work: dict[str, str]) -> None:
    """Stop a job that makes the same, and wait for its end: its run died, or this one would not have begun.

    Raises:
        TimeoutError: It goes on.
    """
    earlier = [
        str(one.submission_id)
        for one in client.client.list_jobs()
        if not one.status.is_terminal() and (one.metadata or {}).items() >= work.items()
    ]
    for name in earlier:
        context.log.warning(f"the Ray job {name} of a run that died is stopped")
        client.client.stop_job(name)
    _wait_until(lambda: all(client.client.get_job_status(name).is_terminal() for name in earlier), earlier)


def _delete_earlier(
    context: dg.AssetExecutionContext, client: "PipesKubeRayJobClient", namespace: str, label: str
) -> None:
    """Delete a RayJob that makes the same, and wait until it is gone, which its controller sees to.

    Raises:
        TimeoutError: It goes on.
    """
    found = client.client.list(namespace, label_selector=f"{WORK}={label}").get("items", ())
    earlier: list[str] = [
        one["metadata"]["name"] for one in found if one.get("status", {}).get("jobDeploymentStatus") not in ENDED
    ]
    for name in earlier:
        context.log.warning(f"the RayJob {namespace}/{name} of a run that died is deleted")
        client.client.delete(name, namespace)
    _wait_until(lambda: not any(client.client.get(name, namespace) for name in earlier), earlier)


def _wait_until(ended: Callable[[], bool], jobs: Sequence[str]) -> None:
    deadline = time.monotonic() + STOPPING_SECONDS
    while not ended():
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"{', '.join(jobs)} on the Ray cluster makes the same, was told to stop {STOPPING_SECONDS} s ago, and "
                "goes on: stop it by hand"
            )
        time.sleep(0.5)


def _kubernetes(compute: Compute, reader: Any) -> "PipesKubeRayJobClient":  # noqa: ANN401
    try:
        from dagster_ray.kuberay import PipesKubeRayJobClient
    except ImportError as error:
        raise ValueError(
            "CLIPCOV_RAY_ADDRESS is 'kubernetes', for which pip install 'clipcov-assets[kubernetes]' is needed"
        ) from error
    # A cluster that brings its nodes first takes as long as it may.
    return PipesKubeRayJobClient(message_reader=reader, timeout=max(compute.ray_patience, STARTING_SECONDS))


def _ray_job(compute: Compute) -> dict[str, Any]:
    """The RayJob of a step, as the template says, with our entrypoint.

    Raises:
        ValueError: There is no template.
    """
    import yaml

    path = Path(compute.ray_job)
    if not path.is_file():
        raise ValueError(
            f"no RayJob template at {compute.ray_job!r}: set CLIPCOV_RAY_JOB to a file such as "
            "deploy/kubernetes/ray_job.yaml"
        )
    template: dict[str, Any] = yaml.safe_load(path.read_text())
    template["spec"]["entrypoint"] = ENTRYPOINT
    return template


def _in_words(error: RuntimeError | None, compute: Compute) -> str:
    """Why a job ended without a word of its own."""
    if error is None:
        return "the Ray job is done, but neither it nor its log says what it made: what is finished is kept; try again"
    told = str(error)
    if re.search(r"No module named '?clipcov_assets|python.?: (command )?(not found|No such file)", told):
        return (
            f"the Ray cluster at {compute.ray_address} has no Python with this project: use the same image on all its "
            f"nodes, or install it there and start Ray from that environment. It said: {told[-500:]}"
        )
    return f"the Ray job ended before it was done; what is finished is kept. {told[-2_000:]}"
