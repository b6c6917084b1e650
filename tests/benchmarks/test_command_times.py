"""The benchmark of the commands still runs."""

import runpy

from commands import BENCHMARKS

SCRIPT = BENCHMARKS / "command_times.py"


def test_a_table_of_times() -> None:
    table = runpy.run_path(str(SCRIPT))["table"]({"--help": ["--help"], "list": ["list", "targets"]}, runs=2)
    rows = [line.split() for line in table.splitlines()[1:]]
    assert [row[0] for row in rows] == ["--help", "list"]
    for row in rows:
        low, median, high = map(float, row[1:4])
        assert 0 < low <= median <= high
