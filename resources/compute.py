"""Where work is done: here or on a Ray cluster, by which device, how exactly, and in what batches."""

import os
from typing import TYPE_CHECKING, Literal

import dagster as dg
from pydantic import Field

if TYPE_CHECKING:
    from clipcov_assets.core.recipe import Execution

PRECISIONS = ("float32", "bfloat16", "float16")
# A batch of float32 pixels takes about this much (on the cores each of them has its own); the least and the most pairs.
BATCH_BYTES = {"cpu": 32 * 2**20, "cuda": 2**30}
LEAST_BATCH, MOST_BATCH = 16, {"cpu": 512, "cuda": 4_096}
LOCAL = "local"


class Compute(dg.ConfigurableResource):
    """Chooses backend, device, precision, batch size and worker processes."""

    backend: Literal["local", "ray"] = Field(
        default="local", description="`local`: the process of the step does the work. `ray`: a Ray cluster does it."
    )
    ray_address: str = Field(
        default="",
        description="`host:6379` of a cluster that this machine belongs to, `http://host:8265` of its dashboard, "
        "`kubernetes` for a RayJob a step, or nothing for a Ray of this machine.",
    )
    ray_cpus: float | None = Field(
        default=None,
        gt=0,
        description="Cores of each part of a job on Ray; where not given, 1, or beside a GPU its share of the node's.",
    )
    ray_gpus: float | None = Field(
        default=None, ge=0, description="GPUs of each part; 1 on clusters that have any, where not given."
    )
    ray_patience: int = Field(
        default=45, ge=0, description="Seconds to wait for a node that has what a part takes; more where it is started."
    )
    ray_job: str = Field(default="", description="File of the RayJob that steps are made from, with `kubernetes`.")
    device: str = Field(default="auto", description="`auto` (CUDA when it is there), `cpu`, `cuda` or `cuda:1`.")
    devices: int | None = Field(
        default=None, ge=1, description="GPUs that train a model together; with `cuda` all, else one, where not given."
    )
    precision: str = Field(
        default="auto",
        description="Of encoders and trainings: `float32`, `bfloat16`, `float16` (encoders only), or `auto`: bfloat16 "
        "on CUDA (where a GPU lacks it, float16 for encoders, float32 for trainings), float32 on the CPU.",
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
    image_cache_bytes: int = Field(
        default=4 * 2**30,
        ge=0,
        description="Decoded images that take no more stay on a training's device.",
    )
    micro_batch: int | None = Field(
        default=None, ge=1, description="Pairs of a training's batch that go through the model at once on a device."
    )
    checkpoint_activations: bool = Field(
        default=False, description="Trade speed for memory in a training: compute activations twice."
    )
    compile_model: bool = Field(
        default=False, description="Let torch.compile fuse the model that is trained; worth it for long trainings."
    )

    @property
    def on_cluster(self) -> bool:
        """Whether a Ray cluster does the work."""
        return self.backend != LOCAL

    def settled(self) -> "Compute":
        """What `auto` means on this machine, so that another one that plans for it means the same.

        Raises:
            ValueError: A CUDA device is asked for and there is none, or an unknown precision.
        """
        import torch

        device = self.resolved_device()
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"compute.device is {device!r} but torch sees no CUDA device: use 'auto' or 'cpu'")
        return self.model_copy(update={"device": device, "precision": self.resolved_precision()})

    def here(self) -> "Compute":
        """The same for what this process does itself: the devices of a cluster are not its own.

        Raises:
            ValueError: As `settled`.
        """
        own = {"backend": LOCAL, "device": "auto"} if self.on_cluster else {}
        return self.model_copy(update=own).settled()

    def resolved_device(self) -> str:
        """The device to use now."""
        import torch

        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
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

    def resolved_devices(self) -> int:
        """Processes that train one model together, one a device.

        Raises:
            ValueError: More GPUs are asked for than there are, or several beside a GPU with a number.
        """
        import torch

        device = self.resolved_device()
        there = torch.cuda.device_count() if device == "cuda" else 1
        wanted = self.devices or there
        if device != "cpu" and wanted > there:
            raise ValueError(f"compute.devices is {wanted} but compute.device {device!r} gives {there}: ask for fewer")
        return wanted

    def execution(self) -> "Execution":
        """How a training is run.

        Raises:
            ValueError: A precision that no training has.
        """
        from clipcov_assets.core.recipe import Execution

        precision = self.resolved_precision()
        if precision == "float16":
            if self.precision != "auto":
                raise ValueError("compute.precision is 'float16', which is for encoders only: use 'auto' or 'bfloat16'")
            precision = "float32"
        return Execution(
            device=self.resolved_device(),
            precision=precision,
            micro_batch=self.micro_batch,
            checkpoint_activations=self.checkpoint_activations,
            compile=self.compile_model,
        )

    def resolved_batch_size(self, image_size: tuple[int, int]) -> int:
        """Images of this height and width to encode at a time."""
        if self.batch_size is not None:
            return self.batch_size
        kind = "cuda" if self.resolved_device().startswith("cuda") else "cpu"
        height, width = image_size
        fitting = BATCH_BYTES[kind] // (3 * 4 * height * width)
        return min(max(fitting, LEAST_BATCH), MOST_BATCH[kind])

    def resolved_workers(self) -> int:
        """Worker processes: as many as this process, or a part on Ray, may use cores, unless a number is given."""
        if self.workers is not None:
            return self.workers
        if self.on_cluster and self.ray_cpus is not None:
            return max(1, int(self.ray_cpus))
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
