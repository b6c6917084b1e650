"""SASRec as CoCorrRec compares with it: one post-norm transformer layer over the clicks, without a causal mask.

Forward-OFA's SASRec, a stack of causal blocks, is models/forward_ofa/backbones/sasrec.py. As published, padding takes
part in the attention: the scores of a history depend on the length that it is padded to.
"""

# mypy: allow-subclassing-any

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.inputs import RERANK
from models.layers import (
    ItemEmbedding,
    LayerNorm,
    attend,
    cut,
    initialise,
    inner_product,
    last_position,
    redraw,
    states_at,
    tower,
)
from models.spec import ModelSpec
from models.topk import by_tower, topk_program

NORM_EPS = 1e-5


class EncoderLayer(nn.Module):
    """A post-norm transformer encoder layer with ReLU; parameters are those of torch.nn.TransformerEncoderLayer."""

    def __init__(self, dimension: int, heads: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(dimension, heads)
        self.linear1 = nn.Linear(dimension, 4 * dimension)
        self.linear2 = nn.Linear(4 * dimension, dimension)
        self.norm1 = LayerNorm(dimension, NORM_EPS)
        self.norm2 = LayerNorm(dimension, NORM_EPS)

    def forward(self, x: Tensor, asked: Tensor | None = None) -> Tensor:
        """Map x [B, N, D] to [B, N, D], or those tokens of it [B, M, D] that are `asked` for to [B, M, D]."""
        tokens = x if asked is None else asked
        tokens = self.norm1(tokens + self.self_attn(tokens, x))
        return self.norm2(tokens + self.linear2(torch.relu(self.linear1(tokens))))


class SelfAttention(nn.Module):
    """Multi-head attention; parameters are named and laid out like those of torch.nn.MultiheadAttention."""

    def __init__(self, dimension: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dimension, dimension))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dimension))
        self.out_proj = nn.Linear(dimension, dimension)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, tokens: Tensor, x: Tensor) -> Tensor:
        """Return what tokens [B, M, D] see of x [B, N, D], as [B, M, D]."""
        query, key, value = (self._project(source, part) for part, source in enumerate((tokens, x, x)))
        # Functions and no modules, as torch's own attention: a counter with hooks on modules does not see them.
        mixed = attend(query, key, value, self.heads)
        return functional.linear(mixed, self.out_proj.weight, self.out_proj.bias)

    def _project(self, x: Tensor, part: int) -> Tensor:
        """Return the queries, keys or values [B, N, D], part 0, 1 or 2, of x [B, N, D]."""
        start, stop = part * x.shape[2], (part + 1) * x.shape[2]
        return functional.linear(x, self.in_proj_weight[start:stop], self.in_proj_bias[start:stop])


class SASRec(nn.Module):
    """E + P -> tanh(Linear) -> encoder layer -> last valid position -> Linear, tanh, Linear; candidates by T.

    As published, the table P of positions has V rows, of which a history of N clicks reads the first N.
    """

    def __init__(self, vocabulary: int, dimension: int, heads: int, history_length: int) -> None:
        super().__init__()
        if dimension % heads:
            raise ValueError(f"dimension {dimension} must be a multiple of heads = {heads}")
        if history_length > vocabulary:
            raise ValueError(
                f"history_length {history_length} is more than the {vocabulary} rows of the position table"
            )
        self.items = ItemEmbedding(vocabulary, dimension)
        self.positions = nn.Parameter(torch.empty(vocabulary, dimension))
        self.history_length = history_length
        self.input = nn.Linear(dimension, dimension)
        self.layer = EncoderLayer(dimension, heads)
        self.user_hidden = nn.Linear(dimension, dimension)
        self.user_output = nn.Linear(dimension, dimension)
        self.candidate_hidden = nn.Linear(dimension, dimension)
        self.candidate_output = nn.Linear(dimension, dimension)
        nn.init.normal_(self.positions, std=0.02)
        initialise(self, nn.init.xavier_uniform_)

    def reset(self, std: float) -> None:
        """Draw all matrices from N(0, std); biases start at zero."""
        redraw(self, std)
        for parameter in (self.positions, self.layer.self_attn.in_proj_weight):
            nn.init.normal_(parameter, std=std)

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return the scores [B, C] of candidate ids [B, C] after histories [B, N], N up to `history_length`."""
        candidates = tower(self.items(candidate_ids), self.candidate_hidden, self.candidate_output)
        return inner_product(self.user(item_ids), candidates)

    def user(self, item_ids: Tensor) -> Tensor:
        """Return the user's vector [B, D] after histories [B, N]."""
        x = self.embed(item_ids)
        last = last_position(item_ids, x.dtype)
        if self.training:  # a loss reads no other token's state: without those, a step takes half the time
            state = self.layer(x, states_at(x, last)[:, None]).squeeze(1)
        else:
            state = states_at(self.layer(x), last)  # [B, D]
        return tower(state, self.user_hidden, self.user_output)

    def embed(self, item_ids: Tensor) -> Tensor:
        """Return what the layer takes in, [B, N, D], of histories [B, N]."""
        return torch.tanh(self.input(self.items(item_ids) + cut(self.positions, 0, 0, item_ids.shape[1])))

    def encode(self, item_ids: Tensor) -> Tensor:
        """Return the layer's output [B, N, D] at every position of histories [B, N], as published."""
        encoded: Tensor = self.layer(self.embed(item_ids))
        return encoded

    def without_unread_positions(self) -> "SASRec":
        """Return the same model without the rows of the position table that no history reaches."""
        lean = copy.copy(self)
        lean._parameters = dict(self._parameters)  # its own, so that the copy alone loses rows
        lean.positions = nn.Parameter(self.positions[: self.history_length].detach().clone())
        return lean


def build(architecture: Mapping[str, int]) -> SASRec:
    """Return an untrained SASRec; raises TypeError or ValueError for an architecture that is none."""
    return SASRec(**architecture)


SPEC = ModelSpec(
    name="sasrec",
    description="SASRec as CoCorrRec has it: one transformer layer over the clicks",
    build=build,
    architecture={"dimension": 64, "heads": 4, "history_length": 10},
    programs={
        "rerank": replace(RERANK, build=lambda model, _selection=None: model.without_unread_positions()),
        "topk": topk_program(lambda model: by_tower(model.without_unread_positions())),
    },
    default_program="rerank",
    weights=lambda architecture: 2 * int(architecture["vocabulary"]) * int(architecture.get("dimension", 1)),
    encode=lambda model, item_ids: model.encode(item_ids),
)
