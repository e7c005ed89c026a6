"""`python -m clipcov_assets.evaluate`: the zero-shot scores of any CLIP, ours or from elsewhere."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from clipcov_assets.assets.scorecards import predict
from clipcov_assets.core.metrics import chance, score
from clipcov_assets.definitions import resources
from clipcov_assets.export.standings import printable, show
from clipcov_assets.ingest.evaluation_set import EvaluationSet, find_evaluation_sets
from clipcov_assets.scales import SCALE
from resources.clip_encoder import ClipEncoder
from resources.compute import Compute


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    options = parser().parse_args(arguments)
    world = resources()
    try:
        sets = find_evaluation_sets(Path(options.sets) if options.sets else world["suite"].path)
        for line in scorecard(options.architecture, options.weights, sets, world["encoder"], world["compute"]):
            print(line, flush=True)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def scorecard(
    architecture: str, weights: str, sets: Sequence[EvaluationSet], encoder: ClipEncoder, compute: Compute
) -> Iterator[str]:
    """Score a model as the scorecards of this project do, one set after the other, in lines for a terminal.

    Raises:
        ValueError: An unknown architecture or tag, weights of another architecture, or a set that cannot be read.
        FileNotFoundError: `weights` looks like a path and nothing is there.
    """
    clip = encoder.load(architecture, weights)
    for one in sets:
        found = predict(clip, one, compute)
        n_classes = len(one.prompts.class_names)
        label, rank = (found[column].to_numpy() for column in ("label", "rank_of_label"))
        yield f"{printable(one.name)}: {len(found):,} images, {n_classes:,} classes, per cent [95 % interval]"
        for metric, estimate in score(label, rank, n_classes=n_classes, seed=SCALE.seed).items():
            yield f"  {metric:22}{show(estimate)}   chance {100 * chance(n_classes)[metric]:.1f}"


def parser() -> argparse.ArgumentParser:
    """Return what the command line understands."""
    command = argparse.ArgumentParser("python -m clipcov_assets.evaluate", description="Score any CLIP zero-shot.")
    command.add_argument("architecture", help="open_clip's name of the architecture, such as ViT-B-32, or demo")
    command.add_argument("weights", help="an open_clip tag, such as openai, or the path of a weights file")
    command.add_argument("--sets", metavar="DIR", help="directory of evaluation sets; CLIPCOV_EVALUATION by default")
    return command


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
