"""Write the program that adds one to one number for each target that the agent runs: what a call costs by itself.

    python benchmarks/trivial_programs.py [FOLDER]

The files lie in exporter/targets/TARGET/ and travel with the agent, which times a call of each runtime by them. The
targets' own converters made them; they are made anew only where a runtime does not load them any more.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from exporter.graph.capture import capture
from exporter.targets import TARGETS


class OneMore(nn.Module):
    """The smallest program that a converter does not take away."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x + 1."""
        return x + 1


def write(name: str, place: Path) -> None:
    """Write a target's program, for one int32: no delegate takes those, and none is started for it."""
    target = TARGETS[name]
    captured = capture("cocorr-export", "trivial", OneMore(), {"x": np.zeros(1, np.int32)}, ("y",))
    options = target.options_model()().model_dump()
    with tempfile.TemporaryDirectory() as folder:
        place.write_bytes(target.lower(captured, "fp32", options, Path(folder)).read_bytes())


def main() -> None:
    """Write all of them where the targets have them, or into a folder."""
    for name, target in TARGETS.items():
        if target.runtime.trivial is not None:
            own = target.runtime.trivial
            write(name, Path(sys.argv[1], own.name) if len(sys.argv) > 1 else own)


if __name__ == "__main__":
    main()
