"""The benchmark of the passes still runs."""

import runpy
import sys
from pathlib import Path

import pytest
import tiny_models
from commands import BENCHMARKS

from exporter import graph

SCRIPT = BENCHMARKS / "passes.py"


def test_a_row_for_each_set_of_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_models.write("scn", tmp_path / "scn")
    words = ["--models", "scn", "--targets", "onnx", "--calls", "20", "--checkpoints", str(tmp_path)]
    monkeypatch.setattr(graph, "OPTIONAL", ("select_early",))
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| scn")]
    rows = {cells[2]: cells for cells in (line.strip("| ").split(" | ") for line in printed)}
    assert list(rows) == ["none", "select_early alone", "all but select_early", "all"]
    macs = {name: int(cells[5].replace(",", "")) for name, cells in rows.items()}
    assert macs["select_early alone"] == macs["all"] < macs["all but select_early"] == macs["none"]
