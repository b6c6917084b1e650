"""DIN, the deep interest network, as CoCorrRec compares with it: each candidate pools the history for itself.

Code name -> symbol: target e_t = tanh(Linear(E[c])), clicks e_j = tanh(Linear(E[i])); query, key, value q, k, v.
"""

# mypy: allow-subclassing-any

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.inputs import RERANK
from models.layers import ItemEmbedding, attend, initialise, redraw
from models.spec import ModelSpec


class DIN(nn.Module):
    """Attention from candidate to clicks, then an MLP on the candidate and what it pooled: 2D -> 2D -> D -> 1."""

    def __init__(self, vocabulary: int, dimension: int) -> None:
        super().__init__()
        self.items = ItemEmbedding(vocabulary, dimension)
        self.target = nn.Linear(dimension, dimension)
        self.click = nn.Linear(dimension, dimension)
        self.query = nn.Linear(dimension, dimension, bias=False)
        self.key = nn.Linear(dimension, dimension, bias=False)
        self.value = nn.Linear(dimension, dimension, bias=False)
        self.first = nn.Linear(2 * dimension, 2 * dimension)
        self.second = nn.Linear(2 * dimension, dimension)
        self.logit = nn.Linear(dimension, 1)
        initialise(self, nn.init.xavier_uniform_)

    def reset(self, std: float) -> None:
        """Draw all matrices from N(0, std); biases start at zero."""
        redraw(self, std)

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return the scores [B, C] of candidate ids [B, C] after histories [B, N]; padding is never attended to."""
        target = torch.tanh(self.target(self.items(candidate_ids)))  # [B, C, D]
        pooled = attend(self.query(target), *self.encode(item_ids), heads=1, clicked=item_ids != 0)  # [B, C, D]
        hidden = torch.tanh(self.first(torch.cat([target, pooled], -1)))
        return self.logit(torch.tanh(self.second(hidden))).squeeze(-1)

    def encode(self, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values [B, N, D] of the clicks of histories [B, N]."""
        clicks = torch.tanh(self.click(self.items(item_ids)))
        return self.key(clicks), self.value(clicks)


def build(architecture: Mapping[str, int]) -> DIN:
    """Return an untrained DIN; raises TypeError for an architecture that is none."""
    return DIN(**architecture)


SPEC = ModelSpec(
    name="din",
    description="DIN: each candidate attends to the clicks for itself",
    build=build,
    architecture={"dimension": 64},
    programs={"rerank": RERANK},
    default_program="rerank",
    encode=lambda model, item_ids: model.encode(item_ids),
)
