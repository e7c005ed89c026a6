"""Dagster as it runs in production, in this process: what the daemon does on a tick, what a page asks for."""

import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dagster import AssetKey
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._serdes import serialize_value
from dagster_webserver.webserver import DagsterWebserver
from starlette.testclient import TestClient

from benchmarks.crawl_year import instance_in

WORKSPACE, LOCATION = Path(__file__).parents[1] / "workspace.yaml", "clipcov_assets"
SENSOR, SUBSET = "reselection", "clipcov_subset"
# What pages ask for: the fields that cost something of the queries that Dagster 1.13's pages send.
LIVE = """query Live($assetKeys: [AssetKeyInput!]!) {
  assetNodes(assetKeys: $assetKeys, loadMaterializations: true) {
    opNames assetMaterializations(limit: 1) {timestamp runId} assetObservations(limit: 1) {runId}
    partitionStats {numMaterialized numMaterializing numPartitions numFailed}
    assetChecksOrError {... on AssetChecks {checks {
      name executionForLatestMaterialization {runId status evaluation {severity}}
      partitionStatuses {
        ... on AssetCheckDefaultPartitionStatuses {succeededPartitions failedPartitions inProgressPartitions}
        ... on AssetCheckMultiPartitionStatuses {ranges {
          primaryDimStartKey primaryDimEndKey
          secondaryDim {... on AssetCheckDefaultPartitionStatuses {succeededPartitions failedPartitions}}}}}}}}}
  assetsLatestInfo(assetKeys: $assetKeys) {unstartedRunIds inProgressRunIds latestRun {status startTime endTime}}}"""
METADATA = """metadataEntries {
  label description ... on TextMetadataEntry {text} ... on MarkdownMetadataEntry {mdStr} ... on UrlMetadataEntry {url}
  ... on FloatMetadataEntry {floatValue} ... on IntMetadataEntry {intValue} ... on JsonMetadataEntry {jsonString}
  ... on TableMetadataEntry {table {records schema {columns {name type}}}}}"""
NEWEST = f"""query Newest($assetKey: AssetKeyInput!) {{
  assetOrError(assetKey: $assetKey) {{... on Asset {{assetMaterializations(limit: 1) {{
  timestamp runId partition {METADATA}}} assetObservations(limit: 1) {{runId}}}}}}}}"""
DEFINITION = """query Definition($assetKey: AssetKeyInput!) {assetOrError(assetKey: $assetKey) {... on Asset {
  assetMaterializations(limit: 1) {timestamp} definition {
    description opNames kinds jobNames partitionStats {numMaterialized numPartitions} hasAssetChecks
    metadataEntries {label} dependencyKeys {path} dependedByKeys {path} automationCondition {label expandedLabel}
    partitionDefinition {description dimensionTypes {name}} staleStatus staleCauses {reason}}}}}"""
PARTITIONS = """query Partitions($assetKey: AssetKeyInput!) {assetNodeOrError(assetKey: $assetKey) {... on AssetNode {
  partitionKeysByDimension {name type partitionKeys}
  assetPartitionStatuses {
    ... on DefaultPartitionStatuses {materializedPartitions materializingPartitions failedPartitions}
    ... on MultiPartitionStatuses {primaryDimensionName ranges {primaryDimStartKey primaryDimEndKey
      secondaryDim {... on DefaultPartitionStatuses {
        materializedPartitions materializingPartitions failedPartitions}}}}}}}}"""
EVENTS = f"""query Events($assetKey: AssetKeyInput!) {{assetOrError(assetKey: $assetKey) {{... on Asset {{
  assetEventHistory(limit: 100, eventTypeSelectors: [MATERIALIZATION, OBSERVATION, FAILED_TO_MATERIALIZE]) {{
    cursor results {{... on MaterializationEvent {{partition runId timestamp tags {{key value}}
      runOrError {{... on Run {{id status}}}} {METADATA}}}}}}}}}}}}}"""
CHECKS = """query Checks($assetKey: AssetKeyInput!) {assetNodeOrError(assetKey: $assetKey) {... on AssetNode {
  assetChecksOrError {... on AssetChecks {checks {
    name description blocking executionForLatestMaterialization {
      runId status timestamp evaluation {severity metadataEntries {label}}}}}}}}}"""
WHOLE_GRAPH = """query Graph {workspaceLocationEntryOrError(name: "clipcov_assets") {... on WorkspaceLocationEntry {
  locationOrLoadError {... on RepositoryLocation {repositories {
    assetGroups {groupName} assetNodes {
      groupName opNames isPartitioned hasAssetChecks kinds jobNames description(characterLimit: 240) changedReasons
      dependencyKeys {path} owners {... on TeamAssetOwner {team}} tags {key value} assetKey {path}
      hasMaterializePermission partitionDefinition {dimensionTypes {type}} automationCondition {label}}}}}}}}"""
