"""The machine: which device does the arithmetic of models, and in what batches."""

import dagster as dg
from pydantic import Field


class Compute(dg.ConfigurableResource):
    """Chooses the device and the batch size of encoders."""

    device: str = Field(default="auto", description="`auto` (CUDA when it is there), `cpu`, `cuda` or `cuda:1`.")
    batch_size: int = Field(default=256, ge=1, description="Pairs or images encoded at a time.")

    def resolved_device(self) -> str:
        """The device to use now.

        Raises:
            ValueError: A CUDA device is asked for and there is none.
        """
        import torch

        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"compute.device is {self.device!r} but torch sees no CUDA device: use 'auto' or 'cpu'")
        return self.device
