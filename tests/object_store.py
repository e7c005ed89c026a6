"""An object store on this machine: moto's server in a process of its own, and a proxy that lets some requests fail."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Thread, local
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from resources import mirror
from tests.resources.mlflow_server import free_port

BUCKET = "pool"
SERVE = "import sys; from moto.server import main; main(['-H', '127.0.0.1', '-p', sys.argv[1]])"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing-secret", "AWS_REGION": "us-east-1"}
# Nothing of this machine's own configuration counts, and nobody is asked for credentials over the network.
SETTINGS = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}
NOT_PASSED_ON = ("transfer-encoding", "content-length", "connection", "expect")  # of one connection each


@dataclass(frozen=True)
class ObjectStore:
    """A server with one empty bucket.

    Attributes:
        endpoint: Its address.
    """

    endpoint: str

    def at(self, place: str) -> str:
        """Address of a place in the bucket."""
        return f"s3://{BUCKET}/{place}"

    @property
    def environment(self) -> dict[str, str]:
        """All that a process needs to work with it."""
        return {**CREDENTIALS, **SETTINGS, "AWS_ENDPOINT_URL": self.endpoint}

    def use(self, monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> None:
        """Let this process work with it; a change of None takes a setting away."""
        for name, value in {**self.environment, **changes}.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
        mirror._opened.cache_clear()  # a client keeps the endpoint that it was made with

    def empty(self) -> None:
        """Forget all buckets, and make the bucket anew."""
        urlopen(Request(f"{self.endpoint}/moto-api/reset", method="POST"))
        urlopen(Request(f"{self.endpoint}/{BUCKET}", method="PUT"))


@contextmanager
def object_store(log: Path) -> Iterator[ObjectStore]:
    """Start a server on a free port and stop it at the end."""
    port = free_port()
    store = ObjectStore(f"http://127.0.0.1:{port}")
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-c", SERVE, str(port)], stdout=file, stderr=file)
        try:
            end = time.monotonic() + 60
            while not _answers(store.endpoint):
                assert process.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.1)
            store.empty()
            yield store
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """One server for all tests of a process."""
    with object_store(tmp_path_factory.mktemp("object-store") / "log") as found:
        yield found


@pytest.fixture
def bucket(server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """An empty bucket that this process works with."""
    server.empty()
    server.use(monkeypatch)
    return server


class Proxy:
    """Stands before a store and answers some requests by itself.

    Attributes:
        endpoint: Its address.
        every: Each so many requests, one is answered with 503; with 1 all of them, with 0 none.
        broken: What is in the path of requests that are always answered with 503; nothing where it is empty.
        failed: How many were.
        passed: Method and path of those that were passed on.
        unsigned: Whether requests without credentials are passed on.
    """

    def __init__(self, endpoint: str) -> None:
        """Nothing fails yet."""
        self.every, self.broken, self.failed, self.unsigned = 0, "", 0, True
        self.passed: list[str] = []
        self._numbers, self._to, self._connections = count(1), urlsplit(endpoint).netloc, local()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Proxy":
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Answer a request."""
        if (self.every and not next(self._numbers) % self.every) or (self.broken and self.broken in path):
            self.failed += 1
            return 503, {}, b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
        if not (self.unsigned or "authorization" in {name.lower() for name in headers}):
            return 403, {}, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.passed.append(f"{method} {path}")
        return self._forward(method, path, headers, body)

    def _forward(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        for again in (True, False):  # the server may have closed a connection that was idle
            connection = getattr(self._connections, "open", None) or HTTPConnection(self._to, timeout=30)
            self._connections.open = connection
            try:
                connection.request(method, path, body, headers)
                reply = connection.getresponse()
                return reply.status, dict(reply.getheaders()), reply.read()
            except (HTTPException, OSError):
                self._connections.open = None
                if not again:
                    raise
        raise AssertionError

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
                body = (
                    b"".join(self._chunks())
                    if chunked
                    else self.rfile.read(int(self.headers.get("Content-Length") or 0))
                )
                asked = {name: value for name, value in self.headers.items() if name.lower() not in NOT_PASSED_ON}
                status, headers, content = proxy.answer(self.command, self.path, asked, body)
                self.send_response_only(status)
                for name, value in headers.items():
                    if name.lower() not in NOT_PASSED_ON:
                        self.send_header(name, value)
                lengths = {name.lower(): value for name, value in headers.items()}
                length = lengths.get("content-length", "0") if self.command == "HEAD" else str(len(content))
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815

            def _chunks(self) -> Iterator[bytes]:
                while size := int(self.rfile.readline().partition(b";")[0], 16):
                    yield self.rfile.read(size)
                    self.rfile.readline()
                while self.rfile.readline().strip():
                    pass

            def log_message(self, format: str, *arguments: object) -> None:
                """Say nothing."""

        return Handler


@pytest.fixture
def proxy(bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the bucket, which this process works with."""
    with Proxy(bucket.endpoint) as found:
        bucket.use(monkeypatch, AWS_ENDPOINT_URL=found.endpoint)
        yield found


@pytest.fixture
def silent() -> Iterator[str]:
    """An endpoint that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield f"http://127.0.0.1:{found.getsockname()[1]}"


def _answers(endpoint: str) -> bool:
    try:
        with urlopen(f"{endpoint}/moto-api/", timeout=2) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False