RUNS = """query Runs {runsFeedOrError(limit: 30, filter: {}, view: ROOTS) {... on RunsFeedConnection {
  cursor hasMore results {id runStatus creationTime startTime endTime tags {key value} jobName
    ... on Run {assetSelection(limit: 25) {... on AssetKey {path}} assetSelectionCount assetCheckSelectionCount
      canTerminate hasDeletePermission pipelineSnapshotId repositoryOrigin {repositoryName}}}}}}"""
OF_AN_ASSET = (LIVE, DEFINITION)  # on every page of an asset
PAGES: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "the graph": (None, (WHOLE_GRAPH,)),
    "the graph's group of subsets": (None, (LIVE,)),
    "a subset": (SUBSET, (*OF_AN_ASSET, NEWEST)),
    "a subset's partitions": (SUBSET, (*OF_AN_ASSET, PARTITIONS)),
    "a subset's events": (SUBSET, (*OF_AN_ASSET, EVENTS)),
    "a subset's checks": (SUBSET, (*OF_AN_ASSET, CHECKS)),
    "the pool": ("pool", (*OF_AN_ASSET, NEWEST)),
    "the pool's events": ("pool", (*OF_AN_ASSET, EVENTS)),
    "the comparison": ("comparison", (*OF_AN_ASSET, NEWEST)),
    "the runs": (None, (RUNS,)),
}


class Site:
    """An instance with its code server, its conditions' sensor and its web server, as they run in production."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        """Start them."""
        self.instance = stack.enter_context(instance_in(directory))
        workspace = WorkspaceFileTarget([str(WORKSPACE)])
        process = stack.enter_context(
            WorkspaceProcessContext(self.instance, workspace, code_server_log_level="WARNING")
        )
        self._location = process.create_request_context().get_code_location(LOCATION)
        (self._repository,) = self._location.get_repositories().values()
        self._client = TestClient(DagsterWebserver(process).create_asgi_app())
        self._ticks = 0
        self.cursor: str | None = None

    def tick(self) -> int:
        """Evaluate all conditions in the code server, and store evaluations and cursor as the daemon does.

        Returns:
            The bytes of the evaluations that were stored: of every asset of which something changed.
        """
        data = self._location.get_sensor_execution_data(
            self.instance, self._repository.handle, SENSOR, time.time(), None, self.cursor, None, None
        )
        self._ticks, self.cursor = self._ticks + 1, data.cursor or ""
        evaluations = [one.with_run_ids(set()) for one in data.automation_condition_evaluations]
        storage = self.instance.schedule_storage
        if storage is None:
            raise ValueError("the instance has no storage for schedules: dagster.yaml configures one")
        with partition_loading_context(effective_dt=datetime.now(UTC), dynamic_partitions_store=self.instance):
            storage.add_auto_materialize_asset_evaluations(self._ticks, evaluations)
        self.instance.daemon_cursor_storage.set_cursor_values({SENSOR: self.cursor})
        return sum(len(serialize_value(one)) for one in evaluations)

    def partitions(self) -> int:
        """How many partitions a subset has."""
        definition = self._repository.asset_graph.get(AssetKey(SUBSET)).partitions_def
        if definition is None:
            raise ValueError(f"{SUBSET} has no partitions")
        return len(definition.get_partition_keys(dynamic_partitions_store=self.instance))

    def arrive(self, crawl: str) -> None:
        """Add a crawl, as the sensor does that finds deliveries."""
        self.instance.add_dynamic_partitions("crawl", [crawl])

    def load(self, page: str) -> None:
        """Load a page: one query after the other."""
        asset, queries = PAGES[page]
        for query in queries:
            content = {"query": query, "variables": self._variables(asset, query)}
            answer = self._client.post("/graphql", json=content).json()
            if "errors" in answer:
                raise ValueError(f"{page} is not answered: {answer['errors'][0]['message']}")

    def _variables(self, asset: str | None, query: str) -> dict[str, Any]:
        if query == LIVE:
            keys = [AssetKey(asset)] if asset else self._group()
            return {"assetKeys": [{"path": list(key.path)} for key in keys]}
        return {"assetKey": {"path": [asset]}} if asset else {}

    def _group(self) -> list[AssetKey]:
        """The assets that stand beside the subset in the graph."""
        graph = self._repository.asset_graph
        name = graph.get(AssetKey(SUBSET)).group_name
        return [key for key in graph.get_all_asset_keys() if graph.get(key).group_name == name]
