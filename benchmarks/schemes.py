"""What `--precision` costs and saves: files, memory, time and verdicts by scheme and target, and what users notice.

    python benchmarks/schemes.py [--parts artifacts,large,accuracy] [--models scn,ofa] [--calls 2000] [--emulator]
                                 [--targets onnx,tflite,executorch,coreml] [--schemes fp32,fp16,int8,int4]
                                 [--items 500000] [--data DIR] [--checkpoints DIR]

`artifacts` exports each model by each scheme that the target has. `moves` is the root mean square of what the tables
change of the scores, over their standard deviation within cases, and `allowed` the most that passes; `top 10` is how
far torch with these tables and torch in fp32 agree. `memory` is that of the process that runs the artifact, above its
empty runtime. `time to fp32's` is from calls in turn in one process, the median over the pairs, with its 95 % interval.
With `--emulator` the golden cases run on an emulated ARM64 processor too, and the instructions of a call are counted.

`large` has an SCN with the body of the shipped one and drawn rows for `--items` items, and the same figures of it. The
memory of Core ML is that of a process that computes it with the reference interpreter, above one that has imported it.

`accuracy` ranks for all test users of the data that a checkpoint was trained on, DIR being COCORR_DATA, as its
training tested it (scheme_accuracy.py). Progress goes to stderr.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import measuring
import numpy as np
import scheme_accuracy
import torch
from lengths import CANDIDATES, CASES
from weights import write_drawn

from exporter import pipeline
from exporter.artifact import store
from exporter.artifact.manifest import Manifest
from exporter.artifact.results import Refusal
from exporter.core.errors import CocorrError, RuntimeMissingError
from exporter.core.precision import Precision
from exporter.core.sections import Comparison
from exporter.pipeline import source as sources
from exporter.pipeline import subjects
from exporter.targets import TARGETS
from models import checkpoint
from models.zoo import load_spec

COLUMNS = (
    *("scheme", "verdict", "top 10", "moves", "allowed", "bytes", "bytes to fp32's", "constants", "memory MB"),
    *("us", "time to fp32's", "95 %", "ARM64 verdict", "instructions", "instructions to fp32's"),
)
INTERPRETED = """
import sys
from pathlib import Path
import numpy as np
from exporter import mil
from exporter.connections.agent.conditions import resident_bytes
inputs = dict(np.load(sys.argv[2]))
empty = resident_bytes("VmRSS")
program = mil.load(Path(sys.argv[1]))
for case in range(len(next(iter(inputs.values())))):
    program.execute({name: array[case] for name, array in inputs.items()})
print(resident_bytes("VmHWM") - empty)
"""
"""Computes golden cases with the interpreter; prints what that took of memory, in bytes."""


@dataclass(frozen=True)
class Made:
    """An artifact of a scheme."""

    scheme: str
    folder: Path

    @property
    def manifest(self) -> Manifest:
        """Return what the artifact says of itself."""
        return store.read_manifest(self.folder)

    @property
    def program(self) -> measuring.Lowered:
        """Return what calls it, on its first golden case."""
        golden = store.read_golden(self.folder)
        first = {name: array[:1] for name, array in golden.inputs.items()}
        return measuring.Lowered(subjects.subject_of(self.folder, self.manifest), first)

    @cached_property
    def instructions(self) -> str:
        """Return the ARM64 instructions of a call, or why they were not counted."""
        return measuring.instructions(self.program)

    @property
    def memory_bytes(self) -> int | None:
        """Return the memory that running it takes above the empty runtime, None where nothing here measures it."""
        manifest = self.manifest
        if manifest.target == "coreml" and manifest.external is None:
            with tempfile.TemporaryDirectory() as folder:
                inputs = Path(folder) / "inputs.npz"
                np.savez(inputs, **store.read_golden(self.folder).inputs)
                command = [sys.executable, "-c", INTERPRETED, str(self.folder / manifest.model_file), str(inputs)]
                return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        return manifest.memory.artifact_rss_bytes if manifest.memory else None


def main() -> None:
    """Print a table in Markdown for each part."""
    arguments = measuring.options(
        __doc__,
        "scn",
        parts="artifacts",
        schemes="fp32,fp16,int8,int4",
        items="500000",
        data=os.environ.get("COCORR_DATA", ""),
    )
    for part in arguments.parts.split(","):
        PARTS[part](arguments)


def artifacts(arguments: argparse.Namespace) -> None:
    """Print the table of the models' artifacts."""
    measuring.print_table(COLUMNS, arguments, rows)


def large(arguments: argparse.Namespace) -> None:
    """Print the table of a copy of the SCN with many items."""
    with tempfile.TemporaryDirectory() as folder:
        say(f"writing an SCN of {int(arguments.items):,} items")
        choice = pipeline.ProgramChoice("scn", checkpoint=own(arguments.checkpoints / "scn"))
        write_copy(sources.load(choice), int(arguments.items) + 1, Path(folder) / "scn")
        arguments = argparse.Namespace(**{**vars(arguments), "models": "scn", "checkpoints": Path(folder)})
        measuring.print_table(COLUMNS, arguments, rows)


