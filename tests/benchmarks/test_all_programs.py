"""The benchmark of all programs still runs, on checkpoints that it is given."""

import runpy
import sys
from pathlib import Path

import pytest
import tiny_models
from commands import BENCHMARKS

SCRIPT = BENCHMARKS / "all_programs.py"


def test_every_program_has_a_row(tmp_path: Path, monkeypatch, capsys) -> None:
    tiny_models.write("gru4rec", tmp_path / "gru4rec")
    words = ["--models", "gru4rec", "--targets", "onnx", "--checkpoints", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    rows = [row.strip("| ").split(" | ") for row in capsys.readouterr().out.splitlines() if row.startswith("| gru4rec")]
    assert [row[1:5] for row in rows] == [[program, "own", "onnx", "pass"] for program in ("rerank", "topk", "step")]
    for row in rows:
        error, words = row[5].split(" of 1.0e-04 in ")
        assert 0 < float(error) <= 1e-4
        assert words in ("scores", "top_scores", "next_hidden")
