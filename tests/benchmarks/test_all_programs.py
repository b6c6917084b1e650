"""The benchmark of all programs still runs, on checkpoints that it is given."""

import runpy
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import tiny_models
from commands import BENCHMARKS, load_benchmark

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


def test_a_program_of_another_method_is_named_and_the_others_go_on(capsys) -> None:
    benchmark = load_benchmark("all_programs")
    arguments = Namespace(precision="fp32", checkpoints=Path())
    assert not benchmark.measure("ofa", "subnet_factored", "onnx", arguments)  # it is no pass
    assert "| shipped | onnx | none: this checkpoint's method keeps no factors" in capsys.readouterr().out
