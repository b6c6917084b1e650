"""The four targets' FLOPs of every program side by side, and what the difference is made of where it is over 2 %.

Each program is lowered for each target from an untrained model of the paper's sizes and counted in its own file. A
converter may fold a product of constants (a GRU's first state is zero), repeat a cheap one, or write a function in
other operations than the next converter; the kinds below a program are those whose FLOPs differ, target by target.

Run it as: python benchmarks/target_counts.py [MODEL ...]
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from exporter.core.errors import BadInputError
from exporter.measure.flops import FlopCount, count
from exporter.pipeline import ProgramChoice, lengths
from exporter.pipeline import source as sources
from exporter.profiles import load
from exporter.targets import TARGETS
from models.zoo import MODELS, load_spec

AGREE = 0.02


def counts(model: str, program: str) -> dict[str, FlopCount]:
    """Return the count of one program by target."""
    source = sources.load(ProgramChoice(model, program, untrained=True))
    found = {}
    for target in TARGETS:
        lowering = lengths.Lowering(target, "fp32", load("generic").options_for(target))
        with tempfile.TemporaryDirectory() as name:
            lowered = TARGETS[target].lower(lowering.captured(source), "fp32", lowering.options, Path(name))
            found[target] = count(TARGETS[target].read(lowered).operations)
    return found


def table(model: str, program: str, found: dict[str, FlopCount]) -> str:
    """Return the totals in one row, and rows for the kinds that differ where the totals do."""
    totals = [one.total for one in found.values()]
    spread = max(totals) / max(min(totals), 1) - 1
    shown = " | ".join(f"{one.total:,} ({one.macs:,})" for one in found.values())
    rows = [f"| {model} {program} | {shown} | {spread:.1%} |"]
    if spread > AGREE:
        for kind in sorted({kind for one in found.values() for kind in one.by_kind}):
            flops = [one.by_kind.get(kind, 0) for one in found.values()]
            if len(set(flops)) > 1:
                rows.append(f"| - {kind} | {' | '.join(f'{number:,}' for number in flops)} | |")
    return "\n".join(rows)


def main(models: Sequence[str]) -> None:
    """Print the table in Markdown: FLOPs, and MACs in brackets."""
    print(f"| program | {' | '.join(TARGETS)} | spread |")
    print("|---|" + "---:|" * (len(TARGETS) + 1))
    for model in models or MODELS:
        for program in load_spec(model).programs:
            try:
                print(table(model, program, counts(model, program)), flush=True)
            except BadInputError as error:  # a program of another method than that of the model's default
                print(f"| {model} {program} | {error} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
