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
    def run(self, name: str, tags: Mapping[str, str]) -> Iterator[TrackedRun]:
        """Open a run and close it FINISHED, or FAILED when the block raises.

        Args:
            name: Shown in MLflow, such as `clipcov_checkpoint/crawl-1/f10`.
            tags: Dagster's asset, partition and run, so that each side finds the other.
        """
        client = self._client()
        experiment_id = self._experiment_id(client)
        created = client.create_run(experiment_id, run_name=name, tags=dict(tags))
        run = TrackedRun(client, experiment_id, created.info.run_id, self._ui())
        try:
            yield run
        except BaseException:
            client.set_terminated(run.run_id, status="FAILED")
            raise
        client.set_terminated(run.run_id, status="FINISHED")

    def reopen(self, run_id: str) -> TrackedRun:
        """The run of an earlier asset, so that a scorecard joins its checkpoint's run."""
        client = self._client()
        return TrackedRun(client, client.get_run(run_id).info.experiment_id, run_id, self._ui())

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
