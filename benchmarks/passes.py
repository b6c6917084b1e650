"""What each pass over the graph is worth: every one alone, every one left out, and all, against none, on each target.

    python benchmarks/passes.py [--models scn,ofa] [--targets onnx,tflite,executorch] [--calls 2000] [--emulator]
                                [--checkpoints DIR]

Both artifacts of a row are called in turn in one process: the ratio is the median over the pairs, with its 95 %
interval. With --emulator the instructions of one call on ARM64 are counted as well (`cocorr-export emulator install`),
which no other work on the machine changes. A target's list of passes (`passes` in exporter/targets) is chosen by this.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from weights import request_for

from exporter import profiles
from exporter.connections import running
from exporter.connections.host import HostConnection
from exporter.core.types import Arrays, PassChoice
from exporter.graph import OPTIONAL
from exporter.measure import figures, flops
from exporter.pipeline import source as sources
from exporter.pipeline.exportable import Exportable
from exporter.pipeline.reach import reach
from exporter.targets import TARGETS, reading


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="scn,ofa")
    parser.add_argument("--targets", default="onnx,tflite,executorch")
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--emulator", action="store_true")
    parser.add_argument("--checkpoints", type=Path, default=Path())
    arguments = parser.parse_args()
    print("| model | target | passes | time to that without | 95 % | MACs | bytes | ARM64 instructions |")
    print("|---" * 8 + "|")
    for model in arguments.models.split(","):
        for target in arguments.targets.split(","):
            with tempfile.TemporaryDirectory() as folder:
                _, request = request_for(model, target, None, "fp32", arguments.checkpoints, Path(folder))
                for row in rows(sources.load(request.choice), target, arguments, Path(folder)):
                    print(f"| {model} | {target} | {' | '.join(row)} |", flush=True)


def variants() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield sets of passes by what they are called; the first is none."""
    yield "none", ()
    for name in OPTIONAL:
        yield f"{name} alone", (name,)
    for name in OPTIONAL:
        yield f"all but {name}", tuple(other for other in OPTIONAL if other != name)
    yield "all", OPTIONAL


def rows(source: Exportable, target: str, arguments: argparse.Namespace, folder: Path) -> Iterator[list[str]]:
    """Yield the cells of each set of passes."""
    plain = None
    for name, passes in variants():
        subject = lowered(source, target, passes, folder / name.replace(" ", "_"))
        inputs = {spec.name: source.inputs[spec.name][:1] for spec in source.specs}
        plain = plain or subject
        times = running.compare_times((plain, inputs), (subject, inputs), 50, arguments.calls)
        compared = figures.comparison("none", name, times)
        counted = flops.count(reading.read(subject.target, subject.model_file).operations)
        yield [
            name,
            f"{compared.ratio:.3f}",
            f"{compared.low:.3f} to {compared.high:.3f}",
            f"{counted.macs:,}",
            f"{subject.model_file.stat().st_size:,}",
            instructions(subject, inputs) if arguments.emulator else "-",
        ]


def lowered(source: Exportable, target: str, passes: tuple[str, ...], folder: Path) -> running.Subject:
    """Lower a program after some passes alone, and return what can be run."""
    folder.mkdir()
    options = profiles.load("generic").options_for(target)
    captured = source.captured(TARGETS[target].external_weights, "captured", PassChoice(passes))
    return running.Subject(
        target=TARGETS[target],
        model_file=TARGETS[target].lower(captured, "fp32", options, folder),
        options=options,
        outputs=captured.outputs,
        threads=1,
        connection=HostConnection(),
        data=None,
    )


def instructions(subject: running.Subject, inputs: Arrays) -> str:
    """Return the ARM64 instructions of one call, or why they were not counted."""
    ran = running.run(replace(subject, connection=reach("emulator")), inputs, 0, 0)
    if ran.result is None or ran.result.instructions is None:
        return ran.reason or "not counted"
    return f"{ran.result.instructions:,}"


if __name__ == "__main__":
    main()