def accuracy(arguments: argparse.Namespace) -> None:
    """Print the table of what users notice."""
    print(f"| {' | '.join(scheme_accuracy.COLUMNS)} |")
    print("|---" * len(scheme_accuracy.COLUMNS) + "|")
    for model in arguments.models.split(","):
        folder = own(arguments.checkpoints / model) or sources.PRETRAINED / model
        for row in scheme_accuracy.rows(model, folder, Path(arguments.data), schemes(arguments), say):
            print(f"| {' | '.join(row)} |", flush=True)


PARTS = {"artifacts": artifacts, "large": large, "accuracy": accuracy}


def own(folder: Path) -> Path | None:
    """Return a checkpoint's folder, None where there is none."""
    return folder if (folder / checkpoint.CONFIG).exists() else None


def schemes(arguments: argparse.Namespace) -> list[Precision]:
    """Return the schemes that are asked for, fp32 before all, as the others are compared with it."""
    return ["fp32", *(name for name in arguments.schemes.split(",") if name != "fp32")]


def say(line: str) -> None:
    """Tell of the progress."""
    print(line, file=sys.stderr, flush=True)


def rows(request: pipeline.ExportRequest, arguments: argparse.Namespace, folder: Path) -> Iterator[list[str]]:
    """Yield the cells of each scheme that the target has."""
    first = None
    for scheme in schemes(arguments):
        if scheme not in TARGETS[request.target].precisions:
            continue
        say(f"{request.target} {scheme}")
        output = folder / scheme
        try:
            (result,) = pipeline.export(replace(request, precision=scheme, output=output), lambda _: None)
        except CocorrError as error:
            result = Refusal(request.choice.model, "", request.target, str(error))
        if isinstance(result, Refusal):
            yield [scheme, f"refused: {result.error}".replace("|", "/"), *["-"] * (len(COLUMNS) - 2)]
            continue
        made = Made(scheme, Path(result.place))
        first = first or made
        yield cells(made, first, arguments)


def cells(made: Made, first: Made, arguments: argparse.Namespace) -> list[str]:
    """Return the cells of an artifact beside the first one, that of fp32."""
    manifest, cost, memory = made.manifest, made.manifest.parity.scheme, made.memory_bytes
    judged: list[str] = ["-"] * 3
    if cost is not None:
        (moves,) = cost.error_to_spread.values()
        judged = [figure(cost.top10_overlap, ".4f"), figure(moves, ".5f"), figure(cost.allowed, ".5f")]
    elif manifest.parity.top10_overlap is not None:
        judged[0] = f"{manifest.parity.top10_overlap:.4f}"
    compared = timed(first, made, arguments.calls)
    return [
        *(made.scheme, manifest.parity.verdict, *judged),
        *(f"{manifest.size_bytes:,}", f"{manifest.size_bytes / first.manifest.size_bytes:.3f}"),
        f"{manifest.memory.constant_bytes or 0:,}" if manifest.memory else "-",
        "-" if memory is None else f"{memory / 1e6:.1f}",
        *(
            ("-", "-", "-")
            if compared is None
            else (f"{compared.p50_us[1]:.1f}", f"{compared.ratio:.2f}", measuring.interval(compared))
        ),
        *(emulated(made, first) if arguments.emulator else ("-", "-", "-")),
    ]


def figure(value: float | None, form: str) -> str:
    """Return a number in words."""
    return "-" if value is None else format(value, form)


def timed(first: Made, second: Made, calls: int) -> Comparison | None:
    """Return how the times of two artifacts compare; None where nothing here has the runtime."""
    try:
        return measuring.compared(first.program, second.program, calls)
    except RuntimeMissingError:
        return None


def emulated(made: Made, first: Made) -> tuple[str, str, str]:
    """Return the verdict on the golden cases on an emulated ARM64 processor, and the instructions of a call."""
    if TARGETS[made.manifest.target].system is not None:
        return "-", "-", "-"
    judged = pipeline.parity(made.folder, lambda _: None, "emulator").manifest.parity
    counts = (first.instructions, made.instructions)
    numbers = [int(count.replace(",", "")) for count in counts if count.replace(",", "").isdigit()]
    ratio = f"{numbers[1] / numbers[0]:.2f}" if len(numbers) == len(counts) else "-"
    off = figure(judged.max_abs_error, ".2e")
    return f"{judged.verdict}, {off}", counts[1], ratio


def write_copy(source: sources.Source, vocabulary: int, folder: Path) -> None:
    """Write a checkpoint with a source's body and drawn rows, of the standard deviation that its own rows have."""
    own_rows = source.model.items.weight
    architecture = {**source.checkpoint.architecture, "vocabulary": vocabulary}
    model = load_spec("scn").build(architecture).eval()
    rows = torch.randn(vocabulary, own_rows.shape[1], generator=torch.Generator().manual_seed(0)) * own_rows[1:].std()
    rows[0] = 0
    model.load_state_dict({**source.model.state_dict(), "items.weight": rows})
    rng, length = np.random.default_rng(0), source.history_length
    item_ids = rng.integers(1, vocabulary, (CASES, length), dtype=np.int32)
    write_drawn(folder, model, architecture, item_ids, min(CANDIDATES, vocabulary - 1), rng)


if __name__ == "__main__":
    main()
