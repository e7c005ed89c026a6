"""The machine: which device does the arithmetic of models, how exactly, in what batches, and with how many workers."""

import os

import dagster as dg
from pydantic import Field

PRECISIONS = ("float32", "bfloat16", "float16")
# A batch of float32 pixels takes about this much; the least and the most pairs it may have.
BATCH_BYTES = {"cpu": 64 * 2**20, "cuda": 2**30}
LEAST_BATCH, MOST_BATCH = 16, {"cpu": 1_024, "cuda": 4_096}


class Compute(dg.ConfigurableResource):
    """Chooses device, precision, batch size and worker processes."""

    device: str = Field(default="auto", description="`auto` (CUDA when it is there), `cpu`, `cuda` or `cuda:1`.")
    precision: str = Field(
        default="auto",
        description="Of the encoders: `float32`, `bfloat16`, `float16`, or `auto`: bfloat16 on CUDA (float16 where a "
        "GPU lacks it), float32 on the CPU.",
    )
    batch_size: int | None = Field(
        default=None, ge=1, description="Pairs or images encoded at a time; chosen by their size where not given."
    )
    workers: int | None = Field(
        default=None, ge=1, description="Processes that read and decode; one a core where not given."
    )

    savepoint_samples: int = Field(
        default=500_000, ge=1, description="Samples of a training between two savepoints; a killed one loses no more."
    )

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

    def resolved_precision(self) -> str:
        """The precision of the encoders: float32, bfloat16 or float16.

        On a CPU bfloat16 can be faster, but its eight bits show in the third decimal of a CLIP score, so there it has
        to be asked for.

        Raises:
            ValueError: Another one is asked for.
        """
        import torch

        if self.precision == "auto":
            if not self.resolved_device().startswith("cuda"):
                return "float32"
            return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
        if self.precision not in PRECISIONS:
            raise ValueError(f"compute.precision is {self.precision!r}: use 'auto' or one of {', '.join(PRECISIONS)}")
        return self.precision

    def resolved_batch_size(self, image_size: tuple[int, int]) -> int:
        """Images of this height and width to encode at a time."""
        if self.batch_size is not None:
            return self.batch_size
        kind = "cuda" if self.resolved_device().startswith("cuda") else "cpu"
        height, width = image_size
        fitting = BATCH_BYTES[kind] // (3 * 4 * height * width)
        return min(max(fitting, LEAST_BATCH), MOST_BATCH[kind])

    def resolved_workers(self) -> int:
        """Worker processes to use: as many as this process may use cores, unless a number is given."""
        if self.workers is not None:
            return self.workers
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
