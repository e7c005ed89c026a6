"""What the web page asks Dagster for, answered in this process."""

import os
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.webserver import DagsterWebserver
from starlette.testclient import TestClient

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """A function that sends a GraphQL query and returns its data."""
    home = tmp_path_factory.mktemp("dagster")
    os.environ["CLIPCOV_HOME"] = str(REPOSITORY)
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        instance.add_dynamic_partitions("crawl", ["crawl-1"])
        instance.report_runless_asset_event(
            dg.AssetMaterialization("pool", partition="crawl-1", metadata={"pairs": 99, "dagster/row_count": 99})
        )
        target = WorkspaceFileTarget([str(REPOSITORY / "workspace.yaml")])
        with WorkspaceProcessContext(instance, target) as context:
            client = TestClient(DagsterWebserver(context).create_asgi_app())

            def send(query):
                answer = client.post("/graphql", json={"query": query}).json()
                assert "errors" not in answer, answer
                return answer["data"]

            yield send


def test_the_workspace_file_loads_the_location_without_an_error(ask):
    (entry,) = ask(
        "{workspaceOrError {... on Workspace {locationEntries {name loadStatus locationOrLoadError {__typename}}}}}"
    )["workspaceOrError"]["locationEntries"]
    assert entry["name"] == "clipcov_assets"
    assert entry["locationOrLoadError"]["__typename"] == "RepositoryLocation"


def test_assets_are_shown_in_groups_with_descriptions_kinds_and_columns(ask):
    nodes = ask(
        "{assetNodes {assetKey {path} groupName description kinds owners {... on TeamAssetOwner {team}}"
        " metadataEntries {label}}}"
    )["assetNodes"]
    by_name = {node["assetKey"]["path"][-1]: node for node in nodes}
    assert by_name["raw_pairs"]["groupName"] == "1_crawls"
    assert by_name["comparison"]["groupName"] == "6_scorecards"
    assert "cross-covariance" in by_name["clipcov_subset"]["description"]
    assert "mlflow" in by_name["clipcov_checkpoint"]["kinds"]
    assert by_name["pool"]["owners"] == [{"team": "data"}]
    assert "dagster/column_schema" in {entry["label"] for entry in by_name["pool"]["metadataEntries"]}


def test_a_partitions_numbers_are_answered(ask):
    node = ask(
        '{assetNodeOrError(assetKey: {path: ["pool"]}) {... on AssetNode {'
        "partitionKeys assetMaterializations(limit: 1)"
        " {partition metadataEntries {label ... on IntMetadataEntry {intValue}}}}}}"
    )["assetNodeOrError"]
    assert node["partitionKeys"] == ["crawl-1"]
    (materialization,) = node["assetMaterializations"]
    assert materialization["partition"] == "crawl-1"
    assert {"label": "pairs", "intValue": 99} in materialization["metadataEntries"]


def test_subsets_have_a_partition_for_each_crawl_and_fraction(ask):
    keys = ask('{assetNodeOrError(assetKey: {path: ["clipcov_subset"]}) {... on AssetNode {partitionKeys}}}')
    assert set(keys["assetNodeOrError"]["partitionKeys"]) == {"crawl-1|f20", "crawl-1|f50"}


def test_sensor_schedule_and_conditions_are_there_and_running(ask):
    repository = ask(
        '{repositoryOrError(repositorySelector: {repositoryLocationName: "clipcov_assets",'
        ' repositoryName: "__repository__"}) {... on Repository {'
        "sensors {name sensorState {status}} schedules {name cronSchedule scheduleState {status}}}}}"
    )["repositoryOrError"]
    assert {one["name"]: one["sensorState"]["status"] for one in repository["sensors"]} == {
        "new_crawls": "RUNNING",
        "reselection": "RUNNING",
        "failures": "RUNNING",
        "failed_backfills": "RUNNING",
    }
    assert {one["name"]: one["cronSchedule"] for one in repository["schedules"]} == {
        "early_look_at_deliveries": "0 5 * * *",
        "weekly_tidy": "0 4 * * 0",
    }
    labels = ask("{assetNodes {assetKey {path} automationCondition {label}}}")["assetNodes"]
    conditions = [one["automationCondition"] for one in labels if not one["assetKey"]["path"][-1].endswith("_export")]
    assert {condition["label"] for condition in conditions} == {
        "on_arrival",
        "once_pairs_are_there",
        "when_inputs_change",
        "repool",
        "reselect",
        "nightly_training",
        "when_scored",
        "when_trained",
    }
