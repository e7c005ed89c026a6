"""A tracking server of MLflow on a free port of this machine, which tests stop and start again."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

SETTINGS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server with its database and artifacts in one directory."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, seconds: float = 120) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.home / 'server.db'}"]
        command += ["--artifacts-destination", str(self.home / "artifacts")]
        with (self.home / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=os.environ | SETTINGS, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + seconds
        while not self._answers():
            assert time.monotonic() < end, (self.home / "server.log").read_text()
            time.sleep(0.2)

    def stop(self) -> None:
        """Kill it with its worker."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.address}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False
