"""Every program of every model on every target at full size: verdict, errors and times in one table.

    python benchmarks/all_programs.py [--models scn,gru4rec] [--targets onnx,tflite] [--precision fp32]
                                      [--checkpoints DIR]

A model's weights are those in DIR/<model>, written by cocorr-train, or the shipped ones; a model that has neither is
untrained, with drawn histories, and the table says so.
"""

import argparse
import tempfile
from pathlib import Path

from weights import request_for

from exporter import pipeline
from exporter.artifact.results import Refusal
from exporter.core.errors import BadInputError
from exporter.targets import TARGETS
from models.zoo import MODELS, load_spec


def main() -> None:
    """Print the table in Markdown and exit with 1 where anything but a pass is in it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--checkpoints", type=Path, default=Path())
    arguments = parser.parse_args()
    print("| model | program | weights | target | verdict | largest error | top-10 overlap | MACs | p50 |")
    print("|---" * 9 + "|")
    failed = False
    for model in arguments.models.split(","):
        for program in load_spec(model).programs:
            for target in arguments.targets.split(","):
                failed |= not measure(model, program, target, arguments)
    raise SystemExit(int(failed))


def measure(model: str, program: str, target: str, arguments: argparse.Namespace) -> bool:
    """Export one program, print its row and return whether it passes."""
    with tempfile.TemporaryDirectory() as temporary:
        chosen = model, target, program, arguments.precision
        weights, request = request_for(*chosen, arguments.checkpoints, Path(temporary))
        try:
            (result,) = pipeline.export(request, lambda _: None)
        except BadInputError as error:  # a program of another method than that of these weights, say
            print(f"| {model} | {program} | {weights} | {target} | none: {error} | | | | |", flush=True)
            return False
    if isinstance(result, Refusal):
        print(f"| {model} | {program} | {weights} | {target} | {result.error} | | | | |", flush=True)
        return False
    parity, flops, latency = result.manifest.parity, result.manifest.flops, result.manifest.latency
    error = "-"
    if parity.max_abs_error is not None:
        output = max(parity.output_errors, key=parity.output_errors.__getitem__)
        allowed = parity.tolerance.max_abs_error[output]
        error = f"{parity.max_abs_error:.2e} of {allowed:.1e} in {output}"
    overlap = "-" if parity.top10_overlap is None else f"{parity.top10_overlap:.4f}"
    time = "not measured" if latency.p50_us is None else f"{latency.p50_us:.0f} us"
    print(
        f"| {model} | {program} | {weights} | {target} | {parity.verdict} | {error} | {overlap}"
        f" | {flops.macs:,} | {time} |",
        flush=True,
    )
    return bool(parity.verdict == "pass")


if __name__ == "__main__":
    main()
