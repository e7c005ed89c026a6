"""The machine that measures: nothing enters, its description, its versions and its rates leave."""

import os
import platform
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from benchmarks.measure import Floor, best_of

PACKAGES = (
    "numpy",
    "numba",
    "torch",
    "open_clip_torch",
    "faiss-cpu",
    "pyahocorasick",
    "lancedb",
    "apricot-select",
    "submodlib-py",
    "clip-benchmark",
)
STREAM_BYTES = 2**30
MATRIX_SIDE = 4096


@dataclass(frozen=True)
class Rates:
    """What all cores together reach.

    Attributes:
        bandwidth: Bytes a second read from memory.
        operations: float32 additions and multiplications a second in a product of matrices.
    """

    bandwidth: float
    operations: float

    def seconds(self, floor: Floor) -> float:
        """Return the least time in which this machine can do what a floor counts."""
        return max(floor.bytes / self.bandwidth, floor.operations / self.operations, floor.seconds)


def rates() -> Rates:
    """Measure this machine, best of several runs."""
    numbers = np.ones(STREAM_BYTES // 4, np.float32)
    parts = np.array_split(numbers, os.cpu_count() or 1)
    with ThreadPoolExecutor(len(parts)) as executor:
        reading = best_of(lambda: list(executor.map(np.max, parts)))
    matrix = np.ones((MATRIX_SIDE, MATRIX_SIDE), np.float32)
    return Rates(STREAM_BYTES / reading, 2 * MATRIX_SIDE**3 / best_of(lambda: matrix @ matrix))


def description() -> str:
    """Return processor, cores, memory, system and how busy it was, in one sentence."""
    cores = os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    return f"{processor()}, {cores} cores, {memory:.0f} GiB, {system()}; load average at the start {load:.2f}"


def processor() -> str:
    """Return the model of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def system() -> str:
    """Return the operating system's name."""
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def versions() -> str:
    """Return the versions of Python and of the packages that do the work."""
    return ", ".join([f"python {platform.python_version()}", *(f"{name} {installed(name)}" for name in PACKAGES)])


def installed(package: str) -> str:
    """Return a package's version, or that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
