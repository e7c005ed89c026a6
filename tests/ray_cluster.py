"""A Ray cluster of two nodes on this machine, each with one core, and jobs that are slow enough to be disturbed.

The second node says that it has a GPU, which Ray believes.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from clipcov_assets.jobs.job import Job

MEMORY = 100 * 2**20  # bytes of objects on a node: tests are small


class RayCluster:
    """Two nodes; the second can be lost and comes back."""

    def __init__(self, cluster, dashboard):
        self._cluster = cluster
        self.address = cluster.address
        self.dashboard = dashboard
        self.add_node()

    def add_node(self):
        self._second = self._cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=MEMORY)

    def lose_node(self):
        """End the second node as a machine ends that loses its power."""
        self._cluster.remove_node(self._second, allow_graceful=False)


@contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    """Start a cluster of this test's own, and end it."""
    # On a loopback cluster nobody asks for tokens; its jobs find Python where this one is.
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    import ray
    from ray.cluster_utils import Cluster

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    head = {"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": True, "dashboard_port": port}
    head["_system_config"] = {"health_check_period_ms": 200}  # a lost node is missed after five; Ray's own is 3 s
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield RayCluster(cluster, f"http://127.0.0.1:{port}")
    finally:
        ray.shutdown()
        cluster.shutdown()


def workers(name):
    """Processes of Ray's workers that do a task or are an actor of this name, such as `ray::_part`."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(word.startswith(name) for word in process.info["cmdline"] or ()):
            found.append(process)
    return found


def wait_until(condition, *, seconds=60):
    """Wait until something is so, and return what it is."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)
    return found


class Marks(Job):
    """Each part leaves a mark with the number of the process that did it, and takes its time."""

    directory: str
    seconds: float = 0.0
    fails_at: int = -1
    dies_at: int = -1

    def run(self, backend):
        return {"squares": dict(backend.each(self, list(range(8))))}

    def parts(self, items, voice):
        for item in items:
            if item == self.fails_at:
                raise ValueError(f"row {item} is damaged: deliver it again")
            with (Path(self.directory) / str(item)).open("a") as file:
                file.write(f"{os.getpid()}\n")
            if item == self.dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(self.seconds)
            yield item * item


class Machine(Job):
    """Its one part tells on what it works."""

    def run(self, backend):
        return dict(backend.each(self, ["a part"]))[0]

    def parts(self, items, voice):
        for _ in items:
            yield {"device": self.compute.device, "workers": self.compute.resolved_workers()}


class StreamedMarks(Marks):
    """The same through actors."""

    streams = True
