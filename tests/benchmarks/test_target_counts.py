"""The table of the four targets' counts: what differs is listed where the totals do, and only there."""

import runpy
from types import SimpleNamespace

from commands import BENCHMARKS, load_benchmark

from exporter.core import kinds
from exporter.core.types import Operation
from exporter.measure.flops import count

SCRIPT = BENCHMARKS / "target_counts.py"


def test_what_a_model_s_default_has_not_is_told_and_ends_nothing(capsys, monkeypatch) -> None:
    benchmark = load_benchmark("target_counts")
    programs = {"subnet_factored": None, "mapper": None}
    monkeypatch.setattr(benchmark, "load_spec", lambda model: SimpleNamespace(programs=programs))
    monkeypatch.setattr(benchmark, "TARGETS", {"onnx": benchmark.TARGETS["onnx"]})
    benchmark.main(["ofa"])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert "keeps no factors" in rows[0] and rows[1].startswith("| ofa mapper | ")


def test_kinds_that_differ_are_listed_where_totals_do() -> None:
    table = runpy.run_path(str(SCRIPT))["table"]
    shape = ((2, 3),)
    once = count([Operation("a", "Tanh", kinds.TANH, shape, shape), Operation("b", "Exp", kinds.EXP, shape, shape)])
    alike = count([Operation("a", "tanh", kinds.TANH, shape, shape), Operation("b", "exp", kinds.EXP, shape, shape)])
    fewer = count([Operation("a", "Tanh", kinds.TANH, shape, shape)])
    assert table("m", "p", {"onnx": once, "tflite": alike}) == "| m p | 96 (0) | 96 (0) | 0.0% |"
    rows = table("m", "p", {"onnx": once, "tflite": fewer}).splitlines()
    assert rows == ["| m p | 96 (0) | 48 (0) | 100.0% |", "| - exp | 48 | 0 | |"]
