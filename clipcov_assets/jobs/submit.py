"""How a step has its job done: by this process, by a Ray that it connects to, or by a Ray job that Pipes starts.

The cluster never sees Dagster's history: a job takes its fields along, and sends back what it made.
"""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from clipcov_assets.jobs.job import Job, Local, Outcome, Voice, packed
from resources.compute import Compute
from resources.mirror import without_secret

if TYPE_CHECKING:
    from dagster_ray import PipesRayJobClient
    from dagster_ray.kuberay import PipesKubeRayJobClient

KUBERNETES = "kubernetes"
ENTRYPOINT = "python -m clipcov_assets.jobs"
# Names in what goes to a job and comes back from it.
JOB, FIELDS, VERSIONS, OUTCOME, FAULT = "job", "fields", "versions", "outcome", "fault"
WORK = "clipcov/work"  # metadata of a Ray job: the asset and partition that it makes
STARTING_SECONDS = 600  # of a RayJob's cluster


class JobFault(dg.Failure):
    """What a job on a cluster says that a person has to mend; trying again would not help."""


def carry_out(context: dg.AssetExecutionContext, job: Job) -> Outcome:
    """Do a job where the settings say, and return what it made.

    Raises:
        ValueError: What the job raises for bad data; or Ray is not installed, refuses this machine, or has no node
            with what a part takes.
        JobFault: The same, where the job ran elsewhere.
        ConnectionError: No cluster answers.
        RuntimeError: The cluster lost the job.
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
    return {"python": python, "ray": version("ray"), "clipcov-assets": version("clipcov-assets")}


def _submitted(context: dg.AssetExecutionContext, job: Job) -> Outcome:
    """Start a Ray job, follow it, and return what it sends."""
    from clipcov_assets.jobs.on_ray import check_answer, quiet, the_library

    quiet()
    the_library()
    compute = job.compute
    name, fields = packed(job)
    if without_secret(fields) != fields:
        raise ValueError(
            "an address in the settings (such as MLFLOW_TRACKING_URI) holds a password, and a Ray cluster shows what "
            "its jobs are sent: take it out, and give it to the processes of the cluster in their environment"
        )
    extras = {JOB: name, FIELDS: json.loads(fields), VERSIONS: versions()}
    kubernetes = compute.ray_address == KUBERNETES
    if not kubernetes:
        check_answer(compute.ray_address)
    with _listening() as (reader, heard):
        try:
            if kubernetes:
                _kubernetes(compute, reader).run(context=context, ray_job=_ray_job(compute), extras=extras)
            else:
                partition = context.partition_key if context.has_partition_key else ""
                work = {WORK: f"{context.asset_key.to_user_string()} {partition}"}
                client = _cluster(compute, reader)
                _stop_earlier(context, client, work)
                client.run(
                    context=context, submit_job_params={"entrypoint": ENTRYPOINT, "metadata": work}, extras=extras
                )
        except RuntimeError as error:
            if FAULT not in heard():
                raise RuntimeError(_in_words(error, compute)) from error
    if FAULT in heard():
        fault = heard()[FAULT]
        if fault["may_pass"]:
            raise RuntimeError(fault["words"])
        raise JobFault(fault["words"], allow_retries=False)
    outcome: Outcome = heard()[OUTCOME]
    return outcome


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


def _stop_earlier(context: dg.AssetExecutionContext, client: "PipesRayJobClient", work: dict[str, str]) -> None:
    """Stop a job that makes the same: its run died, or this one would not have begun."""
    for one in client.client.list_jobs():
        if not one.status.is_terminal() and (one.metadata or {}).items() >= work.items() and one.submission_id:
            context.log.warning(f"the Ray job {one.submission_id} of a run that died is stopped")
            client.client.stop_job(one.submission_id)


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


def _in_words(error: RuntimeError, compute: Compute) -> str:
    """Why a job ended without a word of its own."""
    told = str(error)
    if re.search(r"No module named '?clipcov_assets|python: (command )?not found", told):
        return (
            f"the Ray cluster at {compute.ray_address} has no Python with this project: use the same image on all its "
            f"nodes, or install it there and start Ray from that environment. It said: {told[-500:]}"
        )
    return f"the Ray job ended before it was done; what is finished is kept. {told[-2_000:]}"
