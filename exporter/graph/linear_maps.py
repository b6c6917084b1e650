"""Products with constant matrices, and what moves into those: factors and shifts along the last axis."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.graph.editing import Editor

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import Node

_PRODUCTS = frozenset({"aten.linear.default", "aten.mm.default", "aten.matmul.default", "aten.bmm.default"})
_COPIED = 1 << 16
"""Bytes of a matrix of which a changed copy may be in the file beside it."""
_FACTORS = frozenset({"aten.mul.Tensor", "aten.div.Tensor"})


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


def map_of(editor: Editor, node: "Node") -> Map | None:
    """Return a product with constants that others can take the place of: small, or read by nothing else; else None."""
    if str(node.target) not in _PRODUCTS:
        return None
    x, *constants = node.args
    constants = [constant for constant in constants if constant is not None]
    if any(constant.op != "get_attr" or editor.is_outside(constant) for constant in constants) or x in constants:
        return None
    large = editor.value(constants[0]).nbytes > _COPIED
    if large and not editor.is_read_by(constants[0], {node}):  # two such matrices would be in the file
        return None
    matrix, *bias = map(editor.value, constants)
    if str(node.target) == "aten.linear.default":
        return Map(node, x, matrix.transpose(0, 1), bias[0] if bias else None)
    ranks = len(editor.shape(x)), matrix.dim()
    known = ranks in ((2, 2), (3, 3)) if str(node.target) != "aten.matmul.default" else ranks[1] == 2 <= ranks[0]
    return Map(node, x, matrix, None) if known else None


def factor(editor: Editor, node: "Node") -> "tuple[Node, Tensor] | None":
    """Return what a node multiplies, or divides, by a constant along the last axis or a number, and that factor."""
    import torch

    if str(node.target) not in _FACTORS or node.kwargs:
        return None
    divides = str(node.target) == "aten.div.Tensor"
    for value, other in (node.args,) if divides else (node.args, tuple(reversed(node.args))):
        if not hasattr(value, "meta"):
            continue
        constant = along_last(editor, value, other)
        if constant is not None:
            return value, torch.reciprocal(constant) if divides else constant
    return None


def shift(editor: Editor, node: "Node") -> "tuple[Node, Tensor] | None":
    """Return what a node adds a constant along the last axis to, and that constant."""
    if str(node.target) not in ("aten.add.Tensor", "aten.sub.Tensor") or node.kwargs:
        return None
    subtracts = str(node.target) == "aten.sub.Tensor"
    for value, other in (node.args,) if subtracts else (node.args, tuple(reversed(node.args))):
        if hasattr(value, "meta") and (constant := along_last(editor, value, other)) is not None:
            return value, -constant if subtracts else constant
    return None


def along_last(editor: Editor, value: "Node", other: object) -> "Tensor | None":
    """Return a constant, [D] or of one element, that is the same for all rows of a value [..., D]; None for others."""
    import torch

    dtype = editor.dtype(value)
    if not dtype.is_floating_point:
        return None
    if isinstance(other, int | float) and not isinstance(other, bool):
        return torch.tensor([float(other)], dtype=dtype)
    if getattr(other, "op", "") != "get_attr" or editor.is_outside(other):
        return None
    constant = editor.value(other)
    shape = editor.shape(value)
    fits = constant.numel() in (1, shape[-1]) and constant.dim() <= len(shape) and constant.dtype == dtype
    return constant.reshape(-1) if fits and (constant.numel() == 1 or constant.shape[-1] > 1) else None
