"""How time and memory of `cocorr-export fleet` grow with the users: generated clicks through the real command.

    python benchmarks/fleet_growth.py [--sizes 1000,10000,100000,1000000] [--model scn] [--checkpoint DIR]
                                      [--workers N] [--output JSON] [--plot SVG]

For each size a file of clicks is generated, interleaved by time, and the command runs on it as a user would start it.
What it says on stderr tells its phases: reading, exporting (which depends on no user), judging, adding up. Peaks are
the kernel's own (VmHWM), reset with each phase, so that they are those of one phase; pages of mapped files count.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import growth_plot
import numpy as np
import pyarrow as pa
import pyarrow.csv

from models.training.users import Catalogue, read_users

SIZES = "1000,10000,100000,1000000"
ITEMS = 12_101
"""Those of the shipped checkpoint, whose rows are the ids."""
PHASES = {
    "loading the checkpoint": "starting",
    "reading the clicks": "reading",
    "capturing": "exporting",
    "judging": "judging",
    "adding up": "adding_up",
}
"""What the command says when a phase begins."""
HISTORY = 10
_HANDED_OUT = 1 << 16
_ROWS = 1 << 18
_LOOK_S = 0.05
CLUSTER = {"machines": 16, "cores_per_machine": 16, "users": 100_000_000}


def main() -> None:
    """Measure all sizes, write the document and the plot, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--model", default="scn")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--plot", type=Path)
    asked = parser.parse_args()
    points = []
    print("| users | clicks | reading s | judging s | adding up s | command MB | while reading | a worker MB |")
    print("|---|---|---|---|---|---|---|---|")
    for users in map(int, asked.sizes.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            point = measure(users, Path(folder), asked.model, asked.checkpoint, asked.workers)
        points.append(point)
        took, peak = point["seconds"], point["peak_bytes"]
        shown = [f"{took[phase]:.1f}" for phase in ("reading", "judging", "adding_up")]
        shown += [f"{size / 1e6:,.0f}" for size in (max(peak.values()), peak["reading"], point["worker_peak_bytes"])]
        print(f"| {users:,} | {point['clicks']:,} | {' | '.join(shown)} |", flush=True)
    document = {"workers": asked.workers, "points": points, "estimate": estimate(points, asked.workers)}
    if asked.output is not None:
        asked.output.write_text(json.dumps(document, indent=2) + "\n")
    if asked.plot is not None:
        asked.plot.write_text(growth_plot.drawn(points))
    print(json.dumps(document["estimate"], indent=2))


def measure(
    users: int, folder: Path, model: str, checkpoint: Path | None, workers: int, items: int = ITEMS
) -> dict[str, object]:
    """Return what the command took for so many generated users, by phase."""
    data = folder / "clicks.csv"
    clicks = write_clicks(data, users, items)
    words = ["fleet", model, "--data", data, "--target", "onnx", "--output", folder / "fleet", "--json"]
    words += ["--workers", workers, *(["--checkpoint", checkpoint] if checkpoint else [])]
    ran = watched([sys.executable, "-m", "exporter", *map(str, words)])
    assert ran.document["users"]["all"] == users
    return {
        "users": users,
        "clicks": clicks,
        "data_bytes": data.stat().st_size,
        "parts_bytes": ran.document["run"]["bytes"],
        "seconds": {phase: round(seconds, 3) for phase, seconds in ran.seconds.items()},
        "peak_bytes": dict(ran.peaks),
        "worker_peak_bytes": ran.worker_peak,
        "status": ran.document["users"],
        "handing_out_cpu_seconds_per_user": handing_out(data, items),
    }


def handing_out(data: Path, items: int) -> float:
    """Return the processor seconds that the cases of a user take, which one process makes for all workers."""
    users = read_users(data, Catalogue(items + 1, None, {}))
    chosen = users.rankable[:_HANDED_OUT]
    started = time.process_time()
    users.cases(chosen, HISTORY)
    return (time.process_time() - started) / len(chosen)


def write_clicks(path: Path, users: int, items: int = ITEMS, seed: int = 0) -> int:
    """Write a table of clicks by U users on items 1..`items`, and return how many there are.

    Lengths are log-normal, 5 in the middle and 9 on average, one user in 16 has one click; the clicks of all users are
    shuffled among each other, as a log has them, and items are the more popular the lower their number.
    """
    rng = np.random.default_rng(seed)
    lengths = np.minimum(1 + rng.lognormal(1.6, 1.05, users).astype(np.int64), 10_000)
    owner = rng.permutation(np.repeat(np.arange(users, dtype=np.int32), lengths))
    names = pa.array([f"u{number:010x}" for number in rng.permutation(7 * users)[:users].tolist()])
    schema = pa.schema([("user", pa.string()), ("item", pa.int32()), ("timestamp", pa.int64())])
    with pyarrow.csv.CSVWriter(path, schema) as writer:
        for start in range(0, len(owner), _ROWS):
            own = owner[start : start + _ROWS]
            item = (1 + items * rng.random(len(own)) ** 2).astype(np.int32)
            times = 1_500_000_000 + np.arange(start, start + len(own)) // 3
            columns = [names.take(pa.array(own)), pa.array(item), pa.array(times)]
            writer.write_table(pa.table(columns, schema=schema))
    return len(owner)


@dataclass
class Ran:
    """A command that was watched: seconds and the peak of its memory by phase, and the largest peak of a worker."""

    document: Mapping[str, dict]
    seconds: dict[str, float]
    peaks: dict[str, int]
    worker_peak: int


def watched(command: Sequence[str]) -> Ran:
    """Run a command to its end and watch it and its workers by /proc; a peak may miss what the last 0.05 s added."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ran, phase = Ran({}, {}, {}, 0), ["starting"]
    ended = threading.Event()

    def look() -> None:
        ran.peaks[phase[0]] = max(ran.peaks.get(phase[0], 0), peak(process.pid))
        ran.worker_peak = max([ran.worker_peak, *map(peak, workers(process.pid))])

    def watch() -> None:
        while not ended.wait(_LOOK_S):
            look()

    printed: list[str] = []
    reader = threading.Thread(target=lambda: printed.append(process.stdout.read()))
    watcher = threading.Thread(target=watch)
    reader.start()
    watcher.start()
    for line in process.stderr:
        begun = next((PHASES[words] for words in PHASES if line.startswith(f"... {words}")), None)
        if begun is not None and begun != phase[0]:
            look()
            ran.seconds[phase[0]], started = time.monotonic() - started, time.monotonic()
            phase[0] = begun
            with suppress(OSError):
                Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak is what is held now
    process.wait()
    ran.seconds[phase[0]] = time.monotonic() - started
    ended.set()
    watcher.join()
    reader.join()
    assert process.returncode == 0, printed
    ran.document = json.loads(printed[0])
    return ran


def peak(process: int) -> int:
    """Return the largest resident memory of a process so far, in bytes; 0 of one that has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return 0


def workers(process: int) -> Iterator[int]:
    """Yield the workers of a command: of what its threads have started, what runs the worker's module by now."""
    with suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            with suppress(OSError):
                for child in (thread / "children").read_text().split():
                    if b"fleet_worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                        yield int(child)


def estimate(points: Sequence[Mapping], workers: int) -> dict[str, object]:
    """Return what 10^8 users would take on a named cluster, by what each further user took from size to size, at last.

    Reading, handing out and adding up run in one process; judging is divided by the cores, and runs beside the handing
    out, so that the longer of the two counts. Bytes are those of the command at its peak, of the file and of the parts.
    """
    if len(points) < 2:
        return {"method": "two sizes or more are needed"}
    small, large = points[-2:]
    more = large["users"] - small["users"]
    per_user = {
        phase: (large["seconds"][phase] - small["seconds"][phase]) / more
        for phase in ("reading", "judging", "adding_up")
    }
    held = max(large["peak_bytes"].values()) - max(small["peak_bytes"].values())
    per_user["handing_out"] = large["handing_out_cpu_seconds_per_user"]
    users, cores = CLUSTER["users"], CLUSTER["machines"] * CLUSTER["cores_per_machine"]
    return {
        "method": f"per further user between {small['users']:,} and {large['users']:,}; judging divided by the cores",
        "cluster": CLUSTER,
        "microseconds_per_user": {phase: round(1e6 * seconds, 2) for phase, seconds in per_user.items()},
        "command_bytes_per_user": round(held / more, 1),
        "hours": {
            "reading": round(users * per_user["reading"] / 3600, 2),
            "judging": round(users * per_user["judging"] * workers / cores / 3600, 2),
            "handing_out": round(users * per_user["handing_out"] / 3600, 2),
            "adding_up": round(users * per_user["adding_up"] / 3600, 2),
        },
        "command_gigabytes": round((max(large["peak_bytes"].values()) + held / more * users) / 1e9, 2),
        "data_gigabytes": round(large["data_bytes"] / large["users"] * users / 1e9, 1),
        "parts_gigabytes": round(large["parts_bytes"] / large["users"] * users / 1e9, 1),
    }


if __name__ == "__main__":
    main()
