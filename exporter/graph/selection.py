"""Where a graph picks one row along an axis: by a sum of marked rows, by a number, or by an index."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.graph.editing import Editor, same_but
from exporter.graph.intervals import CASTS, Interval, intervals

if TYPE_CHECKING:
    from torch.fx import Node

_SPREADING = frozenset({"aten.expand.default", "aten.repeat.default"})
_VIEWS = frozenset(
    f"aten.{name}" for name in ("unsqueeze.default", "squeeze.dim", "reshape.default", "view.default", "transpose.int")
)


@dataclass(frozen=True)
class Marked:
    """sum(value * weights, axis), for weights (N elements) of which one is 1 and all others are 0."""

    node: "Node"
    reader: "Node"
    value: "Node"
    axis: int
    weights: "Node"

    def row(self, editor: Editor, value: "Node", axis: int) -> "Node":
        """Add the row of a value as its product with the weights."""
        import torch

        aten = torch.ops.aten
        shape = editor.shape(value)
        extent = shape[axis]
        if math.prod(shape[:axis]) == 1:
            weights = editor.reshape(self.weights, [1, extent])
            # Also where it has this shape already: a constant that is added to one value and multiplied as a matrix
            # with another is put by XNNPACK into two parts that need each other. As a copy it can be in both.
            rows = editor.copied(value, [extent, math.prod(shape[axis + 1 :])])
            return editor.reshape(editor.call(aten.mm.default, weights, rows), same_but(shape, axis, 1))
        weights = editor.reshape(self.weights, [extent, *[1] * (len(shape) - axis - 1)])
        product = editor.call(aten.mul.Tensor, value, weights)
        return editor.call(aten.sum.dim_IntList, product, [axis], True)


@dataclass(frozen=True)
class Fixed:
    """value[..., place, ...]: always the same row."""

    node: "Node"
    reader: "Node"
    value: "Node"
    axis: int
    place: int

    def row(self, editor: Editor, value: "Node", axis: int) -> "Node":
        """Add the row as a slice."""
        import torch

        return editor.call(torch.ops.aten.slice.Tensor, value, axis, self.place, self.place + 1)


@dataclass(frozen=True)
class Gathered:
    """gather(value, axis, index) for an index that is one number, not below 0, at all places of the row."""

    node: "Node"
    reader: "Node"
    value: "Node"
    axis: int
    index: "Node"

    def row(self, editor: Editor, value: "Node", axis: int) -> "Node":
        """Add the row by its index."""
        import torch

        return editor.call(torch.ops.aten.index_select.default, value, axis, editor.reshape(self.index, [1]))


Pick = Marked | Fixed | Gathered
"""One row of `value` along `axis`: `node` has it without that axis, or with one row of it, and `reader` is what reads
`value` for it. `row` adds the picked row of any value along an axis, which stays with an extent of 1."""


def picks(editor: Editor) -> Iterator[Pick]:
    """Find where a graph picks one row along an axis."""
    marks = _marks(editor)
    for node in list(editor.graph.nodes):
        found: Pick | None
        match str(node.target):
            case "aten.sum.dim_IntList":
                found = _marked(editor, node, marks)
            case "aten.select.int" | "aten.slice.Tensor":
                found = _fixed(editor, node)
            case "aten.gather.default":
                found = _gathered(editor, node)
            case _:
                continue
        if found is not None:
            yield found


def _marked(editor: Editor, node: "Node", marks: "set[Node]") -> Marked | None:
    product, axes, *keeps = node.args
    if str(getattr(product, "target", "")) != "aten.mul.Tensor" or len(product.users) > 1:
        return None
    if node.kwargs or len(axes) != 1 or len(keeps) > 1:
        return None
    shape = editor.shape(product)
    axis = axes[0] % len(shape)
    for value, weights in (product.args, tuple(reversed(product.args))):
        if weights in marks and hasattr(value, "meta") and editor.shape(value) == shape:
            own = editor.shape(weights)
            at = axis - len(shape) + len(own)
            if at >= 0 and own[at] == shape[axis] == math.prod(own):
                return Marked(node, product, value, axis, weights)
    return None


def _fixed(editor: Editor, node: "Node") -> Fixed | None:
    """Return a selected row, or a slice of one row."""
    value, axis, place = (*node.args, 0, 0)[:3]  # a slice may leave its axis and its beginning out
    shape = editor.shape(value)
    axis, place = axis % len(shape), place or 0
    if shape[axis] == 1 or math.prod(editor.shape(node)) * shape[axis] != math.prod(shape):
        return None
    place = max(place + shape[axis] if place < 0 else place, 0)
    return Fixed(node, node, value, axis, place)


def _gathered(editor: Editor, node: "Node") -> Gathered | None:
    """Return a gather of one row; its node keeps the axis, with an extent of 1."""
    value, axis, index = node.args[:3]
    shape = editor.shape(value)
    axis %= len(shape)
    one = index
    while str(one.target) in _SPREADING and math.prod(editor.shape(one)) > 1:
        one = one.args[0]
    if math.prod(editor.shape(one)) != 1 or editor.shape(node) != tuple(same_but(shape, axis, 1)):
        return None
    return Gathered(node, node, value, axis, one)


def _marks(editor: Editor) -> "set[Node]":
    """Return the values with one element that is 1, and 0 in all others, whatever the inputs are.

    Those are p == s for p = 0, 1, ... N - 1 and one whole number s from 0 to N - 1.
    """
    import torch

    exact = (torch.float32, torch.float64, torch.int32, torch.int64)
    known = intervals(editor.graph)
    marks: set[Node] = set()
    counting: set[Node] = set()
    for node in editor.graph.nodes:
        name = str(node.target)
        if node.op == "get_attr":
            if editor.is_constant(node) and _counts(editor, node):
                counting.add(node)
        elif name == "aten.arange.default":
            if node in known and editor.dtype(node) in exact:
                counting.add(node)
        elif name in _VIEWS or (name in CASTS and editor.dtype(node) in exact):
            for group in (marks, counting):
                if node.args[0] in group:
                    group.add(node)
        elif name == "aten.eq.Tensor":
            extent = math.prod(editor.shape(node))
            for positions, place in (node.args, tuple(reversed(node.args))):
                counts = positions in counting and math.prod(editor.shape(positions)) == extent
                if counts and _is_place(editor, place, extent, known):
                    marks.add(node)
    return marks


def _is_place(editor: Editor, place: "Node", extent: int, known: "Mapping[Node, Interval]") -> bool:
    """Say whether a value is one whole number from 0 to extent - 1."""
    span = known.get(place)
    return span is not None and math.prod(editor.shape(place)) == 1 and span.least >= 0 and span.most < extent


def _counts(editor: Editor, node: "Node") -> bool:
    """Say whether a constant is 0, 1, ... N - 1."""
    import torch

    value = editor.value(node)
    if value.dim() == 0 or value.numel() != max(value.shape) or value.numel() > 1 << 16 or value.is_complex():
        return False
    return bool((value.reshape(-1) == torch.arange(value.numel())).all())
