"""The one home of defaults: how large a run is, from a laptop's demo to a crawl of millions.

`CLIPCOV_SCALE` names the scale that the definitions are built for; `demo` is the default. `CLIPCOV_RECIPE`,
`CLIPCOV_BUDGET` and `CLIPCOV_SEEDS` change how its models are trained.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from clipcov_assets.core.recipe import Augmentation, Recipe
from clipcov_assets.core.selection import ABLATIONS

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
        training_seeds: Each subset is trained once with each of them.
        methods: Selection methods that are compared.
        partial_epochs: Epochs of the partly trained model that C-RHO compares with (paper, section 5).
        fractions: Subset sizes as shares of the pool.
        class_shards: Parts in which the latent classes are ranked, each a run of neighbouring classes.
        method_parameters: Own parameters of selection methods, where they differ from the functions' defaults.
        seed: Seed of rankings and bootstrap intervals.
    """

    proxy: TrainedProxy | PretrainedProxy
    architecture: str
    recipe: Recipe
    fractions: tuple[float, ...]
    class_shards: int
    training_seeds: tuple[int, ...] = (0,)
    methods: tuple[str, ...] = ("clipcov", "clip_score", "c_rho", "semdedup", "metaclip", "random", "full")
    prompts: PromptFiles | None = None
    partial_epochs: int = 5
    method_parameters: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    seed: int = 0


DEMO_PROMPTS = PromptFiles("data/demo/prompts/class_names.txt", "data/demo/prompts/templates.txt")

RECIPES: dict[str, Recipe] = {
    "tiny": Recipe(batch_size=64, learning_rate=1e-3, epochs=1),
    # Without these changes to the images, accuracy on artwork of another hand stays near chance.
    "demo": Recipe(
        batch_size=64,
        learning_rate=1e-3,
        epochs=20,
        augmentation=Augmentation(flip=0.5, shift=0.12, zoom=0.25, color=0.6, gray=0.3),
    ),
    # CyCLIP's, as the paper uses it: a subset of 5 % of CC3M never leaves the warm-up (docs/training.md).
    "paper": Recipe(
        batch_size=512,
        learning_rate=5e-4,
        epochs=30,
        warmup_steps=10_000,
        first_epoch=1,
        betas=(0.9, 0.999),
        epsilon=1e-8,
    ),
    # Every subset gets the same samples and the same course of the learning rate; a length of DataComp's "small".
    "comparable": Recipe(
        batch_size=1_024,
        learning_rate=1e-3,
        samples_seen=12_800_000,
        warmup_fraction=0.05,
        gradient_clip=1.0,
        augmentation=Augmentation(shift=0.05, zoom=0.05),
    ),
}
PAPER_FRACTIONS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
CC3M = Scale(
    proxy=PretrainedProxy("ViT-B-32-quickgelu", "openai"),
    architecture="RN50-quickgelu",
    recipe=RECIPES["comparable"],
    fractions=PAPER_FRACTIONS,
    class_shards=16,
)
DEMO = Scale(
    proxy=TrainedProxy("demo", RECIPES["demo"]),
    architecture="demo",
    recipe=RECIPES["demo"],
    fractions=(0.2, 0.4),
    class_shards=2,
    prompts=DEMO_PROMPTS,
)
# The paper's Table 3: which terms of the objective help; its Table 2: the proxy trained on the pool itself.
TABLE_3 = ("clipcov", *ABLATIONS, "full")
TABLE_2 = ("clipcov", "clip_score", "full")

SCALES: dict[str, Scale] = {
    "tiny": replace(
        DEMO,
        proxy=TrainedProxy("demo", RECIPES["tiny"]),
        recipe=RECIPES["tiny"],
        partial_epochs=1,
        fractions=(0.2, 0.5),
    ),
    "demo": DEMO,
    "demo_table3": replace(DEMO, methods=TABLE_3),
    "cc3m": CC3M,
    "cc3m_table2": replace(
        CC3M, proxy=TrainedProxy("RN50-quickgelu", RECIPES["paper"]), fractions=(0.1,), methods=TABLE_2
    ),
    "cc3m_table3": replace(CC3M, fractions=(0.1,), methods=TABLE_3),
    "cc12m": replace(CC3M, class_shards=64),
}


def scale(name: str) -> Scale:
    """The scale of that name.

    Raises:
        ValueError: Unknown name; the message lists the known ones.
    """
    if name not in SCALES:
        raise ValueError(f"unknown scale {name!r}: set CLIPCOV_SCALE to one of {', '.join(SCALES)}")
    return SCALES[name]


def with_choices(defaults: Scale, choices: Mapping[str, str]) -> Scale:
    """The scale as the environment changes it: another recipe, another length of training, more seeds.

    Raises:
        ValueError: An unknown recipe, a budget or seeds that are not understood.
    """
    recipe, name = defaults.recipe, choices.get("CLIPCOV_RECIPE")
    if name is not None:
        if name not in RECIPES:
            raise ValueError(f"unknown recipe {name!r}: set CLIPCOV_RECIPE to one of {', '.join(RECIPES)}")
        recipe = RECIPES[name]
    if "CLIPCOV_BUDGET" in choices:
        recipe = recipe.within(choices["CLIPCOV_BUDGET"])
    seeds = [seed.strip() for seed in choices.get("CLIPCOV_SEEDS", "").split(",") if seed.strip()]
    if not all(seed.isdecimal() for seed in seeds) or len(set(seeds)) < len(seeds):
        raise ValueError(f"CLIPCOV_SEEDS is {','.join(seeds)!r}: write different numbers, such as 0,1,2")
    return replace(defaults, recipe=recipe, training_seeds=tuple(map(int, seeds)) or defaults.training_seeds)


SCALE = with_choices(scale(os.environ.get("CLIPCOV_SCALE", "demo")), os.environ)


def code_version(*parts: object) -> str:
    """Version of an asset's code: its own number and every default that its result depends on."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
