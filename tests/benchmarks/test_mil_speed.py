"""The benchmark of the interpreter's speed still runs."""

import runpy
from pathlib import Path

from commands import BENCHMARKS

SCRIPT = BENCHMARKS / "mil_speed.py"


def test_a_row_of_times_of_the_shipped_scn(artifacts: dict[str, Path]) -> None:
    benchmark = runpy.run_path(str(SCRIPT))
    artifact = artifacts["coreml"]
    timing = benchmark["measure"](artifact / "model.mlpackage", benchmark["golden_inputs"](artifact), runs=5)
    assert len(timing.runs) == 5 and timing.load > 0
    # The first run decodes the constants.
    assert timing.first > min(timing.runs) > 0
    load, _, fastest, median, slowest, target = map(float, timing.row("SCN", 5.0).split()[1:])
    assert fastest <= median <= slowest and (load, target) == (round(timing.load, 2), 5.0)
