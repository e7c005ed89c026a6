"""The product as its user runs it: webserver, daemon and pages in processes of their own, on an empty directory."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
START_SECONDS, STOP_SECONDS = 120, 30
SELECT_SECONDS, TRAIN_SECONDS = 600, 600  # on a machine that does other things, too; alone it takes two minutes
METHODS = ("clipcov", "clip_score", "semdedup", "metaclip", "random")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGE_MILLISECONDS = 60_000
# The pictures of the README are made with the demo's models: CLIPCOV_PICTURES_SCALE=demo.
SCALE = os.environ.get("CLIPCOV_PICTURES_SCALE", "tiny")


class Product:
    """A running product, and questions to it."""

    def __init__(self, home: Path, dagster: str, pages: str) -> None:
        self.home, self.dagster, self.pages = home, dagster, pages

    def deliver(self, crawl: str) -> None:
        """A crawl of the demo lands: it is copied beside, then moved to its place."""
        shutil.copytree(REPOSITORY / "data/demo/crawls" / crawl, self.home / f"{crawl}.copy")
        (self.home / f"{crawl}.copy").rename(self.home / "crawls" / crawl)

    def ask(self, query: str, **variables: object) -> dict:
        """The answer to a GraphQL query, as Dagster's own page asks them."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.dagster}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            found = json.load(answer)
        assert "errors" not in found, found
        return found["data"]

    def made(self, *assets: str) -> set[tuple[str, str]]:
        """(asset, partition) of everything of these assets that is materialized."""
        query = "query($path: [String!]!) {assetNodeOrError(assetKey: {path: $path}) {... on AssetNode {"
        query += "assetMaterializations(limit: 500) {partition}}}}"
        return {
            (asset, one["partition"])
            for asset in assets
            for one in self.ask(query, path=[asset])["assetNodeOrError"]["assetMaterializations"]
        }

    def runs(self) -> list[dict]:
        """Every run with its status and tags."""
        found = self.ask("{runsOrError {... on Runs {results {runId jobName status tags {key value}}}}}")
        return found["runsOrError"]["results"]

    def wait_for(self, wanted: set[tuple[str, str]], seconds: float) -> None:
        """Look every other second whether everything wanted is there; a failed run ends the wait."""
        assets = sorted({asset for asset, _ in wanted})
        until = time.monotonic() + seconds
        while missing := wanted - self.made(*assets):
            failed = [run for run in self.runs() if run["status"] == "FAILURE"]
            assert not failed, f"{failed}\n{self.log()[-6_000:]}"
            assert time.monotonic() < until, (
                f"still missing after {seconds:.0f} s: {sorted(missing)}\n{self.log()[-6_000:]}"
            )
            time.sleep(2)

    def log(self) -> str:
        """What Dagster's processes wrote."""
        return (self.home / "dagster.log").read_text()


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    home = tmp_path_factory.mktemp("product")
    (home / "crawls").mkdir()
    (home / "data").symlink_to(REPOSITORY / "data")
    shutil.copy(REPOSITORY / "dagster.yaml", home)
    dagster, pages = free_port(), free_port()
    product = Product(home, f"http://127.0.0.1:{dagster}", f"http://127.0.0.1:{pages}")
    environment = {
        **os.environ,
        "CLIPCOV_SCALE": SCALE,
        "CLIPCOV_HOME": str(home),
        "CLIPCOV_CRAWLS": str(home / "crawls"),
        "CLIPCOV_DAGSTER_UI": product.dagster,
        "CLIPCOV_PAGES_UI": product.pages,
        "DAGSTER_HOME": str(home),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    web = ["dagster", "dev", "-w", str(REPOSITORY / "workspace.yaml"), "-h", "127.0.0.1", "-p", str(dagster)]
    with ExitStack() as stack:
        stack.enter_context(process(home, environment, "dagster.log", *web))
        stack.enter_context(process(home, environment, "pages.log", "clipcov_assets.pages", "--port", str(pages)))
        for address in (f"{product.dagster}/server_info", f"{product.pages}/"):
            wait_until_there(address, product)
        yield product


def fractions(product):
    keys = product.ask('{assetNodeOrError(assetKey: {path: ["random_subset"]}) {... on AssetNode {partitionKeys}}}')
    return sorted({key.partition("|")[2] for key in keys["assetNodeOrError"]["partitionKeys"]})


@pytest.fixture(scope="module")
def selected(product):
    """The product after a crawl has landed and every subset of it is there that needs no training."""
    product.deliver("crawl-1")
    product.wait_for({("raw_pairs", "crawl-1")}, SELECT_SECONDS)
    wanted = {(f"{method}_subset", f"crawl-1|{fraction}") for method in METHODS for fraction in fractions(product)}
    product.wait_for(wanted | {("full_subset", "crawl-1|f100")}, SELECT_SECONDS)
    return product


@pytest.fixture(scope="module")
def scored(selected):
    """The same after a person has started one job; the comparison follows by itself."""
    (fraction, *_) = fractions(selected)
    config = {"methods": ["clipcov", "random", "full"], "fractions": [fraction]}
    selector = {
        "repositoryLocationName": "clipcov_assets",
        "repositoryName": "__repository__",
        "pipelineName": "train_and_score",
    }
    started = selected.ask(
        "mutation($parameters: ExecutionParams!) {launchRun(executionParams: $parameters) {__typename}}",
        parameters={"selector": selector, "runConfigData": {"ops": {"start_training": {"config": config}}}},
    )
    assert started["launchRun"]["__typename"] == "LaunchRunSuccess"
    cards = {(f"{method}_scorecard", f"crawl-1|{fraction}") for method in ("clipcov", "random")}
    selected.wait_for(cards | {("full_scorecard", "crawl-1|f100"), ("comparison", "crawl-1")}, TRAIN_SECONDS)
    return selected


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Where the walk's pictures go: a folder that is named, or one that is forgotten."""
    named = os.environ.get("CLIPCOV_PICTURES")
    return Path(named) if named else tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def page(scored):
    """A page of a browser that remembers what went wrong in it."""
    if BROWSER is None:
        assert "CLIPCOV_NEEDS_BROWSER" not in os.environ, "no chromium is installed: apt-get install chromium"
        pytest.skip("no chromium is installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(PAGE_MILLISECONDS)
        page.complaints = []
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("console", lambda said: said.type == "error" and page.complaints.append(said.text))
        page.on(
            "response", lambda answer: answer.status >= 400 and page.complaints.append(f"{answer.status} {answer.url}")
        )
        yield page
        browser.close()


@contextmanager
def process(home: Path, environment: dict[str, str], log: str, module: str, *arguments: str):
    """A module that runs until the block ends; then it and all that it started are told to stop."""
    with (home / log).open("w") as output:
        running = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=home,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield
        finally:
            running.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                running.wait(STOP_SECONDS)
            end_group(running.pid)


def end_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_there(address: str, product: Product) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < until, product.log()[-6_000:]
            time.sleep(0.5)
