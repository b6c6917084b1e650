"""SASRec as the backbone of Forward-OFA: causal self-attention blocks whose weights may be generated per user.

Code name -> paper symbol: query, key, value Q, K, V; inner and outer the two layers of the feed-forward network.
One block on X is, with one attention head and without an output projection,
    X' = X + softmax(Q K^T / sqrt(D) + causal mask) V,  with Q, K, V of LN_1(X)
    X'' = X' + W_2 relu(W_1 LN_2(X') + b_1) + b_2
"""

# mypy: allow-subclassing-any

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.forward_ofa.backbones.backbone import Backbone, Block, Shapes, affine, gated
from models.layers import HIDDEN, LayerNorm, cut

LAYERS = ("query", "key", "value", "inner", "outer")


def shapes(dimension: int) -> Shapes:
    """Return the shapes of the tensors that one block takes from outside."""
    each = {"weight": (dimension, dimension), "bias": (dimension,)}
    return {f"{layer}_{part}": shape for layer in LAYERS for part, shape in each.items()}


class SASRecBlock(Block):
    """Causal attention and a feed-forward network D -> D -> D, each with a layer norm before and a residual around."""

    def __init__(self, dimension: int, length: int) -> None:
        super().__init__()
        self.dimension = self.units = dimension
        self.shapes = shapes(dimension)
        self.attention_norm = LayerNorm(dimension)
        self.feed_forward_norm = LayerNorm(dimension)
        future = torch.ones(length, length).triu(1) * HIDDEN
        self.register_buffer("future", future, persistent=False)

    def forward(self, x: Tensor, weights: Mapping[str, Tensor], gates: Tensor | None = None) -> Tensor:
        """Map [B, N, D] to [B, N, D]; padding on the right is never seen by what stands left of it."""

        def layer(name: str, x: Tensor) -> Tensor:
            return affine(x, weights[f"{name}_weight"], weights[f"{name}_bias"])

        normal = self.attention_norm(x)
        query, key, value = (layer(name, normal) for name in ("query", "key", "value"))
        future = cut(cut(self.future, 0, 0, x.shape[1]), 1, 0, x.shape[1])
        attention = torch.softmax(torch.bmm(query, key.transpose(1, 2)) * self.dimension**-0.5 + future, -1)
        x = x + torch.bmm(attention, value)
        hidden = torch.relu(layer("inner", self.feed_forward_norm(x)))
        return x + layer("outer", gated(hidden, gates))

    def macs(self, length: int) -> int:
        """Return multiply-accumulates for N tokens, those of Q K^T and of attention times V among them."""
        linear = len(LAYERS) * self.dimension**2
        return length * (linear + 2 * length * self.dimension + 2 * 4 * self.dimension)

    def open_macs(self, length: int, gates: Tensor) -> Tensor:
        """Return the multiply-accumulates [B] for N tokens where a closed hidden unit takes none, 2 D less a token."""
        return self.macs(length) - 2 * length * self.dimension * (1 - gates).sum(-1)


class Positions(nn.Module):
    """Add a learned embedding [N, D] of the position, counted from the oldest click."""

    def __init__(self, length: int, dimension: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(length, dimension))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, N, D] to [B, N, D]."""
        return x + cut(self.weight, 0, 0, x.shape[1])


def build(dimension: int, blocks: int, length: int) -> Backbone:
    """Return a backbone of L blocks for histories of up to `length` clicks."""
    stack = [SASRecBlock(dimension, length) for _ in range(blocks)]
    return Backbone("sasrec", Positions(length, dimension), stack, LayerNorm(dimension))
