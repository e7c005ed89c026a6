"""The one home of defaults: how large a run is, from a laptop's demo to a crawl of millions.

`CLIPCOV_SCALE` names the scale that the definitions are built for; `demo` is the default.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clipcov_assets.core.recipe import Augmentation, Recipe

# Where prompts, crawls and everything that is made live, unless CLIPCOV_HOME says otherwise: the repository.
HOME = Path(os.environ.get("CLIPCOV_HOME", Path(__file__).parents[1]))


@dataclass(frozen=True)
class TrainedProxy:
    """A proxy trained with the CLIP loss on the first crawl (paper, Table 2): needs no network."""

    architecture: str
    recipe: Recipe
    seed: int = 0


@dataclass(frozen=True)
class PretrainedProxy:
    """A ready proxy: `weights` is an open_clip tag such as `openai`, or the path of a checkpoint."""

    architecture: str
    weights: str


@dataclass(frozen=True)
class PromptFiles:
    """Class names and prompt templates, one a line, relative to the project's directory."""

    class_names: str
    templates: str


@dataclass(frozen=True)
class Scale:
    """Every default of a run in one place.

    Attributes:
        proxy: Where the proxy's weights come from.
        prompts: The latent classes; None stands for ImageNet-1k's names and OpenAI's templates.
        architecture: open_clip name of the models that are trained on subsets.
        recipe: How they are trained.
        partial_epochs: Epochs of the partly trained model that C-RHO compares with (paper, section 5).
        fractions: Subset sizes as shares of the pool.
        class_shards: Parts in which the latent classes are ranked, each a run of neighbouring classes.
        method_parameters: Own parameters of selection methods, where they differ from the functions' defaults.
        seed: Seed of rankings, trainings and bootstrap intervals.
    """

    proxy: TrainedProxy | PretrainedProxy
    architecture: str
    recipe: Recipe
    fractions: tuple[float, ...]
    class_shards: int
    prompts: PromptFiles | None = None
    partial_epochs: int = 5
    method_parameters: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    seed: int = 0


DEMO_PROMPTS = PromptFiles("data/demo/prompts/class_names.txt", "data/demo/prompts/templates.txt")
# Without these changes to the images, accuracy on artwork of another hand stays near chance.
DEMO_AUGMENTATION = Augmentation(flip=0.5, shift=0.12, zoom=0.25, color=0.6, gray=0.3)
DEMO_RECIPE = Recipe(batch_size=64, learning_rate=1e-3, epochs=20, augmentation=DEMO_AUGMENTATION)
TINY_RECIPE = Recipe(batch_size=64, learning_rate=1e-3, epochs=1)
PAPER_FRACTIONS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
# CyCLIP's recipe as the paper uses it, with the warm-up as a share of the samples instead of 10,000 steps.
PAPER_RECIPE = Recipe(batch_size=512, learning_rate=5e-4, epochs=30, betas=(0.9, 0.999), epsilon=1e-8)

SCALES: dict[str, Scale] = {
    "tiny": Scale(
        proxy=TrainedProxy("demo", TINY_RECIPE),
        architecture="demo",
        recipe=TINY_RECIPE,
        partial_epochs=1,
        fractions=(0.2, 0.5),
        class_shards=2,
        prompts=DEMO_PROMPTS,
    ),
    "demo": Scale(
        proxy=TrainedProxy("demo", DEMO_RECIPE),
        architecture="demo",
        recipe=DEMO_RECIPE,
        fractions=(0.2, 0.4),
        class_shards=2,
        prompts=DEMO_PROMPTS,
    ),
    "cc3m": Scale(
        proxy=PretrainedProxy("ViT-B-32-quickgelu", "openai"),
        architecture="RN50-quickgelu",
        recipe=PAPER_RECIPE,
        fractions=PAPER_FRACTIONS,
        class_shards=16,
    ),
    "cc12m": Scale(
        proxy=PretrainedProxy("ViT-B-32-quickgelu", "openai"),
        architecture="RN50-quickgelu",
        recipe=PAPER_RECIPE,
        fractions=PAPER_FRACTIONS,
        class_shards=64,
    ),
}


def scale(name: str) -> Scale:
    """The scale of that name.

    Raises:
        ValueError: Unknown name; the message lists the known ones.
    """
    if name not in SCALES:
        raise ValueError(f"unknown scale {name!r}: set CLIPCOV_SCALE to one of {', '.join(SCALES)}")
    return SCALES[name]


SCALE = scale(os.environ.get("CLIPCOV_SCALE", "demo"))


def code_version(*parts: object) -> str:
    """Version of an asset's code: its own number and every default that its result depends on."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
