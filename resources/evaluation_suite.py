"""The directory of evaluation sets in CLIP_benchmark's webdataset layout."""

from pathlib import Path

import dagster as dg
from pydantic import Field


class EvaluationSuite(dg.ConfigurableResource):
    """Points at the evaluation sets, one folder a set."""

    directory: str = Field(description="Directory that holds one folder per evaluation set.")

    @property
    def path(self) -> Path:
        """The directory as a path."""
        return Path(self.directory)
