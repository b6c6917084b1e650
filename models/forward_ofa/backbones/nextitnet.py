"""NextItNet as the backbone of Forward-OFA: dilated causal convolutions whose weights may be generated per user.

One block on X is, with dilation d of 1 and 4 in turn,
    X' = X + relu(LN_2(conv_2d(relu(LN_1(conv_d(X))))))
A convolution's weight is [D, 3 D]: three taps of D inputs side by side, the oldest first, so that it is one product.
"""

# mypy: allow-subclassing-any

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.forward_ofa.backbones.backbone import Backbone, Block, Shapes, affine, gated
from models.layers import LayerNorm

DILATIONS = (1, 4)
WIDTH = 3


def shapes(dimension: int) -> Shapes:
    """Return the shapes of the tensors that one block takes from outside."""
    each = {"weight": (dimension, WIDTH * dimension), "bias": (dimension,)}
    return {f"{layer}_{part}": shape for layer in ("first", "second") for part, shape in each.items()}


class NextItNetBlock(Block):
    """Two causal convolutions of width 3, dilated d and 2 d, each followed by layer norm and ReLU; residual."""

    def __init__(self, dimension: int, dilation: int) -> None:
        super().__init__()
        self.dimension, self.dilation = dimension, dilation
        self.units = 2 * dimension  # the filters of both convolutions
        self.shapes = shapes(dimension)
        self.first_norm = LayerNorm(dimension)
        self.second_norm = LayerNorm(dimension)

    def forward(self, x: Tensor, weights: Mapping[str, Tensor], gates: Tensor | None = None) -> Tensor:
        """Map [B, N, D] to [B, N, D]; before the oldest click there are zeros."""
        first, second = (None, None) if gates is None else gates.split(self.dimension, -1)
        y = affine(taps(x, self.dilation), weights["first_weight"], weights["first_bias"])
        y = _normal(self.first_norm, y, first)
        y = affine(taps(y, 2 * self.dilation), weights["second_weight"], weights["second_bias"])
        return x + _normal(self.second_norm, y, second)

    def macs(self, length: int) -> int:
        """Return multiply-accumulates for N tokens, those with the zeros before the oldest click counted as well."""
        return length * 2 * (WIDTH * self.dimension**2 + 4 * self.dimension)

    def open_macs(self, length: int, gates: Tensor) -> Tensor:
        """Return the multiply-accumulates [B] for N tokens of open filters, on what open filters give the second."""
        first, second = (part.sum(-1) for part in gates.split(self.dimension, -1))
        return length * (WIDTH * first * (self.dimension + second) + 2 * 4 * self.dimension)


def _normal(norm: nn.Module, y: Tensor, gates: Tensor | None) -> Tensor:
    """Return relu(LN(y)) [B, N, D], zero for the filters that gates [B, D] close, of which the norm sees zeros too."""
    # Before the norm as well: its mean would otherwise want what a closed filter would have computed.
    return gated(torch.relu(norm(gated(y, gates))), gates)


def taps(x: Tensor, dilation: int) -> Tensor:
    """Return [B, N, 3 D]: what each position of [B, N, D] sees at 2 d and d steps back and at itself."""
    # A product of these with the weight is the convolution; runtimes that take constant kernels only take this too.
    return torch.cat([_delay(x, 2 * dilation), _delay(x, dilation), x], -1)


def _delay(x: Tensor, steps: int) -> Tensor:
    """Return [B, N, D] moved `steps` to the right, with zeros from the left."""
    length = x.shape[1]
    if steps >= length:
        return torch.zeros_like(x)
    zeros = torch.zeros_like(x.narrow(1, 0, steps))
    return torch.cat([zeros, x.narrow(1, 0, length - steps)], 1)


def build(dimension: int, blocks: int, _length: int) -> Backbone:
    """Return a backbone of L blocks; it has no weight that depends on the length of the histories."""
    stack = [NextItNetBlock(dimension, DILATIONS[index % len(DILATIONS)]) for index in range(blocks)]
    return Backbone("nextitnet", nn.Identity(), stack, nn.Identity())
