"""The report: lines and the machine's rates enter, a table for the terminal and docs/performance.md leave."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import Rates
from benchmarks.measure import Line, in_words, three_digits

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- results: written by the benchmarks -->", "<!-- end of the results -->"
VERDICTS = {None: "", True: "holds", False: "**missed**"}
HEADER = ("work", "measured", "bar", "", "peak memory (inputs)", "floor", "gap")


@dataclass(frozen=True)
class Run:
    """One run of benchmarks.

    Args:
        command: That made it.
        date: Of its start, ISO 8601.
        minutes: That it took.
        machine: In one sentence.
        versions: Of all that took part.
        rates: Of the machine, measured in the run.
        scale: 1 for the sizes that the bars are for.
        lines: In order.
    """

    command: str
    date: str
    minutes: float
    machine: str
    versions: str
    rates: Rates
    scale: float
    lines: Sequence[Line]

    @property
    def full_size(self) -> bool:
        """Whether the sizes are those that the bars are for."""
        return self.scale == 1


def render(run: Run) -> str:
    """Return the run as Markdown that reads well on a terminal, too."""
    reasons = list(dict.fromkeys(line.measurement.floor.why for line in run.lines if line.measurement))
    rows = [cells(line, run, reasons) for line in run.lines]
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
    rule = ["-" * width for width in widths]
    bandwidth, operations = run.rates.bandwidth / 1e9, run.rates.operations / 1e9
    facts = [
        f"- Command: `{run.command}`, {run.date}, {run.minutes:.0f} minutes",
        f"- Machine: {run.machine}",
        f"- Versions: {run.versions}",
        f"- Rates, all cores: {bandwidth:.1f} GB/s read from memory, {operations:.0f} GFLOP/s in a float32 product",
    ]
    if not run.full_size:
        facts.append(f"- Sizes are {run.scale:g} of the full ones: a trial, for which the bars do not apply")
    parts = [
        facts,
        ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in (HEADER, rule, *rows)],
        [f"- {line.work}: {line.note}." for line in run.lines if line.note],
        ["What the floors count:"],
        [f"{place}. {why[0].upper()}{why[1:]}." for place, why in enumerate(reasons, 1)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def cells(line: Line, run: Run, reasons: Sequence[str]) -> tuple[str, ...]:
    """Return the cells of one line; a floor refers to its reason by number."""
    verdict = VERDICTS[line.holds if run.full_size else None]
    if line.measurement is None:
        return (line.work, line.measured, line.bar, verdict, "", "", "")
    floor, floor_seconds = line.measurement.floor, run.rates.seconds(line.measurement.floor)
    counts = [amount(floor.bytes, "B"), amount(floor.operations, "FLOP")]
    counted = ", ".join(count for count in counts if count) or "measured"
    return (
        line.work,
        line.measured,
        line.bar,
        verdict,
        f"{line.measurement.peak / 2**30:.2f} GiB ({line.measurement.inputs / 2**30:.2f})",
        f"{in_words(floor_seconds)} ({counted}) [{reasons.index(floor.why) + 1}]",
        f"{three_digits(line.measurement.median / floor_seconds)} x",
    )


def amount(count: float, unit: str) -> str:
    """Return a count with a decimal prefix, or nothing where nothing is counted."""
    for power, prefix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if count >= 10**power:
            return f"{three_digits(count / 10**power)} {prefix}{unit}"
    return f"{count:.3g} {unit}" if count else ""


def write(run: Run, page: Path = PAGE) -> None:
    """Replace the results on the page, and leave the text around them.

    Raises:
        ValueError: the page has lost the marks between which the results stand.
    """
    put_between(page, BEGIN, END, render(run))


def put_between(page: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands on a page between two marks.

    Raises:
        ValueError: the page has lost a mark.
    """
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{page.name} lacks the marks {begin} and {end}: put them where the results belong")
    page.write_text(f"{before}{begin}\n{text}{end}{after}")
