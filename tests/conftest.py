import os
import tempfile

# The tiny scale, and a place of its own for whatever a test makes: set before anything of the package is imported.
os.environ["CLIPCOV_SCALE"] = "tiny"
os.environ["CLIPCOV_RETRY_SECONDS"] = "0"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # several files of tests run at a time
os.environ["DAGSTER_HOME"] = tempfile.mkdtemp(prefix="clipcov-dagster-")

# These files take longest. They begin first, so that at the end nobody waits for one of them.
LONGEST = ("end_to_end", "test_on_ray", "test_object_store", "test_kill", "test_works", "test_graph", "test_demo")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not any(name in item.nodeid for name in LONGEST))
