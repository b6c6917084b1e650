"""How long the Core ML interpreter takes for one call, against what it has to keep to.

    python benchmarks/mil_speed.py [RUNS]

Exports the shipped SCN and the Forward-OFA backbone with all of its six SASRec blocks, converts MobileNetV2 at 224 x
224 with random weights, and prints for each, in float32 and float16, milliseconds to load the package, of the first run
(which decodes constants), and of RUNS (50) later runs, with one thread. Exit status 1 if a median exceeds its target.
"""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import logging  # noqa: E402 - numpy reads the number of threads when it is imported
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Iterator, Mapping  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from itertools import pairwise  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

from exporter import mil  # noqa: E402

TESTS = Path(__file__).parents[1] / "tests" / "mil"
COMMAND = Path(sys.executable).with_name("cocorr-export")
PRECISIONS = {"fp32": "FLOAT32", "fp16": "FLOAT16"}
HEADER = f"{'package':34} {'load':>8} {'first':>8} {'fastest':>8} {'median':>8} {'slowest':>8} {'target':>8}"


@dataclass(frozen=True)
class Timing:
    """Milliseconds of wall time of one package."""

    load: float
    first: float
    runs: list[float]

    def row(self, name: str, target: float) -> str:
        """Return a line of the table."""
        cells = (self.load, self.first, min(self.runs), statistics.median(self.runs), max(self.runs), target)
        return f"{name:34} " + " ".join(f"{cell:8.2f}" for cell in cells)


def measure(package: Path, feeds: Mapping[str, np.ndarray], runs: int) -> Timing:
    """Load a package and run it 1 + `runs` times."""
    times = [time.perf_counter()]
    program = mil.load(package)
    times.append(time.perf_counter())
    for _ in range(runs + 1):
        program.run(feeds)
        times.append(time.perf_counter())
    load, first, *rest = (1000 * (end - start) for start, end in pairwise(times))
    return Timing(load, first, rest)


def golden_inputs(artifact: Path) -> dict[str, np.ndarray]:
    """Return the inputs of the first golden case of an artifact."""
    with np.load(artifact / "golden.npz") as golden:
        return {name.removeprefix("inputs."): golden[name][0] for name in golden if name.startswith("inputs.")}


def shipped(folder: Path, precision: str, *model: str) -> tuple[Path, dict[str, np.ndarray]]:
    """Export a shipped checkpoint; returns the package and the inputs of one golden case."""
    arguments = [*model, "--target", "coreml", "--precision", precision, "--output", str(folder)]
    subprocess.run([COMMAND, *arguments], check=False, stdout=subprocess.DEVNULL)
    # What the verdict says of the scores is no matter here, only that there is an artifact.
    (manifest,) = folder.rglob("manifest.json")
    return manifest.parent / "model.mlpackage", golden_inputs(manifest.parent)


def mobilenet(folder: Path, precision: str) -> tuple[Path, dict[str, np.ndarray]]:
    """Convert MobileNetV2 with random weights; returns the package and one input."""
    import coremltools as ct
    import torch
    from mil_networks import MobileNetV2

    example = torch.randn(1, 3, 224, 224)
    exported = torch.export.export(MobileNetV2().eval(), (example,)).run_decompositions({})
    how = getattr(ct.precision, PRECISIONS[precision])
    model = ct.convert(exported, minimum_deployment_target=ct.target.iOS17, compute_precision=how, skip_model_load=True)
    path = folder / "mobilenet.mlpackage"
    model.save(str(path))
    return path, {model.input_description._fd_spec[0].name: example.numpy()}


def subjects(folder: Path) -> Iterator[tuple[str, float, Path, dict[str, np.ndarray]]]:
    """Make each package and yield its name, the milliseconds it may take, its path and its inputs."""
    for number, precision in enumerate(PRECISIONS):
        places = [folder / f"{number}{place}" for place in range(3)]
        for place in places:
            place.mkdir()
        yield f"SCN rerank {precision}", 5.0, *shipped(places[0], precision, "scn")
        backbone = shipped(places[1], precision, "ofa", "--structure", "111111")
        yield f"SASRec, 6 blocks {precision}", 10.0, *backbone
        yield f"MobileNetV2, 224 x 224 {precision}", 3000.0, *mobilenet(places[2], precision)


def main() -> int:
    """Measure every package and print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    sys.path.insert(0, str(TESTS))
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    print(f"milliseconds of wall time, {runs} runs, numpy {np.__version__}, one thread\n{HEADER}")
    kept = True
    with tempfile.TemporaryDirectory() as folder:
        for name, target, package, feeds in subjects(Path(folder)):
            timing = measure(package, feeds, runs if target < 1000 else max(1, runs // 5))
            kept &= statistics.median(timing.runs) <= target
            print(timing.row(name, target), flush=True)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
