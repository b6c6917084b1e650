"""What a long history costs an SCN: all of it in one call, or in calls of `chunk` or `step`, on each target.

    python benchmarks/lengths.py [--lengths 50,200,1000] [--mini-batches 5,10,20] [--ways rerank,chunk]
                                 [--targets onnx,tflite,executorch,coreml] [--calls 500] [--emulator]
                                 [--checkpoints DIR] [--json FILE]

The models have the sizes of the shipped SCN, or of that in DIR/scn, mini-batches of b clicks, and drawn weights. Each
program is exported by the command, in a process of its own; `export CPU s` has its user and system time and that of
the processes which it starts, a summand for each program of the way, and `export MB` the largest resident set of any
of them. What has no part for each mini-batch is exported once for all lengths, with golden cases of the longest.

Bytes, operations, MACs and memory are those of the artifacts: MACs of all calls, memory of the process that runs one,
above its empty runtime. `us` is for all calls of a history, in one thread: the median of a call times how many there
are, without what an app does between them. `to chunk's` is the time to that of `chunk`, from calls in turn in one
process, the median over the pairs, with its 95 % interval. Core ML has no times where no Mac is.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import measuring
import numpy as np
import torch
from weights import write_drawn

from exporter.artifact import store
from exporter.artifact.manifest import Manifest
from exporter.connections import running
from exporter.core.errors import RuntimeMissingError
from exporter.core.sections import Comparison
from exporter.measure import figures
from exporter.pipeline import ExportRequest, subjects
from exporter.pipeline import source as sources
from models.layers import ItemEmbedding
from models.scn.carried import MOST_MINI_BATCHES
from models.zoo import load_spec

COMMAND = Path(sys.executable).with_name("cocorr-export")
CASES, CANDIDATES, ITEM_STD = 16, 100, 0.5
MEASURED = """
import json, os, sys
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
_, status, used = os.wait4(child, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss << 10]))
"""
"""Runs a command and says what it took: from a small process, since a new one begins with the peak of its parent."""


@dataclass(frozen=True)
class Way:
    """A way through a history of N clicks: programs, and how many clicks each call takes in, None for all of them.

    0 stands for a program that takes in none and is called once. `words` go to the exports.
    """

    programs: Mapping[str, int | None]
    words: tuple[str, ...] = ()


def ways(mini_batch: int) -> dict[str, Way]:
    """Return the ways by what they are called; the first is what others are compared with."""
    return {
        "chunk": Way({"chunk": mini_batch, "rerank_user": 0}),
        "rerank": Way({"rerank": None}),
        "step": Way({"step": 1}),
        "rerank_cached": Way({"rerank_cached": None}),
        "topk": Way({"topk": None}, ("--fold", "double")),
    }


@dataclass(frozen=True)
class Spent:
    """Processor seconds of a command and the largest resident set of its processes, in bytes."""

    cpu_s: float
    peak_bytes: int


@dataclass(frozen=True)
class Made:
    """An artifact, what its export took, and how often it is called for a history."""

    folder: Path
    spent: Spent
    calls: int

    @property
    def manifest(self) -> Manifest:
        """Return what the artifact says of itself."""
        return store.read_manifest(self.folder)

    @property
    def program(self) -> measuring.Lowered:
        """Return what calls it, on its first golden case."""
        inputs, *_ = store.read_golden(self.folder)
        first = {name: array[:1] for name, array in inputs.items()}
        return measuring.Lowered(subjects.subject_of(self.folder, self.manifest), first)


@dataclass(frozen=True)
class Figures:
    """What a way through a history of `length` clicks costs; None where nothing was timed or counted."""

    target: str
    mini_batch: int
    length: int
    way: str
    calls: int
    export_cpu_s: tuple[float, ...]
    export_peak_bytes: int
    bytes: int
    operations: int
    macs: int
    memory_bytes: int | None
    us: float | None
    to_chunk: Comparison | None
    instructions: str | None

    def cells(self) -> list[str]:
        """Return a row of the table."""

        def each(value: float | None, form: str) -> list[str]:
            return ["-", "-"] if value is None else [format(value, form), format(value / self.length, form)]

        return [
            *(str(self.mini_batch), str(self.length), self.way, str(self.calls)),
            " + ".join(f"{seconds:.1f}" for seconds in self.export_cpu_s),
            f"{self.export_peak_bytes / 1e6:,.0f}",
            *(f"{self.bytes:,}", f"{self.operations:,}"),
            *each(self.macs, ",.0f"),
            *each(self.us, ",.1f"),
            *(
                ("-", "-")
                if self.to_chunk is None
                else (f"{self.to_chunk.ratio:.2f}", measuring.interval(self.to_chunk))
            ),
            "-" if self.memory_bytes is None else f"{self.memory_bytes / 1e6:,.1f}",
            self.instructions or "-",
        ]


COLUMNS = (
    *("b", "N", "way", "calls", "export CPU s", "export MB", "bytes", "operations", "MACs", "per click"),
    *("us", "per click", "to chunk's", "95 %", "memory MB", "ARM64 instructions"),
)


def main() -> None:
    """Print the table in Markdown, and write the figures as JSON where that is asked for."""
    more = {"lengths": "50,200,1000", "mini-batches": "5,10,20", "ways": ",".join(ways(1)), "json": ""}
    arguments = measuring.options(__doc__, "scn", **more)
    found: list[Figures] = []

    def rows(request: ExportRequest, arguments: argparse.Namespace, folder: Path) -> Iterator[list[str]]:
        for row in figures_of(request, arguments, folder):
            if isinstance(row, Figures):
                found.append(row)
                yield row.cells()
            else:
                yield [*row, *["-"] * (len(COLUMNS) - len(row))]

    measuring.print_table(COLUMNS, arguments, rows)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps([asdict(row) for row in found], indent=2) + "\n", encoding="utf-8")


def whole_numbers(text: str) -> list[int]:
    """Return the numbers of a list with commas."""
    return [int(number) for number in text.split(",")]


def figures_of(
    request: ExportRequest, arguments: argparse.Namespace, folder: Path
) -> Iterator[Figures | tuple[str, ...]]:
    """Yield what each way costs, or the first cells of a row that says why there is no such program."""
    lengths, architecture = whole_numbers(arguments.lengths), sources.load(request.choice).checkpoint.architecture
    for mini_batch in whole_numbers(arguments.mini_batches):

        @cache
        def made(program: str, words: tuple[str, ...], length: int, mini_batch: int = mini_batch) -> tuple[Path, Spent]:
            """Export a program, once for those that ask for the same."""
            name = f"{mini_batch}_{length}"
            if not (folder / name).exists():
                write(folder / name, {**architecture, "mini_batch": mini_batch}, length)
            output = folder / f"of_{name}"
            asked = ("--program", program, "--target", request.target, *words)
            spent = export("scn", *asked, "--checkpoint", str(folder / name), "--output", str(output))
            return output / "scn" / program / "generic" / request.target, spent

        for length in lengths:
            reference = None
            for name, way in ways(mini_batch).items():
                if name not in arguments.ways.split(","):
                    continue
                unrolled = None in way.programs.values()
                if unrolled and -(-length // mini_batch) > MOST_MINI_BATCHES:
                    yield str(mini_batch), str(length), name, "1", f"refused: over {MOST_MINI_BATCHES} mini-batches"
                    continue
                parts = []
                for program, clicks in way.programs.items():
                    calls = -(-length // clicks) if clicks else 1
                    parts.append(Made(*made(program, way.words, length if clicks is None else max(lengths)), calls))
                reference = parts if name == "chunk" else reference
                yield measured((request.target, mini_batch, length, name), parts, reference, arguments)


def measured(
    names: tuple[str, int, int, str],
    parts: Sequence[Made],
    reference: Sequence[Made] | None,
    arguments: argparse.Namespace,
) -> Figures:
    """Return the figures of a way by its artifacts; `reference` are those of `chunk`, if they are there."""
    manifests = [part.manifest for part in parts]
    memory = [manifest.memory and manifest.memory.artifact_rss_bytes for manifest in manifests]
    us, to_chunk = timed(parts, reference, arguments.calls)
    return Figures(
        *names,
        calls=sum(part.calls for part in parts),
        export_cpu_s=tuple(part.spent.cpu_s for part in parts),
        export_peak_bytes=max(part.spent.peak_bytes for part in parts),
        bytes=sum(manifest.size_bytes for manifest in manifests),
        operations=sum(len(manifest.flops.by_operation) for manifest in manifests),
        macs=sum(part.calls * manifest.flops.macs for part, manifest in zip(parts, manifests, strict=True)),
        memory_bytes=None if None in memory else sum(memory),
        us=us,
        to_chunk=to_chunk,
        instructions=" + ".join(f"{part.calls} x {measuring.instructions(part.program)}" for part in parts)
        if arguments.emulator
        else None,
    )


def timed(
    parts: Sequence[Made], reference: Sequence[Made] | None, calls: int
) -> tuple[float | None, Comparison | None]:
    """Return the microseconds of a way through a history, and how they compare with those of `reference`.

    The programs that take in the clicks, the first of each way, are called in turn; the median of what is called once
    behind them is added.
    """
    both = (reference or parts, parts)
    try:
        heads = [way[0].program for way in both]
        pairs = running.compare_times(*((one.subject, one.inputs) for one in heads), measuring.WARMUP, calls)
        rest = [sum(measuring.compared(one.program, one.program, calls).p50_us[0] for one in way[1:]) for way in both]
    except RuntimeMissingError:
        return None, None
    first, second = (
        tuple(way[0].calls * us + more for us in samples)
        for way, samples, more in zip(both, (pairs.first_us, pairs.second_us), rest, strict=True)
    )
    compared = figures.comparison("chunk", "other", replace(pairs, first_us=first, second_us=second))
    return compared.p50_us[1], compared if reference else None


def export(*words: str) -> Spent:
    """Run the command; raises SystemExit with its words where it does not end with 0, or with 3 as for Core ML."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", MEASURED, str(COMMAND), *words], capture_output=True, text=True, check=True
    )
    *_, last = done.stdout.splitlines()
    code, cpu_s, peak_bytes = json.loads(last)
    if code not in (0, 3):
        raise SystemExit(f"{' '.join(words)}\n{done.stdout}")
    return Spent(cpu_s, peak_bytes)


def write(folder: Path, architecture: Mapping[str, int], length: int) -> None:
    """Write a checkpoint of drawn weights, with golden histories of N/16, 2 N/16, ... N clicks."""
    torch.manual_seed(0)
    model = load_spec("scn").build(architecture).eval()
    for module in model.modules():
        if isinstance(module, ItemEmbedding):
            module.reset(ITEM_STD)
    rng, vocabulary = np.random.default_rng(0), architecture["vocabulary"]
    item_ids = rng.integers(1, vocabulary, (CASES, length), dtype=np.int32)
    item_ids[np.arange(length) >= np.linspace(length / CASES, length, CASES)[:, None]] = 0
    write_drawn(folder, model, architecture, item_ids, min(CANDIDATES, vocabulary - 1), rng)


if __name__ == "__main__":
    main()
