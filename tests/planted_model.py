"""A small model for tests of `explain`, and the same with values in its middle that leave 16 bits.

A user is the mean of the clicks' embeddings through a tower of two layers; a score is the product with an item's row.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from cocorr import RERANK, ItemEmbedding, ModelSpec


class Loud(nn.Module):
    """The size of each number, by way of the square of `gain` times it, which beyond 255 leaves 16 bits."""

    def __init__(self, dimension: int, gain: int) -> None:
        super().__init__()
        self.gain = gain
        self.louder = nn.Linear(dimension, dimension, bias=False)
        self.louder.weight = nn.Parameter(torch.eye(dimension) * float(gain))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sqrt(torch.square(self.louder(x)) + 1.0) / self.gain


class Tower(nn.Module):
    """Two layers with a bend between them and behind."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.first = nn.Linear(dimension, 2 * dimension)
        self.second = nn.Linear(2 * dimension, dimension)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.second(torch.tanh(self.first(x))))


class Planted(nn.Module):
    """u = loud(tower(mean(E[clicks]))), score u . E[c]; a gain of 0 leaves `loud` out."""

    def __init__(self, vocabulary: int, dimension: int, gain: int) -> None:
        super().__init__()
        self.items = ItemEmbedding(vocabulary, dimension)
        self.tower = Tower(dimension)
        self.loud = Loud(dimension, gain) if gain else nn.Identity()

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Map histories [B, N] and candidates [B, C] to scores [B, C]."""
        user = self.loud(self.tower(10 * self.items(item_ids).mean(1)))
        return torch.bmm(self.items(candidate_ids), user[:, :, None]).squeeze(-1)


SPEC = ModelSpec(
    name="planted",
    description="A tower over the mean of the clicks",
    build=lambda architecture: Planted(**architecture),
    architecture={"dimension": 16, "gain": 0},
    programs={"rerank": RERANK},
    default_program="rerank",
)
LOUD = replace(SPEC, name="loud", architecture={"dimension": 16, "gain": 2_000})
TOO_LOUD = replace(SPEC, name="tooloud", architecture={"dimension": 16, "gain": 100_000})
