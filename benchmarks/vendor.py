"""This tool's artifacts beside a plain module through each vendor's documented call: time, size, MACs, instructions.

    python benchmarks/vendor.py [--models scn,sasrec,gru4rec,din,mamba4rec,ofa] [--targets onnx,tflite,executorch]
                                [--calls 2000] [--emulator] [--checkpoints DIR]

The plain modules are those of plain/, lowered by documented.py. Beside each stand the artifact of the tool's own model,
as `cocorr-export MODEL` makes it, and that of the plain module itself, which a stranger saved as a .pt2, as
`cocorr-export program` makes it. All are called by the same code, two in turn in one process, in one thread: `faster`
is the median over the pairs of plain's time to theirs, with its 95 % interval. `times the floor` is their time to that
of the floor of limits.py, two look-ups and one product.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import documented
import limits
import measuring
import numpy as np
import torch
from plain import AGREE, WRITTEN, plain
from torch import nn

from exporter import pipeline
from exporter.artifact.results import Refusal
from exporter.core.errors import CocorrError
from exporter.core.extras import without_noise
from exporter.core.types import TensorSpec
from exporter.pipeline import source as sources
from exporter.pipeline.source import Source
from exporter.targets import TARGETS

OURS: Mapping[str, Mapping[str, Any]] = {
    "cocorr-export": {},
    "cocorr-export --fold double": {"fold": "double"},
    "cocorr-export --fold all": {"fold": "all"},
}
"""What an export is asked for beyond the defaults, fields of ExportRequest, by what its rows are called."""
COLUMNS = (
    *("program", "us", "faster", "95 %", "times the floor", "bytes", "to plain's", "MACs"),
    "ARM64 instructions",
)


def main() -> None:
    """Print the table in Markdown."""
    arguments = measuring.options(__doc__, ",".join(WRITTEN))
    measuring.print_table(COLUMNS, arguments, rows)


def rows(request: pipeline.ExportRequest, arguments: argparse.Namespace, folder: Path) -> Iterator[list[str]]:
    """Yield the cells of the plain module, and of what this tool makes of its own model and of the plain one."""
    source = sources.load(request.choice)
    module = plain(source)
    _, floor = limits.fastest(source, request.target, arguments.calls, folder)
    try:
        reference = documented.lower(request.target, module, limits.one_call(source), folder / "plain")
    except Exception as error:  # whatever a vendor raises
        yield refused("plain", error)
        return
    (scores,) = measuring.once(reference).outputs.values()
    error = float(np.abs(scores - source.outputs["scores"][:1]).max())
    assert error <= AGREE, f"the vendor's artifact is {error:.2g} from torch"
    yield cells("plain", reference, reference, floor, arguments)
    stranger = saved(module, source, folder)
    for name, asked in OURS.items():
        for choice, given in ((request.choice, ""), (stranger, " of plain's .pt2")):
            output = folder / f"{name}{given}".replace(" ", "_")
            try:
                program = exported(replace(request, choice=choice, output=output, **asked), source)
            except CocorrError as failure:
                yield refused(f"{name}{given}", failure)
            else:
                yield cells(f"{name}{given}", program, reference, floor, arguments)


def refused(name: str, error: Exception) -> list[str]:
    """Return the cells of a program that could not be made."""
    words = (str(error).splitlines() or [type(error).__name__])[0].replace("|", "/")
    return [name, f"refused: {words}", *["-"] * (len(COLUMNS) - 2)]


def cells(
    name: str,
    program: measuring.Lowered,
    reference: measuring.Lowered,
    floor: measuring.Lowered,
    arguments: argparse.Namespace,
) -> list[str]:
    """Return the cells of one program beside those of the plain one and the floor."""
    faster = measuring.compared(program, reference, arguments.calls)
    above = measuring.compared(floor, program, arguments.calls)
    size = measuring.size(program)
    return [
        name,
        f"{faster.p50_us[0]:.1f}",
        f"{faster.ratio:.2f}",
        measuring.interval(faster),
        f"{above.ratio:.2f}",
        f"{size:,}",
        f"{size / measuring.size(reference):.3f}",
        measuring.macs(program),
        measuring.instructions(program) if arguments.emulator else "-",
    ]


def saved(module: nn.Module, source: Source, folder: Path) -> pipeline.SavedProgram:
    """Write a plain module as torch.export.save does, with a model's golden inputs; return both."""
    example = tuple(torch.from_numpy(array[0].copy()) for array in source.inputs.values())
    program = pipeline.SavedProgram(folder / "plain.pt2", folder / "golden.npz", "scores", ("scores",))
    with without_noise(r"."):
        torch.export.save(torch.export.export(module, example), program.file)
    np.savez(program.inputs, **source.inputs)
    return program


def exported(request: pipeline.ExportRequest, source: Source) -> measuring.Lowered:
    """Export an artifact of fp32; raises CocorrError where that is refused or does not pass its parity."""
    (result,) = pipeline.export(request, lambda _: None)
    if isinstance(result, Refusal):
        raise CocorrError(result.error)
    if result.manifest.parity.verdict != "pass":
        raise CocorrError(f"{result.place}: {result.manifest.parity.verdict}: {result.manifest.parity.reason}")
    outputs = tuple(TensorSpec(name, array.shape[1:], array.dtype.name) for name, array in source.outputs.items())
    model_file = Path(result.place) / TARGETS[request.target].model_file
    return measuring.callable_program(request.target, model_file, limits.one_call(source), outputs)


if __name__ == "__main__":
    main()
