"""How many cores this process may use."""

import os


def core_count() -> int:
    """Cores of the machine, or as many as `OMP_NUM_THREADS` leaves: so a cluster tells each worker its share."""
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(told) if told.isdigit() and int(told) else os.cpu_count() or 1
