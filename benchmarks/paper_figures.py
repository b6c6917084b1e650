"""The two papers' figures as SVG in docs/, each from numbers that a run measured and that are kept beside as JSON.

    python benchmarks/paper_figures.py                                       draw all again, measure nothing
    python benchmarks/paper_figures.py --measure cocorrrec_4 cocorrrec_5     measure first (minutes)
    python benchmarks/paper_figures.py --measure cocorrrec_6 --checkpoints DIR...   scn of b = 1, 2, 5, 10, 20
    python benchmarks/paper_figures.py --measure ofa --checkpoints DIR...           ofa of several lambdas

The numbers of `NAME` are benchmarks/figures/NAME.json; pictures are docs/figure_NAME.svg. figures_cocorrrec.py and
figures_ofa.py say what is in them, docs/figures.md what they show.
"""

import argparse
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import figures_cocorrrec as cocorrrec
import figures_ofa as ofa
from figure_plot import Panel, drawn

NUMBERS = Path(__file__).with_name("figures")
PICTURES = Path(__file__).parents[1] / "docs"


@dataclass(frozen=True)
class Figure:
    """A picture: its title, the numbers that it shows, and its panels."""

    title: str
    numbers: str
    panels: Callable[[Mapping[str, Any]], Sequence[Panel]]


MEASURED: Mapping[str, Callable[[Sequence[Path]], dict[str, Any]]] = {
    "cocorrrec_4": lambda _folders: cocorrrec.measure_lengths(),
    "cocorrrec_5": lambda _folders: cocorrrec.measure_delay(),
    "cocorrrec_6": cocorrrec.measure_mini_batches,
    "ofa": ofa.measure,
}
FIGURES: Mapping[str, Figure] = {
    "cocorrrec_4": Figure("CoCorrRec, Figure 4: FLOPs and memory", "cocorrrec_4", cocorrrec.show_lengths),
    "cocorrrec_5": Figure("CoCorrRec, Figure 5: delay", "cocorrrec_5", cocorrrec.show_delay),
    "cocorrrec_6": Figure("CoCorrRec, Figure 6: mini-batch size", "cocorrrec_6", cocorrrec.show_mini_batches),
    "ofa_4": Figure("Forward-OFA, Figure 4: structures of the users", "ofa", ofa.show_structures),
    "ofa_5": Figure("Forward-OFA, Figure 5: lambda", "ofa", ofa.show_lambda),
    "ofa_7": Figure("Forward-OFA, Figure 7: network cost", "ofa", ofa.show_traffic),
}


def picture(name: str) -> str:
    """Return the SVG of a figure, of the numbers that are kept."""
    figure = FIGURES[name]
    numbers = json.loads((NUMBERS / f"{figure.numbers}.json").read_text())
    return drawn(name, figure.title, figure.panels(numbers))


def measure(name: str, folders: Sequence[Path]) -> None:
    """Measure numbers and keep them, with the machine that they are of."""
    machine = f"{platform.machine()} {platform.system()}, {os.cpu_count()} processors"
    numbers = {"machine": machine, **MEASURED[name](folders)}
    NUMBERS.mkdir(exist_ok=True)
    (NUMBERS / f"{name}.json").write_text(json.dumps(numbers, indent=1) + "\n")


def main() -> None:
    """Measure what is asked for, and draw all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", nargs="+", choices=sorted(MEASURED), default=[])
    parser.add_argument("--checkpoints", nargs="+", type=Path, default=[])
    arguments = parser.parse_args()
    for name in arguments.measure:
        measure(name, arguments.checkpoints)
        print(f"wrote {NUMBERS / name}.json", flush=True)
    for name in FIGURES:
        (PICTURES / f"figure_{name}.svg").write_text(picture(name))


if __name__ == "__main__":
    main()
