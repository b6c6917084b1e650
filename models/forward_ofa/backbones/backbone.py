"""What the sequence backbones of Forward-OFA share: blocks whose weights come from outside.

The weights of a block are a model's own parameters, or a mapper's output for each user, or what a device was sent; the
layer norms belong to the backbone and are the same for every user.
Sizes: batch B, history N, dimension D, blocks L, generated numbers per block P.
"""

# mypy: allow-subclassing-any

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Shapes = Mapping[str, tuple[int, ...]]


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x W^T + b [B, N, O] for x [B, N, K], with W [O, K] for all samples or [B, O, K] with one for each."""
    if weight.dim() == 3:
        # As (W x^T)^T: the gradient of W then comes out as W lies in memory, and is not copied once more.
        return torch.baddbmm(bias[:, :, None], weight, x.transpose(1, 2)).transpose(1, 2)
    return functional.linear(x, weight, bias)


def gated(x: Tensor, gates: Tensor | None) -> Tensor:
    """Return x [B, N, units] times gates [B, units], or x itself where there are none."""
    return x if gates is None else x * gates[:, None]


def count(shapes: Shapes) -> int:
    """Return how many numbers tensors of these shapes hold."""
    return sum(math.prod(shape) for shape in shapes.values())


class Block(nn.Module, ABC):
    """One residual block: it holds its layer norms, and takes the tensors of `shapes` with every call.

    `units` is how many of its hidden units or filters a user may have closed.
    """

    shapes: Shapes
    units: int

    @abstractmethod
    def forward(self, x: Tensor, weights: Mapping[str, Tensor], gates: Tensor | None = None) -> Tensor:
        """Map [B, N, D] to [B, N, D]; each weight is of its shape, or of [B, *shape] with one for each sample.

        `gates` [B, units] multiply what the units compute: 0 is a closed one, and none are closed without them.
        """

    @abstractmethod
    def macs(self, length: int) -> int:
        """Return multiply-accumulates for N tokens: products without biases, and 4 D per token for a layer norm."""

    @abstractmethod
    def open_macs(self, length: int, gates: Tensor) -> Tensor:
        """Return what `macs` counts without the products that go into or come out of units that gates [B, units] close.

        One number for each user, [B].
        """


class Backbone(nn.Module):
    """Blocks of equal shapes, of which any may be skipped, between an entry and an exit that keep the shape as well."""

    def __init__(self, name: str, entry: nn.Module, blocks: Sequence[Block], exit: nn.Module) -> None:
        super().__init__()
        self.name, self.entry, self.blocks, self.exit = name, entry, nn.ModuleList(blocks), exit

    @property
    def shapes(self) -> Shapes:
        """Return the shapes of one block's weights, in the order in which a mapper packs them."""
        shapes: Shapes = self.blocks[0].shapes
        return shapes

    def split(self, packed: Tensor) -> list[dict[str, Tensor]]:
        """Cut [..., L * P] into the weights of the L blocks, each [..., *shape]."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        parts = iter(packed.split(sizes * len(self.blocks), -1))
        return [
            {name: next(parts).reshape(*packed.shape[:-1], *shape) for name, shape in self.shapes.items()}
            for _ in self.blocks
        ]

    def macs(self, length: int, structure: Sequence[int]) -> int:
        """Return the multiply-accumulates of the blocks that `structure` runs on N tokens, as `Block.macs` counts."""
        return sum(block.macs(length) for block, runs in zip(self.blocks, structure, strict=True) if runs)


def initial_weights(shapes: Shapes) -> Tensor:
    """Draw one block's packed weights [P] as torch.nn.Linear draws its own, uniform within 1 / sqrt(inputs)."""
    bound = 1.0
    drawn = []
    for shape in shapes.values():  # a bias follows its weight, and has as many inputs
        bound = shape[-1] ** -0.5 if len(shape) == 2 else bound
        drawn.append(torch.empty(shape).uniform_(-bound, bound).flatten())
    return torch.cat(drawn)
