"""`python -m clipcov_assets.why`: why a pair is in the subsets of a method, or not."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from clipcov_assets.definitions import resources
from clipcov_assets.explain import explain, newest_pool
from clipcov_assets.export.pair_page import pair_page, pair_text
from clipcov_assets.methods import KNOWN


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    options = parser().parse_args(arguments)
    world = resources()
    known = world["store"], world["catalog"]
    try:
        crawl = options.crawl or newest_pool(*known)
        explanation = explain(*known, options.uid, method=options.method, crawl=crawl)
        if options.page:
            options.page.write_text(pair_page(explanation), encoding="utf-8")
    except (ValueError, KeyError, OSError) as error:
        print(f"error: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 1
    print(pair_text(explanation))
    return 0


def parser() -> argparse.ArgumentParser:
    """Return what the command line understands."""
    command = argparse.ArgumentParser(
        "python -m clipcov_assets.why", description="Say why a pair is in the subsets of a method, or not."
    )
    command.add_argument("uid", help="the pair, as galleries and the table raw_pairs name it")
    command.add_argument("--method", default="clipcov", help=f"clipcov by default; one of {', '.join(KNOWN)}")
    command.add_argument(
        "--crawl", help="the pool is that as of this crawl; by default the newest that was not withdrawn"
    )
    command.add_argument("--page", metavar="FILE", type=Path, help="write an HTML page with pictures, too")
    return command


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
