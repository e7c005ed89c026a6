from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import machine, report
from benchmarks.machine import Rates, rates
from benchmarks.measure import Floor, Line, Measurement
from benchmarks.report import BEGIN, END, PAGE, Run, render, write

READ = Measurement((4.0, 2.0, 3.0), 3 * 2**30, 2**30, Floor("every row is read once", bytes=2e9, operations=1e9))
RUN = Run(
    command="python -m benchmarks",
    date="2030-01-02",
    minutes=5,
    machine="an abacus",
    versions="python 3",
    rates=Rates(bandwidth=1e9, operations=1e9),
    scale=1,
    lines=[
        Line("reading", "3.00 s", "2 s", False, READ, note="slow"),
        Line("counting", "1.00 s", "2 s", True, replace(READ, floor=Floor("a count", seconds=0.5))),
    ],
)


def test_a_line_shows_measure_bar_memory_floor_and_gap() -> None:
    reading, counting = [line.split("|")[1:-1] for line in render(RUN).splitlines() if "3.00 GiB" in line]
    assert [cell.strip() for cell in reading] == [
        "reading",
        "3.00 s",
        "2 s",
        "**missed**",
        "3.00 GiB (1.00)",
        "2.00 s (2.00 GB, 1.00 GFLOP) [1]",
        "1.50 x",
    ]
    assert [cell.strip() for cell in counting][3:] == ["holds", "3.00 GiB (1.00)", "500 ms (measured) [2]", "6.00 x"]


def test_a_report_names_command_machine_versions_and_what_floors_count() -> None:
    text = render(RUN)
    for part in ("`python -m benchmarks`, 2030-01-02", "an abacus", "python 3", "- reading: slow.", "1. Every row is"):
        assert part in text


def test_a_trial_holds_and_misses_nothing() -> None:
    text = render(replace(RUN, scale=0.01))
    assert "the bars do not apply" in text
    assert "holds" not in text
    assert "missed" not in text


def test_the_slowest_part_is_the_floor() -> None:
    rate = Rates(bandwidth=10, operations=100)
    assert rate.seconds(Floor("", bytes=50, operations=100)) == 5
    assert rate.seconds(Floor("", bytes=50, operations=1000, seconds=7)) == 10


def test_rates_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "STREAM_BYTES", 2**20)
    monkeypatch.setattr(machine, "MATRIX_SIDE", 256)
    found = rates()
    assert found.bandwidth > 1e8
    assert found.operations > 1e8


def test_writing_replaces_the_results_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write(RUN, page)
    write(RUN, page)
    assert page.read_text() == f"before\n{BEGIN}\n{render(RUN)}{END}\nafter\n"


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text")
    with pytest.raises(ValueError, match="lacks the marks"):
        write(RUN, page)
    assert page.read_text() == "text"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    runs: list[Run] = []
    monkeypatch.setattr(command, "write", runs.append)
    monkeypatch.setattr(command, "in_fresh_process", lambda function: RUN.rates)
    monkeypatch.setattr(command, "measure", lambda prepare, case, scale: replace(READ, facts=FACTS))
    return runs


FACTS = {
    "answer": 1,
    "subset": 2,
    "matched": 0.5,
    "order": [1, 2],
    "size": 1,
    "class_order": 1.0,
    "pool": 1.0,
    "once": 1,
    "pairs": 1,
    "family": 1,
    "storing": 1.0,
    **dict.fromkeys(("share", "ours", "model", "decoding", "start", "growth", "tower", "recall", "logits"), 1.0),
    **dict.fromkeys(("days", "stored", "run_files", "kept", "tables"), (1, 1)),
    **dict.fromkeys(("first", "arrival", "seconds", "database", "partitions", "cursor"), 1),
    "pages": {"a page": 1.0},
    **dict.fromkeys(("embedded", "expected", "epochs", "equal", "different", "classes", "tied"), 1),
}


def test_a_complete_run_rewrites_the_page(written: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    command.main([])
    assert [run.command for run in written] == ["python -m benchmarks"]
    assert "semdedup" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--scale", "0.01"], ["growth"], ["scores", "metaclip"]])
def test_a_trial_or_a_part_only_prints(
    arguments: list[str], written: list[Run], capsys: pytest.CaptureFixture[str]
) -> None:
    command.main(arguments)
    assert not written
    assert f"python -m benchmarks {' '.join(arguments)}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["nothing"], ["--scale", "0"], ["--scale", "nan"], ["--scale", "big"]])
def test_bad_arguments_are_named(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert arguments[-1] in capsys.readouterr().err


def test_the_page_in_docs_has_its_marks() -> None:
    assert report.BEGIN in PAGE.read_text()
    assert report.END in PAGE.read_text()
