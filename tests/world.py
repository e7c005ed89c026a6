"""A whole world of resources in one directory, and runs against it."""

from pathlib import Path

import dagster as dg

from clipcov_assets.checks import all_checks
from clipcov_assets.definitions import ASSETS
from resources.alerts import Alerts
from resources.clip_encoder import ClipEncoder
from resources.compute import Compute
from resources.crawl_catalog import CrawlCatalog
from resources.evaluation_suite import EvaluationSuite
from resources.export_shelf import ExportShelf
from resources.head_cache import HeadCache
from resources.lance_store import LanceStore
from resources.mlflow_tracker import MlflowTracker
from resources.report_shelf import ReportShelf
from resources.staging import Staging


def world(home: Path) -> dict[str, dg.ConfigurableResource]:
    """Every resource of the project, kept in one directory."""
    return {
        "catalog": CrawlCatalog(directory=str(home / "crawls")),
        "suite": EvaluationSuite(directory=str(home / "eval"), cache=str(home / "evaluation")),
        "heads": HeadCache(directory=str(home / "heads")),
        "store": LanceStore(uri=str(home / "lance")),
        "staging": Staging(directory=str(home / "staging")),
        "encoder": ClipEncoder(directory=str(home / "checkpoints")),
        "tracker": MlflowTracker(
            tracking_uri=f"sqlite:///{home / 'mlflow.db'}", artifact_directory=str(home / "mlflow")
        ),
        "exports": ExportShelf(directory=str(home / "exports")),
        "shelf": ReportShelf(directory=str(home / "reports")),
        "compute": Compute(device="cpu", batch_size=16),
        "alerts": Alerts(file=str(home / "alerts.log")),
    }


class Machine:
    """A Dagster instance and a world, to materialize assets in."""

    def __init__(self, home: Path, instance: dg.DagsterInstance, **changed: dg.ConfigurableResource) -> None:
        self.home = home
        self.instance = instance
        self.resources = world(home) | changed
        self.store: LanceStore = self.resources["store"]
        definitions = dg.Definitions(assets=ASSETS, asset_checks=all_checks(), resources=self.resources)
        self._job = definitions.resolve_implicit_global_asset_job_def()

    def materialize(
        self,
        *assets: str,
        partition: str | None = None,
        ok: bool = True,
        config: dict[str, dict[str, object]] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Materialize assets of one partition with their checks; `ok=False` returns a failure instead of raising.

        `config` is what a person sets in the launchpad, asset by asset.
        """
        return self._job.execute_in_process(
            asset_selection=[dg.AssetKey(asset) for asset in assets],
            partition_key=partition,
            run_config={"ops": {asset: {"config": values} for asset, values in (config or {}).items()}},
            instance=self.instance,
            raise_on_error=ok,
        )

    def check(self, result: dg.ExecuteInProcessResult, name: str) -> dg.AssetCheckEvaluation:
        """The evaluation of one check of a run."""
        return next(one for one in result.get_asset_check_evaluations() if one.check_name == name)

    def metadata(self, asset: str, partition: str | None = None) -> dict[str, object]:
        """Metadata of the newest materialization of an asset's partition, as plain values."""
        wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[partition] if partition else None)
        record = self.instance.fetch_materializations(wanted, limit=1).records[0]
        found = record.asset_materialization.metadata
        return {name: value.value for name, value in found.items()} | {
            name: [row.data for row in value.records]
            for name, value in found.items()
            if isinstance(value, dg.TableMetadataValue)
        }

    def data_version(self, asset: str, partition: str | None = None) -> str:
        """Data version of the newest materialization of an asset's partition."""
        wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[partition] if partition else None)
        record = self.instance.fetch_materializations(wanted, limit=1).records[0]
        return record.asset_materialization.tags["dagster/data_version"]
