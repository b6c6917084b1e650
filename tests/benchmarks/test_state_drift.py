"""The benchmark of the recurrent programs' drift still runs."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "state_drift.py"


def test_a_row_of_errors_by_step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--models", "scn", "--targets", "onnx", "--precisions", "fp32", "--steps", "12", "--sessions", "2"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    head, row = (line for line in capsys.readouterr().out.splitlines() if line.startswith("| "))
    assert [cell for cell in head.split(" | ") if cell.startswith("after")] == ["after 1", "after 10", "after 12"]
    cells = row.strip("| ").split(" | ")
    assert cells[:3] == ["scn", "onnx", "fp32"]
    assert all(0 < float(cell) <= 1e-4 for cell in cells[3:6])
    assert max(map(float, cells[3:6])) < float(cells[6]) / 1e3  # the largest score
