"""MLflow: one run for each checkpoint, under one run for each crawl and method; nothing fails where MLflow is away."""

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import dagster as dg
from pydantic import Field

from resources.tracked_run import OpenRun, Report, RunMissingError, TrackedRun

# What MLflow is told where the environment does not say otherwise. It tries for minutes by default; here a thread tries
# again by itself.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
SHARED = "clipcov.shared_run"
SQLITE = "sqlite:///"
# Within this many seconds a database must be free to write.
DATABASE_SECONDS = 5.0
# MLflow's pages open with runs and curves, and not with what it has for chats.
MODEL_TRAINING = {"mlflow.experimentKind": "custom_model_development"}
log = logging.getLogger(__name__).warning
Find = Callable[[Any], Any]


class MlflowTracker(dg.ConfigurableResource):
    """Records runs in MLflow, with no global active run.

    Work never fails because of MLflow and hardly waits for it: what is recorded is kept in memory and sent by a thread.
    """

    tracking_uri: str = Field(description="`sqlite:///path` or the address of a tracking server.")
    artifact_directory: str = Field(description="Where a local database keeps artifacts.")
    ui: str = Field(
        default="http://127.0.0.1:5000",
        description="Where MLflow is looked at, when its runs are in a database.",
    )
    experiment: str = Field(default="clipcov-assets", description="Name of the MLflow experiment.")
    every_seconds: float = Field(
        default=10.0, description="Seconds between two sendings, and between two samples of the machine's load."
    )
    patience_seconds: float = Field(
        default=30.0, description="Longest wait for MLflow in seconds, at the start and at the end of a run."
    )

    @contextmanager
    def run(
        self,
        name: str,
        tags: Mapping[str, str],
        *,
        parent: tuple[str, str] | None = None,
        earlier: str | None = None,
        report: Report = log,
    ) -> Iterator[TrackedRun]:
        """Open a run with the machine's load, and close it FINISHED, or FAILED when the block raises.

        Args:
            name: Shown in MLflow, such as `clipcov_checkpoint/crawl-1/f10`.
            tags: Dagster's asset, partition and run, so that each side finds the other.
            parent: Crawl and method whose runs it is shown under.
            earlier: Run of work that was broken off and goes on; a new one is opened where MLflow no longer has it.
            report: Told when MLflow is away, and what could not be recorded.
        """

        def find(client: Any) -> Any:  # noqa: ANN401  (mlflow is imported late)
            try:
                found = _known(earlier)(client)
            except RunMissingError:
                experiment = self._experiment_id(client)
                above = {} if parent is None else {"mlflow.parentRunId": _parent(client, experiment, *parent)}
                return client.create_run(experiment, run_name=name, tags={**tags, **above})
            client.update_run(found.info.run_id, status="RUNNING")
            _tag(client, found, tags)
            return found

        with self._recorded(name, find, report, status="FINISHED", with_load=True, run_id=earlier) as run:
            yield run

    @contextmanager
    def shared_run(self, name: str, tags: Mapping[str, str], *, report: Report = log) -> Iterator[TrackedRun]:
        """Add to the one run of a name, which is made where it is not there yet, and stays FINISHED.

        Args:
            name: Shown in MLflow, such as `crawl-2 comparison`.
            tags: Take the place of earlier ones.
            report: Told when MLflow is away, and what could not be recorded.
        """

        def find(client: Any) -> Any:  # noqa: ANN401
            found = _shared(client, self._experiment_id(client), name, tags)
            _tag(client, found, tags)
            return found

        with self._recorded(name, find, report) as run:
            yield run

    @contextmanager
    def reopen(self, run_id: str | None, *, report: Report = log) -> Iterator[TrackedRun]:
        """Add to the run of an earlier asset, so that a scorecard joins its checkpoint's run; its status stays.

        Args:
            run_id: None where the earlier asset could not be recorded; then nothing is, and that is told.
            report: Told when MLflow is away, and what could not be recorded.
        """
        with self._recorded("the earlier run", _known(run_id), report, run_id=run_id) as run:
            yield run

    def abandon(self, run_id: str | None, *, report: Report = log) -> None:
        """Close a run as KILLED, whose work was broken off and will not go on."""
        if run_id is not None:
            with self._recorded(f"run {run_id}", _known(run_id), report, status="KILLED", run_id=run_id):
                pass

    @contextmanager
    def _recorded(
        self,
        name: str,
        find: Find,
        report: Report,
        *,
        status: str | None = None,
        with_load: bool = False,
        run_id: str | None = None,
    ) -> Iterator[TrackedRun]:
        for key, value in SETTINGS.items():
            os.environ.setdefault(key, value)
        # In this thread, since others import at the same time.
        import mlflow.tracking  # noqa: F401

        run = TrackedRun(
            name,
            partial(self._open, find),
            check=self._check,
            report=report,
            every_seconds=self.every_seconds,
            patience_seconds=self.patience_seconds,
            with_load=with_load,
            run_id=run_id,
        )
        try:
            run.begin()
            yield run
        except BaseException:
            run.end(None if status is None else "FAILED")
            raise
        run.end(status)

    def _check(self) -> None:
        """Raise soon where a local database cannot be written: MLflow itself tries for minutes."""
        if self.tracking_uri.startswith(SQLITE):
            path = Path(self.tracking_uri.removeprefix(SQLITE))
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(path, timeout=DATABASE_SECONDS)) as database:
                database.execute("BEGIN IMMEDIATE")
                database.rollback()

    def _open(self, find: Find) -> OpenRun:
        from mlflow.tracking import MlflowClient

        client = MlflowClient(self.tracking_uri)
        found = find(client)
        place = urlparse(found.info.artifact_uri)
        is_here = place.scheme in ("", "file") and not self._by_server
        return OpenRun(
            client=client,
            run_id=found.info.run_id,
            address=f"{self.address}/#/experiments/{found.info.experiment_id}/runs/{found.info.run_id}",
            artifacts=Path(url2pathname(place.path)) if is_here else None,
            last_steps={one.key: one.step for one in found.data._metric_objs},
        )

    def _experiment_id(self, client: Any) -> str:  # noqa: ANN401
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(self.experiment)
        if found is not None:
            return str(found.experiment_id)
        location = None if self._by_server else Path(self.artifact_directory).resolve().as_uri()
        try:
            return str(client.create_experiment(self.experiment, artifact_location=location, tags=MODEL_TRAINING))
        except MlflowException:
            # Another process may have been faster.
            found = client.get_experiment_by_name(self.experiment)
            if found is None:
                raise
            return str(found.experiment_id)

    @property
    def _by_server(self) -> bool:
        return self.tracking_uri.startswith("http")

    @property
    def address(self) -> str:
        """Where MLflow is looked at."""
        return (self.tracking_uri if self._by_server else self.ui).rstrip("/")


