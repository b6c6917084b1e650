"""The benchmark of the paper's Table 4 still runs, and prints the published figure next to the counted ones."""

import runpy

import pytest
from commands import BENCHMARKS

SCRIPT = BENCHMARKS / "paper_tables.py"


def test_the_row_of_scn(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(SCRIPT))["main"](["scn"])
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("| scn "))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:3] == ["17.0", "17.0"]
    assert float(cells[3]) > float(cells[2])  # the products that no hook sees
    assert float(cells[5]) > 2 * float(cells[4])  # more than the products alone
