"""SASRec as RecBole has it: causal post-norm transformer blocks over the clicks, whose last one is the user.

Code name -> RecBole's: input_norm LayerNorm, output multi_head_attention.dense, attention_norm its LayerNorm, inner and
outer feed_forward.dense_1 and dense_2, feed_forward_norm its LayerNorm. Activation and eps are RecBole's defaults.
"""

# mypy: allow-subclassing-any

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.inputs import RERANK
from models.layers import (
    HIDDEN,
    ItemEmbedding,
    SmallEpsNorm,
    attend,
    cut,
    inner_product,
    last_position,
    redraw,
    states_at,
)
from models.spec import ModelSpec
from models.topk import by_table, topk_program

NORM_EPS = 1e-12
DROPOUT = 0.5
INITIAL_STD = 0.02


class Block(nn.Module):
    """Attention and a feed-forward network D -> I -> D with GELU, each with a residual around and a norm behind."""

    def __init__(self, dimension: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dimension, dimension)
        self.key = nn.Linear(dimension, dimension)
        self.value = nn.Linear(dimension, dimension)
        self.output = nn.Linear(dimension, dimension)
        self.attention_norm = SmallEpsNorm(dimension, NORM_EPS)
        self.inner = nn.Linear(dimension, inner)
        self.outer = nn.Linear(inner, dimension)
        self.feed_forward_norm = SmallEpsNorm(dimension, NORM_EPS)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, future: Tensor) -> Tensor:
        """Map [B, N, D] to [B, N, D]; `future` [N, N] hides later clicks, and with them the padding."""
        mixed = attend(self.query(x), self.key(x), self.value(x), self.heads, future=future)
        x = self.attention_norm(self.dropout(self.output(mixed)) + x)
        return self.feed_forward_norm(self.dropout(self.outer(functional.gelu(self.inner(x)))) + x)


class SASRec(nn.Module):
    """LayerNorm(E + P) -> blocks -> last valid position; a candidate's score is the product with its embedding."""

    def __init__(
        self, vocabulary: int, dimension: int, heads: int, blocks: int, inner: int, history_length: int
    ) -> None:
        super().__init__()
        if dimension % heads:
            raise ValueError(f"dimension {dimension} must be a multiple of heads = {heads}")
        self.items = ItemEmbedding(vocabulary, dimension)
        self.positions = nn.Parameter(torch.empty(history_length, dimension))
        self.input_norm = SmallEpsNorm(dimension, NORM_EPS)
        self.dropout = nn.Dropout(DROPOUT)
        self.blocks = nn.ModuleList([Block(dimension, heads, inner) for _ in range(blocks)])
        future = torch.ones(history_length, history_length).triu(1) * HIDDEN
        self.register_buffer("future", future, persistent=False)
        self.reset(INITIAL_STD)

    def reset(self, std: float) -> None:
        """Draw all matrices from N(0, std); biases start at zero."""
        redraw(self, std)
        nn.init.normal_(self.positions, std=std)

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return the scores [B, C] of candidate ids [B, C] after histories [B, N]."""
        return inner_product(self.user(item_ids), self.items(candidate_ids))

    def user(self, item_ids: Tensor) -> Tensor:
        """Return the user's vector [B, D] after histories [B, N]."""
        states = self.encode(item_ids)
        return states_at(states, last_position(item_ids, states.dtype))

    def embed(self, item_ids: Tensor) -> Tensor:
        """Return what the first block takes in, [B, N, D], of histories [B, N]."""
        positions = cut(self.positions, 0, 0, item_ids.shape[1])
        return self.dropout(self.input_norm(self.items(item_ids) + positions))

    def encode(self, item_ids: Tensor) -> Tensor:
        """Return the last block's output [B, N, D] at every position of histories [B, N], as RecBole computes it."""
        x, length = self.embed(item_ids), item_ids.shape[1]
        future = cut(cut(self.future, 0, 0, length), 1, 0, length)
        for block in self.blocks:
            x = block(x, future)
        return x


def build(architecture: Mapping[str, int]) -> SASRec:
    """Return an untrained SASRec; raises TypeError or ValueError for an architecture that is none."""
    return SASRec(**architecture)


SPEC = ModelSpec(
    name="recbole-sasrec",
    description="SASRec as RecBole has it: causal transformer blocks over the clicks",
    build=build,
    architecture={"dimension": 64, "heads": 2, "blocks": 2, "inner": 256, "history_length": 50},
    programs={"rerank": RERANK, "topk": topk_program(by_table)},
    default_program="rerank",
    encode=lambda model, item_ids: model.encode(item_ids),
)
