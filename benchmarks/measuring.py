"""What the benchmarks of lowered programs have in common: their options, a program that can be called, its figures."""

import argparse
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from weights import request_for

from exporter import profiles
from exporter.connections import running
from exporter.connections.host import HostConnection
from exporter.core.errors import ArtifactError
from exporter.core.sections import Comparison
from exporter.core.types import Arrays, RunResult, TensorSpec
from exporter.measure import figures, flops
from exporter.pipeline import ExportRequest
from exporter.pipeline.reach import reach
from exporter.targets import TARGETS, reading

WARMUP = 50
Rows = Callable[[ExportRequest, argparse.Namespace, Path], Iterable[list[str]]]
"""Gives the cells of a benchmark's rows for one model on one target, working in a folder."""


@dataclass(frozen=True)
class Lowered:
    """A program that can be called, and the inputs of one call: [1, *shape] by the names that its file has."""

    subject: running.Subject
    inputs: Arrays


def options(description: str, models: str, **more: str) -> argparse.Namespace:
    """Return what the command line says; `more` are options of a benchmark's own, with their defaults."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--models", default=models)
    parser.add_argument("--targets", default="onnx,tflite,executorch")
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--emulator", action="store_true")
    parser.add_argument("--checkpoints", type=Path, default=Path())
    for name, default in more.items():
        parser.add_argument(f"--{name}", default=default)
    return parser.parse_args()


def print_table(columns: Sequence[str], arguments: argparse.Namespace, rows: Rows) -> None:
    """Print the rows of each model on each target in Markdown; `columns` are named behind those two."""
    names = ("model", "target", *columns)
    print(f"| {' | '.join(names)} |")
    print("|---" * len(names) + "|")
    for model in arguments.models.split(","):
        for target in arguments.targets.split(","):
            with tempfile.TemporaryDirectory() as folder:
                _, request = request_for(model, target, None, "fp32", arguments.checkpoints, Path(folder))
                for row in rows(request, arguments, Path(folder)):
                    print(f"| {model} | {target} | {' | '.join(row)} |", flush=True)


def callable_program(target: str, model_file: Path, inputs: Arrays, outputs: tuple[TensorSpec, ...]) -> Lowered:
    """Return what calls a file of a target on this machine, in one thread."""
    subject = running.Subject(
        target=TARGETS[target],
        model_file=model_file,
        options=profiles.load("generic").options_for(target),
        outputs=outputs,
        threads=1,
        connection=HostConnection(),
    )
    return Lowered(subject, inputs)


def compared(first: Lowered, second: Lowered, calls: int) -> Comparison:
    """Call two programs in turn; the ratio is the time of the second to that of the first."""
    times = running.compare_times(
        (first.subject, first.inputs), (second.subject, second.inputs), min(WARMUP, calls), calls
    )
    return figures.comparison("first", "second", times)


def interval(comparison: Comparison) -> str:
    """Return the 95 % interval of a comparison's ratio."""
    return f"{comparison.low:.3f} to {comparison.high:.3f}"


def size(program: Lowered) -> int:
    """Return the bytes of a program's file."""
    return program.subject.model_file.stat().st_size


def macs(program: Lowered) -> str:
    """Return the MACs that the operations in the file say, or why they cannot be read."""
    try:
        operations = reading.read(program.subject.target, program.subject.model_file).operations
    except ArtifactError as error:
        return str(error)
    return f"{flops.count(operations).macs:,}"


def once(program: Lowered) -> RunResult:
    """Call a program once on this machine; raises RuntimeFailureError where that fails."""
    ran = running.run(program.subject, program.inputs, 0, 0)
    return ran.required(program.subject.model_file)


def instructions(program: Lowered) -> str:
    """Return the ARM64 instructions of one call, or why they were not counted."""
    ran = running.run(replace(program.subject, connection=reach("emulator")), program.inputs, 0, 0)
    if ran.result is None or ran.result.instructions is None:
        return ran.reason or "not counted"
    return f"{ran.result.instructions:,}"
