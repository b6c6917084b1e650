"""How long the commands take as whole processes: `--help`, and warm exports of the shipped SCN.

    python benchmarks/command_times.py [RUNS]

Prints minimum, median and maximum of wall and processor time over RUNS (3) runs after one that is not counted. The
commands take turns, so that a slow spell of the machine meets all of them.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = Path(sys.executable).with_name("cocorr-export")
TARGETS = ("coreml", "executorch", "onnx", "tflite", "all")


def measure(arguments: list[str]) -> tuple[float, float]:
    """Run the command once and return its wall and processor time in seconds; raises where it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run([COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def table(commands: dict[str, list[str]], runs: int) -> str:
    """Run all commands in turn and return a table of their times."""
    times: dict[str, list[tuple[float, float]]] = {label: [] for label in commands}
    for run in range(runs + 1):
        for label, arguments in commands.items():
            measured = measure(arguments)
            if run:
                times[label].append(measured)
    lines = [f"{'command':24} {'wall s: min median max':>26} {'cpu s: min median max':>26}"]
    for label, samples in times.items():
        cells = [
            f"{min(values):8.2f} {statistics.median(values):8.2f} {max(values):8.2f}"
            for values in zip(*samples, strict=True)
        ]
        lines.append(f"{label:24} {cells[0]:>26} {cells[1]:>26}")
    return "\n".join(lines)


def main() -> None:
    """Measure all commands and print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as folder:
        exports = {f"scn --target {name}": ["scn", "--target", name, "--output", folder] for name in TARGETS}
        print(table({"--help": ["--help"], **exports}, runs))


if __name__ == "__main__":
    main()
