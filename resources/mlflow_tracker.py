"""MLflow: one run for each checkpoint, closed FINISHED or FAILED."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field


@dataclass(frozen=True)
class TrackedRun:
    """An open MLflow run."""

    client: Any
    experiment_id: str
    run_id: str
    ui: str

    def log_parameters(self, parameters: Mapping[str, object]) -> None:
        """Record what the run was started with."""
        for key, value in parameters.items():
            self.client.log_param(self.run_id, key, value)

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Record numbers at a step; curves use samples seen as the step."""
        for key, value in metrics.items():
            self.client.log_metric(self.run_id, key, value, step=step)

    def log_curve(self, points: list[tuple[int, dict[str, float]]], *, chunk: int = 500) -> None:
        """Record (samples seen, metrics) points in few requests."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, step) for step, values in points for key, value in values.items()]
        for start in range(0, len(metrics), chunk):
            self.client.log_batch(self.run_id, metrics=metrics[start : start + chunk])

    @property
    def address(self) -> str:
        """The run's page in MLflow."""
        return f"{self.ui}/#/experiments/{self.experiment_id}/runs/{self.run_id}"


class MlflowTracker(dg.ConfigurableResource):
    """Opens one MLflow run per asset partition, with no global active run."""

    tracking_uri: str = Field(description="`sqlite:///path` or the address of a tracking server.")
    artifact_directory: str = Field(description="Where a local database keeps artifacts.")
    ui: str = Field(
        default="http://127.0.0.1:5000",
        description="Where MLflow is looked at, when its runs are in a database.",
    )
    experiment: str = Field(default="clipcov-assets", description="Name of the MLflow experiment.")

    @contextmanager
    def run(self, name: str, tags: Mapping[str, str], *, earlier: str | None = None) -> Iterator[TrackedRun]:
        """Open a run and close it FINISHED, or FAILED when the block raises.

        Args:
            name: Shown in MLflow, such as `clipcov_checkpoint/crawl-1/f10`.
            tags: Dagster's asset, partition and run, so that each side finds the other.
            earlier: Run of work that was broken off and goes on; a new one is opened where MLflow no longer has it.
        """
        client = self._client()
        found = self._earlier(client, earlier)
        if found is None:
            found = client.create_run(self._experiment_id(client), run_name=name)
        client.update_run(found.info.run_id, status="RUNNING")
        for key, value in tags.items():
            client.set_tag(found.info.run_id, key, value)
        run = TrackedRun(client, found.info.experiment_id, found.info.run_id, self._ui())
        try:
            yield run
        except BaseException:
            client.set_terminated(run.run_id, status="FAILED")
            raise
        client.set_terminated(run.run_id, status="FINISHED")

    def abandon(self, run_id: str) -> None:
        """Close a run whose work was broken off and will not go on; nothing happens where MLflow no longer has it."""
        client = self._client()
        if self._earlier(client, run_id) is not None:
            client.set_terminated(run_id, status="KILLED")

    def reopen(self, run_id: str) -> TrackedRun:
        """The run of an earlier asset, so that a scorecard joins its checkpoint's run."""
        client = self._client()
        return TrackedRun(client, client.get_run(run_id).info.experiment_id, run_id, self._ui())

    def _earlier(self, client: Any, run_id: str | None) -> Any | None:  # noqa: ANN401
        from mlflow.exceptions import MlflowException

        try:
            return None if run_id is None else client.get_run(run_id)
        except MlflowException:
            return None

    def _ui(self) -> str:
        return self.tracking_uri.rstrip("/") if self.tracking_uri.startswith("http") else self.ui

    def _client(self) -> Any:  # noqa: ANN401  (mlflow is imported late)
        # MLflow collects usage data unless it is told not to.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        if self.tracking_uri.startswith("sqlite:///"):
            Path(self.tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        return MlflowClient(self.tracking_uri)

    def _experiment_id(self, client: Any) -> str:  # noqa: ANN401
        found = client.get_experiment_by_name(self.experiment)
        if found is not None:
            return str(found.experiment_id)
        location = None if self.tracking_uri.startswith("http") else Path(self.artifact_directory).resolve().as_uri()
        return str(client.create_experiment(self.experiment, artifact_location=location))
