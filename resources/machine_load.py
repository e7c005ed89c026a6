"""How busy the machine is, under the names that MLflow shows as system metrics."""

import contextlib


class MachineLoad:
    """CPU, memory, disk, network and GPUs since the last sample, measured by MLflow's own monitors.

    MLflow's thread around them gives up when a server is away for a moment, so only the monitors are used. The load of
    the CPU is that since the last sample of the same thread.
    """

    def __init__(self) -> None:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

        self._monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        # It raises where there is no NVIDIA GPU.
        with contextlib.suppress(Exception):
            self._monitors.append(GPUMonitor())
        self.sample()

    def sample(self) -> dict[str, float]:
        """Return name -> value, such as `system/cpu_utilization_percentage`."""
        found: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            found |= {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        return found
