"""`python -m benchmarks`: measure, print the table, and after a complete run rewrite docs/performance.md."""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from benchmarks.machine import description, rates, versions
from benchmarks.measure import Line, environment, in_fresh_process, in_words, measure
from benchmarks.report import PAGE, Run, render, write
from benchmarks.works import BENCHMARKS

DURATION = "A complete run takes 45 minutes on two cores, 5 GiB of memory, 12 GB of disk; leave the machine alone."


def main(arguments: Sequence[str]) -> None:
    """Run the named benchmarks, or all."""
    options = parser().parse_args(arguments)
    names = options.name or list(BENCHMARKS)
    start, date = time.perf_counter(), datetime.now(UTC).date().isoformat()
    machine, speed = description(), in_fresh_process(rates)
    lines: list[Line] = []
    for name in names:
        benchmark = BENCHMARKS[name]
        measured = {}
        for case in benchmark.cases:
            print(f"{name}: {case} ...", end=" ", flush=True)
            with environment(benchmark.environment):
                measured[case] = measure(benchmark.prepare, case, options.scale)
            print(f"{in_words(measured[case].median)}, median of {len(measured[case].seconds)}", flush=True)
        lines += benchmark.lines(measured, options.scale)
    run = Run(
        command=shlex.join(["python", "-m", "benchmarks", *arguments]),
        date=date,
        minutes=(time.perf_counter() - start) / 60,
        machine=machine,
        versions=versions(),
        rates=speed,
        scale=options.scale,
        lines=lines,
    )
    print("", render(run), sep="\n")
    if names == list(BENCHMARKS) and options.scale == 1:
        write(run)
        print(f"{PAGE.name} is rewritten")


def parser() -> argparse.ArgumentParser:
    """Return what the command line understands."""
    names = "\n".join(f"  {name:18}{benchmark.summary}" for name, benchmark in BENCHMARKS.items())
    command = argparse.ArgumentParser(
        "python -m benchmarks",
        description=f"Measure ours and its peers side by side.\n{DURATION}",
        epilog=f"benchmarks:\n{names}\n\nOnly a complete run at full size rewrites docs/{PAGE.name}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("name", nargs="*", type=known, help="benchmarks to run; all by default")
    command.add_argument(
        "--scale", type=positive, default=1.0, help="share of the full sizes, such as 0.01 for a trial"
    )
    return command


def known(name: str) -> str:
    """Return the name of a benchmark, or say which there are."""
    if name not in BENCHMARKS:
        raise argparse.ArgumentTypeError(f"unknown benchmark {name!r}: choose from {', '.join(BENCHMARKS)}")
    return name


def positive(text: str) -> float:
    """Return a positive number."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


if __name__ == "__main__":
    main(sys.argv[1:])
