"""The wiring, on one screen: assets, checks, automation and resources."""

import os
from typing import Any

import dagster as dg
from pydantic import ValidationError

from clipcov_assets.assets.checkpoints import checkpoint_asset, partial_checkpoint
from clipcov_assets.assets.combined_subsets import combined_subset_asset
from clipcov_assets.assets.comparison import comparison
from clipcov_assets.assets.embeddings import embeddings
from clipcov_assets.assets.exports import export_asset
from clipcov_assets.assets.latent_classes import latent_classes
from clipcov_assets.assets.pool import pool
from clipcov_assets.assets.proxy_checkpoint import proxy_checkpoint
from clipcov_assets.assets.rankings import clipcov_class_ranking, ranking_asset
from clipcov_assets.assets.raw_pairs import raw_pairs
from clipcov_assets.assets.scorecards import scorecard_asset
from clipcov_assets.assets.subsets import subset_asset
from clipcov_assets.automation import reselection
from clipcov_assets.checks import all_checks
from clipcov_assets.crawl_sensor import new_crawls
from clipcov_assets.failures import failed_backfills, failures
from clipcov_assets.launch import early_look, export, look_at_deliveries, reselect, train_and_score, withdraw
from clipcov_assets.methods import COMBINED, COMPARED, SELECTIONS
from clipcov_assets.scales import HOME
from clipcov_assets.tidy import tidy, weekly_tidy
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

ASSETS = [
    raw_pairs,
    proxy_checkpoint,
    embeddings,
    latent_classes,
    pool,
    clipcov_class_ranking,
    partial_checkpoint,
    *(ranking_asset(method) for method in COMPARED if method != "full"),
    *(subset_asset(method) for method in COMPARED),
    *map(combined_subset_asset, COMBINED.values()),
    *(build(name) for build in (export_asset, checkpoint_asset, scorecard_asset) for name in SELECTIONS),
    comparison,
]


def resources() -> dict[str, Any]:
    """The outside world: everything that is made goes to `var/`, unless the environment says otherwise."""
    made = HOME / "var"
    return {
        "catalog": CrawlCatalog(
            directory=os.environ.get("CLIPCOV_CRAWLS", str(HOME / "data/demo/crawls")),
            most_quarantined=float(os.environ.get("CLIPCOV_MOST_QUARANTINED", "0.2")),
        ),
        "suite": EvaluationSuite(
            directory=os.environ.get("CLIPCOV_EVALUATION", str(HOME / "data/demo/eval")), cache=str(made / "evaluation")
        ),
        "heads": HeadCache(directory=str(made / "heads")),
        "store": LanceStore(uri=os.environ.get("CLIPCOV_LANCE", str(made / "lance"))),
        "staging": Staging(directory=str(made / "staging"), pieces_at=os.environ.get("CLIPCOV_PIECES", "")),
        "encoder": ClipEncoder(
            directory=os.environ.get("CLIPCOV_CHECKPOINTS", str(made / "checkpoints")), cache=str(made / "cached")
        ),
        "tracker": MlflowTracker(
            tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{made / 'mlflow.db'}"),
            artifact_directory=str(made / "mlflow"),
        ),
        "exports": ExportShelf(
            directory=os.environ.get("CLIPCOV_EXPORTS", str(made / "exports")), staging=str(made / "exporting")
        ),
        "shelf": ReportShelf(
            directory=str(made / "reports"),
            dagster_ui=os.environ.get("CLIPCOV_DAGSTER_UI", "http://127.0.0.1:3000"),
            pages=os.environ.get("CLIPCOV_PAGES_UI", "http://127.0.0.1:3001"),
        ),
        "compute": _compute(),
        "alerts": Alerts(file=str(made / "alerts.log"), webhook=os.environ.get("CLIPCOV_ALERT_WEBHOOK", "")),
    }


def _compute() -> Compute:
    """Where the dear work is done.

    Raises:
        ValueError: A variable that says nothing; the message names it.
    """
    names = {
        "backend": "CLIPCOV_COMPUTE",
        "ray_address": "CLIPCOV_RAY_ADDRESS",
        "ray_cpus": "CLIPCOV_RAY_CPUS",
        "ray_gpus": "CLIPCOV_RAY_GPUS",
        "ray_patience": "CLIPCOV_RAY_PATIENCE",
        "ray_job": "CLIPCOV_RAY_JOB",
    }
    told: dict[str, Any] = {field: os.environ[name] for field, name in names.items() if os.environ.get(name)}
    try:
        return Compute(**told)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        raise ValueError(f"{names[field]} is {told[field]!r}: {first['msg']}") from error


@dg.definitions
def defs() -> dg.Definitions:
    """Every asset, check, sensor, schedule and resource of the project."""
    return dg.Definitions(
        assets=ASSETS,
        asset_checks=all_checks(),
        jobs=[reselect, train_and_score, export, withdraw, look_at_deliveries, tidy],
        sensors=[new_crawls, reselection, failures, failed_backfills],
        schedules=[early_look, weekly_tidy],
        resources=resources(),
        executor=dg.in_process_executor,
    )
