"""BERT4Rec as CoCorrRec compares with it: pre-norm transformer blocks over the clicks, whose last one is the user."""

# mypy: allow-subclassing-any

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from models.inputs import RERANK
from models.layers import EPS, ItemEmbedding, attend, cut, initialise, inner_product, last_position, redraw, states_at
from models.spec import ModelSpec
from models.topk import by_table, topk_program

DROPOUT = 0.1
INITIAL_STD = 0.02


class StdNorm(nn.Module):
    """BERT4Rec's own layer norm of [..., D]: divides by std + 1e-6 with the unbiased standard deviation."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dimension))
        self.bias = nn.Parameter(torch.zeros(dimension))

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        centred = x - x.mean(-1, keepdim=True)
        variance = (centred * centred).sum(-1, keepdim=True) / (x.shape[-1] - 1)
        # A row without variance keeps a finite gradient: the tiny term stands under the root, where 0 has none.
        return centred / (torch.sqrt(variance + 1e-24) + EPS) * self.weight + self.bias


class Block(nn.Module):
    """Attention and a feed-forward network D -> 4D -> D with GELU, each with a norm before and a residual around."""

    def __init__(self, dimension: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = StdNorm(dimension)
        self.query = nn.Linear(dimension, dimension)
        self.key = nn.Linear(dimension, dimension)
        self.value = nn.Linear(dimension, dimension)
        self.output = nn.Linear(dimension, dimension)
        self.feed_forward_norm = StdNorm(dimension)
        self.inner = nn.Linear(dimension, 4 * dimension)
        self.outer = nn.Linear(4 * dimension, dimension)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, clicked: Tensor, asked: Tensor | None = None) -> Tensor:
        """Map [B, N, D] to [B, N, D], or to [B, 1, D] at the positions that `asked` [B, N] marks.

        Where `clicked` [B, N] is false there is padding, which nothing attends to.
        """
        normal = self.attention_norm(x)
        tokens, own = (x, normal) if asked is None else (states_at(part, asked)[:, None] for part in (x, normal))
        mixed = attend(self.query(own), self.key(normal), self.value(normal), self.heads, clicked)
        tokens = tokens + self.dropout(self.output(mixed))
        inner = _gelu(self.inner(self.feed_forward_norm(tokens)))
        return tokens + self.dropout(self.outer(self.dropout(inner)))


def _gelu(x: Tensor) -> Tensor:
    """Return GELU in its tanh form; written out, because XNNPACK computes the other form for torch's own operation."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))))


class BERT4Rec(nn.Module):
    """E + P -> blocks -> last valid position; a candidate's score is the product with its embedding."""

    def __init__(self, vocabulary: int, dimension: int, heads: int, blocks: int, history_length: int) -> None:
        super().__init__()
        if dimension % heads:
            raise ValueError(f"dimension {dimension} must be a multiple of heads = {heads}")
        self.items = ItemEmbedding(vocabulary, dimension)
        self.positions = nn.Parameter(torch.empty(history_length, dimension))
        self.blocks = nn.ModuleList([Block(dimension, heads) for _ in range(blocks)])
        self.dropout = nn.Dropout(DROPOUT)
        draw = partial(nn.init.normal_, std=INITIAL_STD)
        draw(self.positions)
        initialise(self, draw)

    def reset(self, std: float) -> None:
        """Draw all matrices from N(0, std); biases start at zero."""
        redraw(self, std)
        nn.init.normal_(self.positions, std=std)

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return the scores [B, C] of candidate ids [B, C] after histories [B, N]."""
        return inner_product(self.user(item_ids), self.items(candidate_ids))

    def user(self, item_ids: Tensor) -> Tensor:
        """Return the user's vector [B, D] after histories [B, N]."""
        x, clicked = self.embed(item_ids), item_ids != 0
        last = last_position(item_ids, x.dtype)
        for block in self.blocks[:-1]:
            x = block(x, clicked)
        if self.training:  # a loss reads no other token's state: without those, a step takes half the time
            user: Tensor = self.blocks[-1](x, clicked, last).squeeze(1)
            return user
        return states_at(self.blocks[-1](x, clicked), last)

    def embed(self, item_ids: Tensor) -> Tensor:
        """Return what the first block takes in, [B, N, D], of histories [B, N]."""
        return self.dropout(self.items(item_ids) + cut(self.positions, 0, 0, item_ids.shape[1]))

    def encode(self, item_ids: Tensor) -> Tensor:
        """Return the last block's output [B, N, D] at every position of histories [B, N], as published."""
        x = self.embed(item_ids)
        for block in self.blocks:
            x = block(x, item_ids != 0)
        return x


def build(architecture: Mapping[str, int]) -> BERT4Rec:
    """Return an untrained BERT4Rec; raises TypeError or ValueError for an architecture that is none."""
    return BERT4Rec(**architecture)


SPEC = ModelSpec(
    name="bert4rec",
    description="BERT4Rec: transformer blocks over the clicks, in both directions",
    build=build,
    architecture={"dimension": 64, "heads": 4, "blocks": 2, "history_length": 10},
    programs={"rerank": RERANK, "topk": topk_program(by_table)},
    default_program="rerank",
    encode=lambda model, item_ids: model.encode(item_ids),
)
