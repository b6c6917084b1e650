"""Axes are moved late: after what is computed, where that is once in place of twice.

A selection along the last axis is the same before and after other axes are moved; and (moved x) c + (moved y) d, for
constants c and d, is x c' + y d' moved once, where c' and d' have their numbers at the places of before.
"""

import math
from typing import TYPE_CHECKING

from exporter.graph.editing import Editor, order_of, replace, rewrite_each
from exporter.graph.formulas import name, operands
from exporter.graph.linear_maps import COPIED, MOVED

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import Node


def move_late(editor: Editor) -> int:
    """Move axes after selections and sums; return how often."""
    return rewrite_each(editor, _selected) + rewrite_each(editor, _summed)


def moves_of(editor: Editor, value: "Node") -> "list[Node]":
    """Return by which operations axes are moved to get a value, the last one first."""
    found = []
    while str(value.target) in MOVED and editor.shape(value):
        found.append(value)
        value = value.args[0]
    return found


def moved(editor: Editor, moves: "list[Node]", value: "Node") -> "Node":
    """Add the same moves of another value."""
    for one in reversed(moves):
        value = editor.call(one.target, value, *one.args[1:], **one.kwargs)
    return value


def places_after(moves: "list[Node]", shape: tuple[int, ...]) -> "Tensor":
    """Return for a value of this shape, whose elements are counted, which of them is where after moves."""
    import torch

    numbers = torch.arange(math.prod(shape)).reshape(shape)
    for one in reversed(moves):
        numbers = one.target(numbers, *one.args[1:], **one.kwargs)
    return numbers


def undone(moves: "list[Node]", numbers: "Tensor", shape: tuple[int, ...]) -> "Tensor":
    """Return what has this shape and gives these numbers after the moves."""
    import torch

    before = torch.empty(math.prod(shape), dtype=numbers.dtype)
    before[places_after(moves, shape).flatten()] = numbers.flatten()
    return before.reshape(shape)


def _selected(editor: Editor, node: "Node") -> bool:
    """Select along the last axis before others are moved."""
    args = operands(node, "index_select.default")
    if args is None or name(args[0]) not in ("transpose.int", "permute.default"):
        return False
    value, axis, index = args
    rank = len(editor.shape(value))
    if axis % rank != rank - 1 or order_of(value, rank)[-1] != rank - 1 or not editor.is_constant(index):
        return False
    return replace(editor, node, moved(editor, [value], editor.call(node.target, value.args[0], -1, index)))


def _summed(editor: Editor, node: "Node") -> bool:
    """Move axes after a sum of two products with constants, where they were moved before both."""
    import torch

    args = operands(node, "add.Tensor", "sub.Tensor")
    parts = [] if args is None else [_part(editor, node, value) for value in args]
    found = [part for part in parts if part is not None]
    if len(found) != 2:
        return False
    alike = 0
    for one, other in zip(found[0][0], found[1][0], strict=False):
        if name(one) != name(other) or one.args[1:] != other.args[1:]:
            break
        alike += 1
    ends = [moves[:alike] for moves, _ in found]
    private = all(len(one.users) == 1 for moves in ends for one in moves)
    shapes = {editor.shape(moves[-1].args[0]) for moves in ends if moves}
    if not alike or not private or len(shapes) > 1 or math.prod(editor.shape(node)) * 4 > COPIED:
        return False
    products = []
    for moves, (_, constant) in zip(ends, found, strict=True):
        wide = undone(moves, constant.expand(editor.shape(node)), *shapes)
        products.append(editor.call(torch.ops.aten.mul.Tensor, moves[-1].args[0], editor.shared_constant(wide)))
    return replace(editor, node, moved(editor, ends[0], editor.call(node.target, *products)))


def _part(editor: Editor, node: "Node", value: "Node") -> "tuple[list[Node], Tensor] | None":
    """Return how a value is moved and the constant that it is multiplied with, if nothing else reads the product."""
    args = operands(value, "mul.Tensor")
    if args is None or set(value.users) != {node} or editor.shape(value) != editor.shape(node):
        return None
    for factor, constant in (args, tuple(reversed(args))):
        moves = moves_of(editor, factor) if hasattr(factor, "meta") else []
        if moves and editor.is_constant(constant) and editor.shape(factor) == editor.shape(node):
            return moves, editor.value(constant)
    return None
