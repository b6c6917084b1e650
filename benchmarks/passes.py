"""What each pass over the graph is worth: every one alone, every one left out, and all, against none, on each target.

    python benchmarks/passes.py [--models scn,ofa] [--targets onnx,tflite,executorch] [--calls 2000] [--emulator]
                                [--checkpoints DIR]

Both artifacts of a row are called in turn in one process: the ratio is the median over the pairs, with its 95 %
interval. With --emulator the instructions of one call on ARM64 are counted as well (`cocorr-export emulator install`),
which no other work on the machine changes. A target's list of passes (`passes` in exporter/targets) is chosen by this.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import measuring

from exporter import profiles
from exporter.core.errors import LoweringError
from exporter.core.types import PassChoice
from exporter.graph import OPTIONAL
from exporter.pipeline import ExportRequest
from exporter.pipeline import source as sources
from exporter.pipeline.exportable import Exportable
from exporter.targets import TARGETS


def main() -> None:
    """Print the table in Markdown."""
    arguments = measuring.options(__doc__, "scn,ofa")
    columns = ("passes", "time to that without", "95 %", "MACs", "bytes", "ARM64 instructions")
    measuring.print_table(columns, arguments, rows)


def variants() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield sets of passes by what they are called; the first is none."""
    yield "none", ()
    for name in OPTIONAL:
        yield f"{name} alone", (name,)
    for name in OPTIONAL:
        yield f"all but {name}", tuple(other for other in OPTIONAL if other != name)
    yield "all", OPTIONAL


def rows(request: ExportRequest, arguments: argparse.Namespace, folder: Path) -> Iterator[list[str]]:
    """Yield the cells of each set of passes."""
    source, plain = sources.load(request.choice), None
    for name, passes in variants():
        try:
            program = lowered(source, request.target, passes, folder / name.replace(" ", "_"))
        except LoweringError as error:
            if plain is None:
                raise
            print(f"{request.target}, {name}: {error}", file=sys.stderr)
            yield [name, "refused by the converter", "-", "-", "-", "-"]
            continue
        plain = plain or program
        compared = measuring.compared(plain, program, arguments.calls)
        yield [
            name,
            f"{compared.ratio:.3f}",
            measuring.interval(compared),
            measuring.macs(program),
            f"{measuring.size(program):,}",
            measuring.instructions(program) if arguments.emulator else "-",
        ]


def lowered(source: Exportable, target: str, passes: tuple[str, ...], folder: Path) -> measuring.Lowered:
    """Lower a program after some passes alone, and return what can be called."""
    folder.mkdir()
    captured = source.captured(TARGETS[target].external_weights, "captured", PassChoice(passes))
    model_file = TARGETS[target].lower(captured, "fp32", profiles.load("generic").options_for(target), folder)
    inputs = {spec.name: source.inputs[spec.name][:1] for spec in source.specs}
    return measuring.callable_program(target, model_file, inputs, captured.outputs)


if __name__ == "__main__":
    main()