def _known(run_id: str | None) -> Find:
    """Find a run by its id."""

    def find(client: Any) -> Any:  # noqa: ANN401
        from mlflow.exceptions import MlflowException

        if run_id is None:
            raise RunMissingError("the earlier work was not recorded")
        try:
            found = client.get_run(run_id)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            raise RunMissingError(f"MLflow has no run {run_id}") from error
        if found.info.lifecycle_stage == "deleted":
            raise RunMissingError(f"run {run_id} was deleted in MLflow")
        return found

    return find


def _parent(client: Any, experiment: str, crawl: str, method: str) -> str:  # noqa: ANN401
    tags = {"clipcov.crawl": crawl, "clipcov.method": method}
    return str(_shared(client, experiment, f"{crawl} {method}", tags).info.run_id)


def _shared(client: Any, experiment: str, name: str, tags: Mapping[str, str]) -> Any:  # noqa: ANN401
    """The one run of a name: the oldest, since two processes may make it at once."""

    def oldest() -> Any:  # noqa: ANN401
        wanted = f"tags.`{SHARED}` = '{name}'"
        found = client.search_runs([experiment], wanted, max_results=1, order_by=["attributes.start_time ASC"])
        return found[0] if found else None

    found = oldest()
    if found is not None:
        return found
    made = client.create_run(experiment, run_name=name, tags={**tags, SHARED: name})
    client.set_terminated(made.info.run_id)
    found = oldest()
    if found.info.run_id != made.info.run_id:
        client.delete_run(made.info.run_id)
    return found


def _tag(client: Any, found: Any, tags: Mapping[str, str]) -> None:  # noqa: ANN401
    from mlflow.entities import RunTag

    client.log_batch(found.info.run_id, tags=[RunTag(key, value) for key, value in tags.items()])
