"""The load test still runs, and holds the service to answering whoever asks."""

import subprocess
import sys

from commands import BENCHMARKS


def test_a_table_of_loads() -> None:
    words = ["--models", "scn", "--clients", "4", "--seconds", "0.5", "--queue", "2", "--past", "40"]
    command = [sys.executable, BENCHMARKS / "serve.py", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == ["4", "40"]
    for row in rows:
        sent, good, refused = (int(cell.replace(",", "")) for cell in row[-3:])
        assert sent == good + refused and good > 0
    assert refused > 0
