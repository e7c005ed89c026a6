"""The one home of defaults: how large a run is, from a laptop's demo to a crawl of millions.

`CLIPCOV_SCALE` names the scale that the definitions are built for; `demo` is the default. `CLIPCOV_RECIPE`,
`CLIPCOV_BUDGET` and `CLIPCOV_SEEDS` change how its models are trained, `CLIPCOV_TRAINED_METHODS`,
`CLIPCOV_TRAINED_FRACTIONS` and `CLIPCOV_TRAINING_HOURS` which of them are trained without being asked for, and when.
`CLIPCOV_COMBINATIONS` adds subsets that are made of those of two methods.
"""

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from clipcov_assets.core.recipe import Augmentation, Recipe
from clipcov_assets.core.selection import ABLATIONS
from clipcov_assets.core.set_algebra import OPERATIONS, Combination

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
class TrainingPolicy:
    """What is trained without a person asking for it, always on the newest crawl: a new crawl brings no surprise.

    Attributes:
        methods: The methods and combinations whose subsets are trained on; C-RHO's partly trained model, too, where it
            is one of them.
        fractions: The sizes; `full` has its own.
        hours: Of the day (UTC), from the first of which on trainings start, and from the second on none does any more;
            one that runs goes on.
    """

    methods: tuple[str, ...]
    fractions: tuple[float, ...]
    hours: tuple[int, int] = (3, 7)


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
        combinations: Subsets made of those of two of these methods, compared like them.
        trained: What of them is trained by itself.
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
    trained: TrainingPolicy
    training_seeds: tuple[int, ...] = (0,)
    methods: tuple[str, ...] = ("clipcov", "clip_score", "c_rho", "semdedup", "metaclip", "random", "full")
    combinations: tuple[Combination, ...] = ()
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
    trained=TrainingPolicy(methods=("clipcov", "random", "full"), fractions=(0.1, 0.3)),
)
DEMO = Scale(
    proxy=TrainedProxy("demo", RECIPES["demo"]),
    architecture="demo",
    recipe=RECIPES["demo"],
    fractions=(0.2, 0.4),
    class_shards=2,
    trained=TrainingPolicy(methods=("clipcov", "random", "full"), fractions=(0.2,)),
    prompts=DEMO_PROMPTS,
)
COMBINATION = re.compile(rf"(\w+)\s*([{re.escape(''.join(OPERATIONS))}])\s*(\w+)")  # clipcov & semdedup
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
    "demo_table3": replace(DEMO, methods=TABLE_3, trained=replace(DEMO.trained, methods=TABLE_3)),
    "cc3m": CC3M,
    "cc3m_table2": replace(
        CC3M,
        proxy=TrainedProxy("RN50-quickgelu", RECIPES["paper"]),
        fractions=(0.1,),
        methods=TABLE_2,
        trained=TrainingPolicy(TABLE_2, fractions=(0.1,)),
    ),
    "cc3m_table3": replace(CC3M, fractions=(0.1,), methods=TABLE_3, trained=TrainingPolicy(TABLE_3, fractions=(0.1,))),
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
    """The scale as the environment changes it: recipe, budget, seeds, combinations, or trainings by themselves.

    Raises:
        ValueError: A choice that is not understood; the message names it.
    """
    recipe, name = defaults.recipe, choices.get("CLIPCOV_RECIPE")
    if name is not None:
        if name not in RECIPES:
            raise ValueError(f"unknown recipe {name!r}: set CLIPCOV_RECIPE to one of {', '.join(RECIPES)}")
        recipe = RECIPES[name]
    if "CLIPCOV_BUDGET" in choices:
        recipe = recipe.within(choices["CLIPCOV_BUDGET"])
    seeds = _listed(choices, "CLIPCOV_SEEDS")
    if not all(seed.isdecimal() for seed in seeds) or len(set(seeds)) < len(seeds):
        raise ValueError(f"CLIPCOV_SEEDS is {','.join(seeds)!r}: write different numbers, such as 0,1,2")
    changed = replace(
        defaults,
        recipe=recipe,
        training_seeds=tuple(map(int, seeds)) or defaults.training_seeds,
        combinations=_combinations(defaults, choices) or defaults.combinations,
    )
    return replace(changed, trained=_policy(changed, choices))


def _combinations(defaults: Scale, choices: Mapping[str, str]) -> tuple[Combination, ...]:
    """The combinations that are asked for, of the methods that there are."""
    known = [method for method in defaults.methods if method != "full"]  # with all pairs a combination says nothing
    return tuple(_combination(text, known) for text in _listed(choices, "CLIPCOV_COMBINATIONS"))


def _combination(text: str, known: Collection[str]) -> Combination:
    written = COMBINATION.fullmatch(text)
    if written is None:
        raise ValueError(
            f"CLIPCOV_COMBINATIONS has {text!r}: write two methods with one of {' '.join(OPERATIONS)} between them, "
            "such as clipcov & semdedup; several are separated by commas"
        )
    first, operator, second = written.groups()
    unknown = [method for method in (first, second) if method not in known]
    if unknown or first == second:
        fault = f"{unknown[0]!r} cannot be combined" if unknown else "that is one method"
        raise ValueError(f"CLIPCOV_COMBINATIONS has {text!r}: {fault}; choose two of {', '.join(known)}")
    return Combination(first, operator, second)


def _policy(defaults: Scale, choices: Mapping[str, str]) -> TrainingPolicy:
    """What is trained by itself, of the methods, combinations and fractions that there are."""
    policy = defaults.trained
    methods = _listed(choices, "CLIPCOV_TRAINED_METHODS")
    if methods == ["none"]:
        policy = replace(policy, methods=())
    elif methods:
        known = [*defaults.methods, *(one.name for one in defaults.combinations), "none"]
        _check_listed("CLIPCOV_TRAINED_METHODS", methods, known)
        policy = replace(policy, methods=tuple(methods))
    fractions = _listed(choices, "CLIPCOV_TRAINED_FRACTIONS")
    if fractions:
        shares = {f"{fraction:g}": fraction for fraction in defaults.fractions}
        _check_listed("CLIPCOV_TRAINED_FRACTIONS", fractions, shares)
        policy = replace(policy, fractions=tuple(shares[fraction] for fraction in fractions))
    if "CLIPCOV_TRAINING_HOURS" in choices:
        policy = replace(policy, hours=_hours(choices["CLIPCOV_TRAINING_HOURS"]))
    return policy


def _listed(choices: Mapping[str, str], name: str) -> list[str]:
    return [one.strip() for one in choices.get(name, "").split(",") if one.strip()]


def _check_listed(name: str, chosen: Iterable[str], known: Collection[str]) -> None:
    if unknown := [one for one in chosen if one not in known]:
        raise ValueError(f"{name} has {unknown[0]!r}: write any of {', '.join(known)}, separated by commas")


def _hours(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and int(first) < 24 and int(last) < 24 and int(first) != int(last)):
        raise ValueError(f"CLIPCOV_TRAINING_HOURS is {text!r}: write two hours of the day (UTC), such as 3-7 or 22-6")
    return int(first), int(last)


SCALE = with_choices(scale(os.environ.get("CLIPCOV_SCALE", "demo")), os.environ)


def code_version(*parts: object) -> str:
    """Version of an asset's code: its own number and every default that its result depends on."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
