"""The table of the four targets' counts: what differs is listed where the totals do, and only there."""

import runpy

from commands import BENCHMARKS

from exporter.core import kinds
from exporter.core.types import Operation
from exporter.measure.flops import count

SCRIPT = BENCHMARKS / "target_counts.py"


def test_kinds_that_differ_are_listed_where_totals_do() -> None:
    table = runpy.run_path(str(SCRIPT))["table"]
    shape = ((2, 3),)
    once = count([Operation("a", "Tanh", kinds.TANH, shape, shape), Operation("b", "Exp", kinds.EXP, shape, shape)])
    alike = count([Operation("a", "tanh", kinds.TANH, shape, shape), Operation("b", "exp", kinds.EXP, shape, shape)])
    fewer = count([Operation("a", "Tanh", kinds.TANH, shape, shape)])
    assert table("m", "p", {"onnx": once, "tflite": alike}) == "| m p | 96 (0) | 96 (0) | 0.0% |"
    rows = table("m", "p", {"onnx": once, "tflite": fewer}).splitlines()
    assert rows == ["| m p | 96 (0) | 48 (0) | 100.0% |", "| - exp | 48 | 0 | |"]
