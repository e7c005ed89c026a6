"""`python -m clipcov_assets.evaluate`: the zero-shot scores of any CLIP, ours or from elsewhere."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence

from clipcov_assets.definitions import resources
from clipcov_assets.export.standings import printable, show
from clipcov_assets.ingest.evaluation_set import EvaluationSet, find_evaluation_sets
from clipcov_assets.scales import SCALE
from clipcov_assets.scoring import measure
from resources.clip_encoder import ClipEncoder
from resources.compute import Compute
from resources.head_cache import HeadCache


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    options = parser().parse_args(arguments)
    world = resources()
    try:
        suite = world["suite"]
        if options.sets:
            suite = suite.model_copy(update={"directory": options.sets})
        sets = find_evaluation_sets(suite.folder(), suite.digests)
        own = {name: world[name] for name in ("encoder", "compute", "heads")}
        for line in scorecard(options.architecture, options.weights, sets, **own, report=_to_the_terminal):
            print(line, flush=True)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _to_the_terminal(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def scorecard(
    architecture: str,
    weights: str,
    sets: Sequence[EvaluationSet],
    *,
    encoder: ClipEncoder,
    compute: Compute,
    heads: HeadCache,
    report: Callable[[str], None],
) -> Iterator[str]:
    """Score a model as the scorecards of this project do, in lines for a terminal.

    Raises:
        ValueError: An unknown architecture or tag, weights of another architecture, or a set that cannot be read.
        FileNotFoundError: `weights` looks like a path and nothing is there.
    """
    from clipcov_assets.jobs.evaluate import predictions_of

    clip = encoder.load(architecture, weights)
    predictions = predictions_of(clip, sets, seed=0, compute=compute, heads=heads, report=report)
    for measured in measure(predictions, sets, seed=SCALE.seed):
        one = measured.evaluation_set
        classes = "retrieval" if one.prompts is None else f"{len(one.prompts.class_names):,} classes"
        yield f"{printable(one.name)}: {len(one):,} images, {classes}, per cent [95 % interval]"
        for metric, found in measured.metrics.items():
            yield f"  {metric:22}{show(found.estimate)}   chance {100 * measured.chance[metric]:.1f}"


def parser() -> argparse.ArgumentParser:
    """Return what the command line understands."""
    command = argparse.ArgumentParser("python -m clipcov_assets.evaluate", description="Score any CLIP zero-shot.")
    command.add_argument("architecture", help="open_clip's name of the architecture, such as ViT-B-32, or demo")
    command.add_argument("weights", help="an open_clip tag, such as openai, or the path of a weights file")
    command.add_argument(
        "--sets", metavar="DIR", help="directory or address of evaluation sets; CLIPCOV_EVALUATION by default"
    )
    return command


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
