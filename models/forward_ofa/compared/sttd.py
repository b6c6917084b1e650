"""STTD: each weight matrix of the blocks is a left semi-tensor product of two small ones, for which far fewer are kept.

Code name -> equation: left A, right B, step t and rank p of W = A (B (x) I_t), with W [O, K], A [O, p t], B [p, K / t].
Number by number that is W[o, j t + s] = sum_i A[o, i t + s] B[i, j], p multiply-accumulates for each; A is kept as
[t, O, p]. Biases are kept as they are. Trained end to end, without the distillation of the paper.
"""

# mypy: allow-subclassing-any

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from models.forward_ofa.assembler import Assembled
from models.forward_ofa.backbones.backbone import Backbone, Shapes
from models.layers import ItemEmbedding, cut, inner_product, last_position

STEP = 2
RANKS: Mapping[str, int] = {"sasrec": 24, "nextitnet": 9}
"""p of each backbone: those with which the published multiply-accumulates come out."""


def factor_shapes(shapes: Shapes, rank: int) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of all that is kept of one block's tensors, such as query_weight_left [t, O, p]."""
    kept: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        if len(shape) == 1:
            kept[name] = shape
            continue
        rows, columns = shape
        kept[f"{name}_left"], kept[f"{name}_right"] = (STEP, rows, rank), (rank, columns // STEP)
    return kept


def rebuild_macs(shapes: Shapes, rank: int) -> int:
    """Return the multiply-accumulates that rebuild the matrices of one block: p for each of their numbers."""
    return sum(rank * math.prod(shape) for shape in shapes.values() if len(shape) == 2)


def rebuild(left: Tensor, right: Tensor) -> Tensor:
    """Return W [O, K] of A [t, O, p], its columns s, t + s, 2 t + s, ... at each s of t, and B [p, K / t]."""
    step, rows, rank = left.shape
    columns = torch.mm(left.reshape(step * rows, rank), right)  # [t O, K / t]
    return columns.reshape(step, rows, -1).permute(1, 2, 0).reshape(rows, -1)


class Factors(nn.Module):
    """The factors and biases of L blocks, each parameter [L, *shape] by the names of `factor_shapes`."""

    def __init__(self, shapes: Shapes, blocks: int, rank: int) -> None:
        super().__init__()
        self.shapes, self.blocks = shapes, blocks
        for name, shape in factor_shapes(shapes, rank).items():
            self.register_parameter(name, nn.Parameter(torch.empty(blocks, *shape)))
        for name, shape in shapes.items():
            self._draw(name, shape, rank)

    def _draw(self, name: str, shape: tuple[int, ...], rank: int) -> None:
        """Draw factors whose product varies as the matrix does that a backbone starts from; set biases to zero."""
        if len(shape) == 1:
            nn.init.zeros_(self.get_parameter(name))
            return
        deviation = (3 * shape[-1] * rank) ** -0.25  # p of its products sum up to a variance of 1 / (3 K)
        for factor in ("left", "right"):
            nn.init.normal_(self.get_parameter(f"{name}_{factor}"), std=deviation)

    def of_block(self, index: int) -> dict[str, Tensor]:
        """Return what is kept of one block, by the names of `factor_shapes`."""
        return {name: parameter[index] for name, parameter in self.named_parameters()}

    def forward(self) -> Tensor:
        """Return the packed weights [L, P] of all blocks, rebuilt."""
        rows = [rebuilt(self.of_block(index), self.shapes) for index in range(self.blocks)]
        return torch.stack([torch.cat([tensor.flatten() for tensor in row]) for row in rows])


def rebuilt(kept: Mapping[str, Tensor], shapes: Shapes) -> list[Tensor]:
    """Return one block's tensors, in the order of `shapes`, of what is kept of them."""
    return [
        kept[name] if len(shape) == 1 else rebuild(kept[f"{name}_left"], kept[f"{name}_right"])
        for name, shape in shapes.items()
    ]


class FactoredSubNetwork(Assembled):
    """The program `subnet_factored`: the file has the factors, and every call rebuilds the chosen blocks' weights."""

    def __init__(self, items: ItemEmbedding, backbone: Backbone, structure: Sequence[int], factors: Factors) -> None:
        super().__init__(backbone, structure, None)
        self.items, self.shapes = items, backbone.shapes
        for index in self.chosen:
            for name, tensor in factors.of_block(index).items():
                self.register_parameter(f"block{index}_{name}", nn.Parameter(tensor.detach().clone()))
        self.kept = tuple(factor_shapes(backbone.shapes, 1))

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return the scores [B, C] of candidate ids [B, C] after histories [B, N]."""
        x = self.items(item_ids)
        last = last_position(item_ids, x.dtype)
        # Converters and runtimes compute what depends on constants alone once, and keep the whole matrices: so one
        # factor is multiplied by the number of last positions of a history, which is 1, and none of them can know.
        one = cut(last, 0, 0, 1).sum(-1, keepdim=True)
        weights = [tensor for index in self.chosen for tensor in rebuilt(self._kept(index, one), self.shapes)]
        return inner_product(self.user_state(x, last, weights), self.items(candidate_ids))

    def _kept(self, index: int, one: Tensor) -> dict[str, Tensor]:
        """Return what is kept of a block, the right factors times `one` [1, 1]."""
        kept = {name: self.get_parameter(f"block{index}_{name}") for name in self.kept}
        return {name: tensor * one if name.endswith("_right") else tensor for name, tensor in kept.items()}
