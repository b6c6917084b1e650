"""A torch module to an artifact with the Python API.

python examples/torch_module.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import cocorr


class TwoTowers(nn.Module):
    """A user is an MLP of the clicks' mean, an item its embedding; the score is their product."""

    def __init__(self, items: int, dimension: int) -> None:
        super().__init__()
        self.items = nn.Embedding(items, dimension, padding_idx=0)
        self.user = nn.Sequential(nn.Linear(dimension, 64), nn.ReLU(), nn.Linear(64, dimension))

    def forward(self, clicks: Tensor, candidates: Tensor) -> dict[str, Tensor]:
        """Map clicks [N] and candidates [C] to scores [C] and the user [D]."""
        user = self.user(self.items(clicks).mean(0))
        return {"scores": self.items(candidates) @ user, "user": user}


def main(folder: Path, target: str = "onnx") -> cocorr.Artifact:
    """Export the module and show what the artifact says."""
    torch.manual_seed(0)
    numbers = np.random.default_rng(0)
    # An item that is a candidate twice has equal scores, whose order a rounding would decide.
    candidates = numbers.permuted(np.tile(np.arange(1, 300), (50, 1)), axis=1)[:, :30]
    inputs = {"clicks": numbers.integers(1, 300, (50, 8)), "candidates": candidates}
    artifact = cocorr.export(TwoTowers(300, 16), inputs, target, name="two-towers", ranking="scores", output=folder)
    print(artifact.folder, artifact.manifest.parity.verdict, artifact.manifest.parity.reason)
    scores = artifact.run({name: array[:3] for name, array in inputs.items()})["scores"]
    print("best candidates of three users:", scores.argmax(-1))
    return artifact


if __name__ == "__main__":
    main(Path(sys.argv[1]))
