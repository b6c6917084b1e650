"""Products with constant matrices, and what moves into those: factors and shifts along the last axis."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.graph.editing import Editor
from exporter.graph.formulas import name, sides
from exporter.graph.rowwise import RESHAPES

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import Node

_PRODUCTS = frozenset({"aten.linear.default", "aten.mm.default", "aten.matmul.default", "aten.bmm.default"})
MOVED = RESHAPES | {"aten.transpose.int", "aten.permute.default"}
"""Operations that give the same numbers in another shape or order."""
MIXES = frozenset({"aten.bmm.default", "aten.mm.default"})
"""Products of two values of one rank."""
COPIED = 1 << 16
"""Bytes of a matrix of which a changed copy may be in the file beside it."""


@dataclass(frozen=True)
class Map:
    """x @ matrix + bias: a node, what it reads, and constants [in, out] or [heads, in, out], and [out] or None."""

    node: "Node"
    x: "Node"
    matrix: "Tensor"
    bias: "Tensor | None"

    def with_constants(self, editor: Editor, x: "Node", matrix: "Tensor", bias: "Tensor | None") -> "Node":
        """Add the same product of another value with other constants, at the place of insertion."""
        import torch

        aten = torch.ops.aten
        if bias is None and str(self.node.target) != "aten.linear.default":
            return editor.call(self.node.target, x, editor.constant(matrix))
        weights = [matrix.transpose(0, 1)] if bias is None else [matrix.transpose(0, 1), bias]
        return editor.call(aten.linear.default, x, *map(editor.constant, weights))

    def of_affine(self, gain: "Tensor | None", shift: "Tensor | None") -> "tuple[Tensor, Tensor | None]":
        """Return matrix and bias of the product of x gain + shift, as those of a product of x."""
        size, matrix, bias = self.matrix.shape[-2], self.matrix, self.bias
        if gain is not None:
            matrix = gain.expand(size)[:, None] * matrix
        if shift is not None:
            through = shift.expand(size) @ self.matrix
            bias = through if bias is None else bias + through
        return matrix, bias

    def made_affine(self, gain: "Tensor | None", shift: "Tensor | None") -> "tuple[Tensor, Tensor | None]":
        """Return matrix and bias of this product times gain plus shift."""
        matrix, bias = self.matrix, self.bias
        if gain is not None:
            matrix, bias = matrix * gain, None if bias is None else bias * gain
        if shift is not None:
            wide = shift.expand(matrix.shape[-1])
            bias = wide if bias is None else bias + wide
        return matrix, bias


def map_of(editor: Editor, node: "Node") -> Map | None:
    """Return a product with constants that others can take the place of: small, or read by nothing else; else None."""
    if str(node.target) not in _PRODUCTS:
        return None
    x, *constants = node.args
    constants = [constant for constant in constants if constant is not None]
    if not all(map(editor.is_constant, constants)) or x in constants:
        return None
    large = editor.value(constants[0]).nbytes > COPIED
    if large and not editor.readers(constants[0]) <= {node}:  # two such matrices would be in the file
        return None
    matrix, *bias = map(editor.value, constants)
    if str(node.target) == "aten.linear.default":
        return Map(node, x, matrix.transpose(0, 1), bias[0] if bias else None)
    ranks = len(editor.shape(x)), matrix.dim()
    known = ranks in ((2, 2), (3, 3)) if str(node.target) != "aten.matmul.default" else ranks[1] == 2 <= ranks[0]
    return Map(node, x, matrix, None) if known else None


@dataclass(frozen=True)
class Affine:
    """value * gain + shift, of which one is there: a constant [D] along the last axis, or of one element."""

    value: "Node"
    gain: "Tensor | None" = None
    shift: "Tensor | None" = None


def affine(editor: Editor, node: "Node") -> Affine | None:
    """Return a sum, difference, product or quotient with a constant that keeps the shape of the value; else None."""
    import torch

    for value, other in sides(node):
        if not hasattr(value, "meta") or editor.shape(value) != editor.shape(node):
            continue
        constant = along_last(editor, value, other)
        if constant is None:
            continue
        match name(node):
            case "mul.Tensor":
                return Affine(value, gain=constant)
            case "div.Tensor":
                return Affine(value, gain=torch.reciprocal(constant))
            case "add.Tensor":
                return Affine(value, shift=constant)
            case _:
                return Affine(value, shift=-constant)
    return None


def along_last(editor: Editor, value: "Node", other: object) -> "Tensor | None":
    """Return a constant, [D] or of one element, that is the same for all rows of a value [..., D]; None for others."""
    import torch

    dtype = editor.dtype(value)
    if not dtype.is_floating_point:
        return None
    if isinstance(other, int | float) and not isinstance(other, bool):
        return torch.tensor([float(other)], dtype=dtype)
    if not editor.is_constant(other):
        return None
    constant = editor.value(other)
    shape = editor.shape(value)
    fits = constant.numel() in (1, shape[-1]) and constant.dim() <= len(shape) and constant.dtype == dtype
    return constant.reshape(-1) if fits and (constant.numel() == 1 or constant.shape[-1] > 1) else None
