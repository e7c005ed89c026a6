import os
import tempfile

# The tiny scale, and a place of its own for whatever a test makes: set before anything of the package is imported.
os.environ["CLIPCOV_SCALE"] = "tiny"
os.environ["CLIPCOV_RETRY_SECONDS"] = "0"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # several files of tests run at a time
os.environ["DAGSTER_HOME"] = tempfile.mkdtemp(prefix="clipcov-dagster-")
