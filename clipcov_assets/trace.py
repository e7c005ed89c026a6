"""`python -m clipcov_assets.trace`: where a result came from, and what a crawl or a pair went into.

The exit status is 0 where everything is in order, 2 where something is not as it was recorded, and 1 for bad input.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import dagster as dg

from clipcov_assets.definitions import ASSETS, resources
from clipcov_assets.export.lineage_text import lineage_text, lineage_values, reach_text, reach_values
from clipcov_assets.lineage import lineage_of, reached_from_crawl, reached_from_pair
from resources.lance_store import LanceStore

IN_ORDER, BAD_INPUT, AT_FAULT = 0, 1, 2


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    try:
        options = parser().parse_args(arguments)
        if "DAGSTER_HOME" not in os.environ:
            raise ValueError("DAGSTER_HOME is not set: export DAGSTER_HOME=$PWD in the directory of dagster.yaml")
        with dg.DagsterInstance.get() as instance:
            words, values = _answer(options, instance, resources()["store"])
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    print(json.dumps(values, indent=2) if options.json else words.rstrip("\n"))
    return IN_ORDER if values["in_order"] else AT_FAULT


def _answer(options: argparse.Namespace, instance: dg.DagsterInstance, store: LanceStore) -> tuple[str, dict[str, Any]]:
    """The answer in words and as values.

    Raises:
        ValueError: There is no such thing, or more than one thing is asked for.
    """
    asked = [one for one in (options.asset, options.crawl, options.pair) if one is not None]
    if len(asked) != 1:
        raise ValueError("name one thing to trace: an asset and its partition, --crawl or --pair (see --help)")
    if options.asset is not None:
        lineage = lineage_of(instance, store, options.asset, options.partition, code_now=_code_now())
        return lineage_text(lineage), lineage_values(lineage)
    if options.crawl is not None:
        reach = reached_from_crawl(instance, store, options.crawl)
    else:
        reach = reached_from_pair(instance, store, options.pair)
    return reach_text(reach), reach_values(reach)


def _code_now() -> dict[str, str]:
    """Code version of each asset as it is defined now."""
    return {spec.key.to_user_string(): spec.code_version or "" for asset in ASSETS for spec in asset.specs}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)  # argparse's own exit status 2 stands for a fault here


def parser() -> argparse.ArgumentParser:
    """Return what the command line understands."""
    command = _Parser(
        "python -m clipcov_assets.trace",
        description="Follow a result back to the deliveries, or a crawl or a pair to everything that holds it.",
        epilog="exit status: 0 all is in order, 2 something is not as it was recorded, 1 bad input",
    )
    command.add_argument("asset", nargs="?", help="such as clipcov_scorecard")
    command.add_argument("partition", nargs="?", help='such as "crawl-2|f20"; none for proxy_checkpoint')
    command.add_argument("--crawl", metavar="CRAWL", help="what holds pairs of this crawl")
    command.add_argument("--pair", metavar="UID", help="what holds this pair")
    command.add_argument("--json", action="store_true", help="everything, as JSON")
    return command


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends this command quietly
    sys.exit(main(sys.argv[1:]))
