"""`python -m clipcov_assets.export`: a subset out of LanceDB, as files in the formats that other tools read."""

import argparse
import sys
from collections.abc import Sequence

from clipcov_assets.definitions import resources
from clipcov_assets.export.subset_files import FORMATS
from clipcov_assets.export.subset_files.export_format import ExportOptions
from clipcov_assets.jobs.export import export_subset, materialized_subsets
from resources.pieces import InUseError


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    options = parser().parse_args(arguments)
    world = resources()
    if options.list:
        for asset, partition in materialized_subsets(world["store"]):
            print(f'{asset} "{partition}"')
        return 0
    exports = world["exports"].model_copy(update={"directory": options.to}) if options.to else world["exports"]
    try:
        finished = export_subset(
            world["store"],
            exports,
            options.subset or "",
            options.partition or "",
            options.format or ["parquet"],
            ExportOptions(pairs_per_shard=options.pairs_per_shard),
            say,
        )
    except (ValueError, KeyError, OSError, InUseError) as error:
        print(f"error: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on where this one was", file=sys.stderr)
        return 130
    for one in finished:
        there = " (was there already)" if one.already_there else ""
        print(f"{one.directory}: {one.files:,} files, {one.bytes / 1e6:,.1f} MB{there}")
    return 0


def parser() -> argparse.ArgumentParser:
    """Return what the command line understands."""
    formats = "\n".join(f"  {one.name:12}{one.summary}" for one in FORMATS.values())
    command = argparse.ArgumentParser(
        "python -m clipcov_assets.export",
        description="Export a subset to files.",
        epilog=f"formats:\n{formats}\n\nFiles go to DIR/<subset>/<crawl>/<fraction>/<format>/, with a manifest.json.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("subset", nargs="?", help="such as clipcov_subset")
    command.add_argument("partition", nargs="?", help='crawl and fraction, such as "crawl-2|f20"')
    command.add_argument(
        "--format", action="append", metavar="FORMAT", help="may be given several times; parquet by default"
    )
    command.add_argument(
        "--to", metavar="DIR", help="directory or address of exports; CLIPCOV_EXPORTS or var/exports by default"
    )
    command.add_argument(
        "--pairs-per-shard", type=int, default=ExportOptions.pairs_per_shard, help="most pairs of a webdataset shard"
    )
    command.add_argument("--list", action="store_true", help="list the subsets that can be exported")
    return command


def say(words: str) -> None:
    """Print a line at once, also where the output goes to a file."""
    print(words, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
