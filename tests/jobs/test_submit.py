"""A step that has its job done elsewhere says what is wrong with the place, before and after it is reached."""

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import dagster as dg
import pytest

from clipcov_assets.jobs import on_ray, submit
from clipcov_assets.jobs.on_ray import check_answer
from resources.compute import Compute
from resources.lance_store import LanceStore
from tests.jobs.test_on_ray import Steps, embed_job, fault_of
from tests.object_store import silent

__all__ = ["silent"]
pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[2]


@pytest.fixture
def steps():
    with dg.DagsterInstance.ephemeral() as instance:
        yield Steps(instance)


@pytest.fixture
def job(tmp_path):
    return embed_job(tmp_path, Compute())


@pytest.mark.parametrize("address", ["127.0.0.1:1", "http://127.0.0.1:1"])
def test_a_cluster_that_is_not_there_is_named_at_once(steps, job, address):
    began = time.monotonic()
    words = fault_of(steps.run(job, ray_address=address))
    assert f"no Ray cluster answers at {address!r} (CLIPCOV_RAY_ADDRESS)" in words
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_what_never_answers_is_given_up(silent, monkeypatch, scheme):
    monkeypatch.setattr(on_ray, "ANSWER_SECONDS", 0.3)
    with pytest.raises(ConnectionError, match=r"no Ray cluster answers at .* \(CLIPCOV_RAY_ADDRESS\)"):
        check_answer(silent.replace("http://", scheme))


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_what_answers_and_is_no_ray_cluster_is_named(kubernetes, scheme):
    with pytest.raises(ConnectionError, match=r"no Ray cluster answers at .* \(CLIPCOV_RAY_ADDRESS\)"):
        check_answer(kubernetes.address.replace("http://", scheme))


def test_an_address_that_is_none_is_named():
    with pytest.raises(ConnectionError, match=r"no Ray cluster answers at 'http://cluster:' \(CLIPCOV_RAY_ADDRESS\)"):
        check_answer("http://cluster:")


@pytest.mark.parametrize("uri", ["s3://key:secret@bucket/lance", "s3://bucket/lance?user=u&password=secret"])
def test_no_password_is_sent_along(steps, job, uri):
    told = job.model_copy(update={"store": LanceStore(uri=uri)})
    words = fault_of(steps.run(told, ray_address="http://127.0.0.1:1"))
    assert "holds a password" in words
    assert "secret" not in words


def test_a_template_that_is_not_there_is_named(steps, job):
    words = fault_of(steps.run(job, ray_address="kubernetes", ray_job="nothing.yaml"))
    assert "no RayJob template at 'nothing.yaml': set CLIPCOV_RAY_JOB" in words


def test_nothing_imports_ray_where_it_is_not_asked_for():
    code = "import clipcov_assets.definitions, clipcov_assets.jobs.submit, sys; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ}).returncode == 0


def test_two_commits_of_one_version_are_told_apart(tmp_path):
    (tmp_path / "resources").mkdir()
    source = tmp_path / "resources/one.py"
    digests = set()
    for text in ("a = 1", "a = 2"):
        source.write_text(text)
        submit.sources_digest.cache_clear()
        digests.add(submit.sources_digest(tmp_path))
    assert len(digests) == 2
    assert submit.versions()["clipcov-assets"].endswith(submit.sources_digest(ROOT))


def test_an_outcome_is_found_in_a_log():
    told = {"method": "report_custom_message", "params": {"payload": {"outcome": {"pairs": 3}}}}
    log = f"report_custom_message is said by others, too\n{json.dumps(told)}\nthe end"
    assert submit.messages_in(log) == {"outcome": {"pairs": 3}}


class Kubernetes(BaseHTTPRequestHandler):
    """An API server that knows some RayJobs, lets them be deleted, and starts none."""

    def do_GET(self):
        found = [name for name in self.server.jobs if "labelSelector=" in self.path or self.path.endswith(name)]
        self.server.asked.append(self.path)
        items = [
            {"metadata": {"name": name}, "status": {"jobDeploymentStatus": self.server.jobs[name]}} for name in found
        ]
        self.answer(200 if found else 404, {"items": items})

    def do_DELETE(self):
        del self.server.jobs[self.path.rpartition("/")[2]]
        self.answer(200, {})

    def do_POST(self):
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.answer(500, {"message": "etcdserver: leader changed"})

    def answer(self, status, content):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture
def kubernetes(monkeypatch, tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), Kubernetes) as server:
        server.jobs, server.asked = {"earlier": "Running", "over": "Complete"}, []
        server.address = f"http://127.0.0.1:{server.server_address[1]}"
        Thread(target=server.serve_forever, daemon=True).start()
        one = {"name": "here", "cluster": {"server": server.address}, "context": {"cluster": "here"}}
        settings = {"current-context": "here", "clusters": [one], "contexts": [one]}
        (tmp_path / "kubeconfig").write_text(json.dumps(settings))
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
        yield server
        server.shutdown()


def test_kubernetes_that_fails_is_tried_again_without_the_ray_job_of_the_run_before(steps, job, kubernetes):
    template = ROOT / "deploy/kubernetes/ray_job.yaml"
    began = steps.run(job, ray_address="kubernetes", ray_job=str(template))
    words = fault_of(began)
    assert words.startswith("ConnectionError: Kubernetes (CLIPCOV_RAY_ADDRESS is 'kubernetes') does not answer")
    assert "leader changed" in words
    assert list(kubernetes.jobs) == ["over"]
    listed, _, created = kubernetes.asked
    assert listed.endswith(f"labelSelector=clipcov%2Fwork%3D{created['metadata']['labels'][submit.WORK]}")
