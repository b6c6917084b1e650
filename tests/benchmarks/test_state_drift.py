"""The benchmark of the recurrent programs' drift still runs."""

import runpy
import sys
from pathlib import Path

import pytest
import tiny_models
from commands import BENCHMARKS

SCRIPT = BENCHMARKS / "state_drift.py"


def test_a_row_of_errors_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_models.write("gru4rec", tmp_path / "gru4rec")
    words = ["--models", "scn,gru4rec", "--targets", "onnx", "--precisions", "fp32", "--steps", "12", "--sessions", "2"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words, "--checkpoints", str(tmp_path)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    head, *rows = (line for line in capsys.readouterr().out.splitlines() if line.startswith("| "))
    assert [cell for cell in head.split(" | ") if cell.startswith("after")] == ["after 1", "after 10", "after 12"]
    for row, named in zip(rows, (["scn", "shipped"], ["gru4rec", "own"]), strict=True):
        cells = row.strip("| ").split(" | ")
        assert cells[:5] == [*named, "onnx", "fp32", "pass"]
        assert all(0 < float(cell) <= 1e-4 for cell in cells[5:8])
        assert max(map(float, cells[5:8])) < float(cells[8]) / 1e3  # the largest score
