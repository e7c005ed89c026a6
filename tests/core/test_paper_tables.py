"""The paper's groups, recomputed from its own tables: accuracies in per cent of Joshi et al. 2024, arXiv:2403.12267.

`paper_tables.json` holds Table 4 (groups) and Tables 5 to 10 (evaluation sets), subset size by subset size in per cent.
"""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from clipcov_assets.core.suite import GROUPS

TABLES = json.loads(Path(__file__).with_name("paper_tables.json").read_text())
SIZES, METHODS = ("5", "10", "20", "30", "40", "50"), ("random", "c_rho", "semdedup", "clip_score", "clipcov")
SETS_OF = {group.name: group.sets for group in GROUPS}
EVERY_CELL = list(product(("imagenet", "shift5", "average11"), SIZES, METHODS))

COPIED = "Table 8 (30 %) holds the numbers of Table 10 (50 %) for this method"
MISPRINTS = {
    **dict.fromkeys(product(("imagenet", "shift5", "average11"), ("30",), ("clip_score", "clipcov")), COPIED),
    ("imagenet", "50", "random"): "13.54 in Table 4, 13.45 in Table 10: two digits have changed places",
    ("shift5", "50", "semdedup"): "Table 4 repeats the 8.98 of C-RHO above it; Table 10 gives 7.61",
    ("average11", "40", "c_rho"): "17.02 in Table 4, Table 9 gives 16.90",
    ("average11", "40", "semdedup"): "14.84 in Table 4, Table 9 gives 15.20",
}


def agrees(cell: tuple[str, str, str]) -> bool:
    """Whether the mean over the sets of Tables 5 to 10 is what Table 4 says, to its last digit."""
    group, size, method = cell
    mean = np.mean([TABLES["tables_5_to_10"][size][method][name] for name in SETS_OF[group]])
    return abs(mean - TABLES["table_4"][size][method][group]) < 0.01


@pytest.mark.parametrize("cell", [cell for cell in EVERY_CELL if cell not in MISPRINTS], ids="-".join)
def test_a_group_of_table_4_is_the_plain_mean_of_its_sets(cell: tuple[str, str, str]) -> None:
    assert agrees(cell)


@pytest.mark.parametrize("cell", MISPRINTS, ids="-".join)
def test_a_misprint_of_the_paper_is_still_one(cell: tuple[str, str, str]) -> None:
    assert not agrees(cell), f"no misprint any more: {MISPRINTS[cell]}"


def test_the_columns_of_table_8_are_copied_from_table_10() -> None:
    for method in ("clip_score", "clipcov"):
        assert TABLES["tables_5_to_10"]["30"][method] == TABLES["tables_5_to_10"]["50"][method]


def test_every_number_of_the_tables_is_there() -> None:
    for size, method in product(SIZES, METHODS):
        assert set(TABLES["tables_5_to_10"][size][method]) == set(SETS_OF["average11"])
        assert set(TABLES["table_4"][size][method]) == {"imagenet", "shift5", "average11"}


@pytest.mark.parametrize(("group", "agreeing"), [("imagenet", 27), ("shift5", 27), ("average11", 26)])
def test_as_many_cells_agree_as_the_misprints_leave(group: str, agreeing: int) -> None:
    assert sum(agrees(cell) for cell in EVERY_CELL if cell[0] == group) == agreeing
