"""What a graph computes of looked up rows, row by row: a region of it, and the table with its values for all rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.graph.editing import Editor
from exporter.graph.rowwise import ELEMENTWISE, MOVES, RESHAPES

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import Node

LOOKUP = "aten.embedding.default"
_AT_ONCE = 1 << 16
"""Rows of a table that are computed at once: of a large catalogue's, intermediate values are many times its size."""
_PRODUCTS = frozenset({"aten.linear.default", "aten.mm.default", "aten.matmul.default"})
_REDUCTIONS = frozenset(
    {"aten.sum.dim_IntList", "aten.mean.dim", "aten.amax.default", "aten.amin.default", "aten.softmax.int"}
)
_NORMS = frozenset({"aten.layer_norm.default", "aten.rms_norm.default"})
_SELECTION = "aten.index_select.default"
_SELECTED = 2
"""What it costs to select one number, in numbers that are read in a row."""


@dataclass(frozen=True)
class Rows:
    """A lookup [*ids, D] and the nodes, in order, that are computed of its rows and constants alone, row by row.

    The shapes of all begin with that of the ids, which has `axes` axes. `lookup` is the first of `nodes`.
    """

    lookup: "Node"
    nodes: tuple["Node", ...]
    axes: int

    @property
    def table(self) -> "Node":
        """Return the constant that rows are looked up in."""
        table: Node = self.lookup.args[0]
        return table

    def width(self, editor: Editor, node: "Node") -> int:
        """Return how many numbers one row of a value has."""
        return math.prod(editor.shape(node)[self.axes :])

    def table_bytes(self, editor: Editor, width: int) -> int:
        """Return the bytes of a table with rows of another width."""
        element: int = editor.dtype(self.lookup).itemsize
        return editor.shape(self.table)[0] * width * element

    def before(self, values: "Sequence[Node]") -> "set[Node]":
        """Return the nodes, of this region, that some of its values are computed of."""
        wanted, inside = {*values}, set(self.nodes)
        for node in reversed(self.nodes):
            if node in wanted:
                wanted.update(one for one in node.all_input_nodes if one in inside)
        return wanted - {*values}

    def source(self, node: "Node") -> "Node":
        """Return the value that has the numbers of a node before they were moved."""
        while str(node.target) in MOVES:
            node = node.args[0]
        return node

    def cost(self, editor: Editor, node: "Node") -> int:
        """Return the multiplications of a node of a call, or the numbers that it computes."""
        if node is self.lookup or str(node.target) in MOVES:
            return 0
        size = math.prod(editor.shape(node))
        if str(node.target) == _SELECTION:
            return size * _SELECTED
        inner: int = editor.shape(node.args[0])[-1] if str(node.target) in _PRODUCTS else 1
        return size * inner

    def computed(self, editor: Editor, values: "Sequence[Node]") -> "Tensor":
        """Return values for all rows of the table, side by side, as [V, width]."""
        import torch

        needed = self.before(values) | {*values}
        steps = [node for node in self.nodes if node in needed]
        parts = [self._computed(editor, rows, steps, values) for rows in editor.value(self.table).split(_AT_ONCE)]
        return torch.cat(parts)

    def _computed(self, editor: Editor, rows: "Tensor", steps: "Sequence[Node]", values: "Sequence[Node]") -> "Tensor":
        """Return values for some rows [n, D] of the table, as [n, width]."""
        import torch

        found = {self.lookup: rows}
        editor.compute(steps, found, lambda node: self._args(editor, node, len(rows)))
        return torch.cat([found[value].reshape(len(rows), -1) for value in values], -1)

    def _args(self, editor: Editor, node: "Node", count: int) -> tuple[Any, ...]:
        """Return the arguments of a node for values [count, ...] in place of [*ids, ...]."""
        name: str = str(node.target)
        args: tuple[Any, ...] = tuple(node.args)
        if name in RESHAPES:
            return args[0], [count, *editor.shape(node)[self.axes :]]
        if name == _SELECTION:
            rank = len(editor.shape(args[0]))
            return args[0], args[1] % rank - rank, args[2]
        if name in _REDUCTIONS:
            rank = len(editor.shape(args[0]))
            axes = [args[1]] if isinstance(args[1], int) else args[1]
            axes = [axis % rank - rank for axis in axes]
            return args[0], axes[0] if isinstance(args[1], int) else axes, *args[2:]
        return args


def rows_of(editor: Editor, lookup: "Node") -> Rows | None:
    """Return the region of a lookup; None where nothing is computed of its rows alone."""
    axes = len(editor.shape(lookup)) - 1
    region = Rows(lookup, (lookup,), axes)
    inside = {lookup}
    for node in editor.graph.nodes:
        if node.op == "call_function" and _is_by_row(editor, region, inside, node):
            inside.add(node)
    nodes = tuple(node for node in editor.graph.nodes if node in inside)
    return Rows(lookup, nodes, axes) if len(nodes) > 1 else None


def _is_by_row(editor: Editor, region: Rows, inside: "set[Node]", node: "Node") -> bool:
    """Say whether an operation computes each row of its value of the same row of values inside, and of constants."""
    name, axes = str(node.target), region.axes
    read = [value for value in node.all_input_nodes if value in inside]
    others = [value for value in node.all_input_nodes if value not in inside]
    if not read or not all(map(editor.is_constant, others)) or not editor.is_plain(node):
        return False
    ids, shape = editor.shape(region.lookup)[:axes], editor.shape(node)
    if shape[:axes] != ids or editor.dtype(node) != editor.dtype(region.lookup):
        return False
    if name in ELEMENTWISE:
        ranks = {len(editor.shape(value)) for value in read}
        return ranks == {len(shape)} and all(_rank(editor, value) <= len(shape) - axes for value in others)
    if name in MOVES:
        return True
    x, *rest = node.args
    if x is not read[0] or len(read) > 1 or (rest and rest[0] is x):
        return False
    own = len(editor.shape(x))
    if name in _PRODUCTS:
        return own > axes and all(len(editor.shape(value)) <= 2 for value in others)
    if name == _SELECTION:
        return bool(rest[0] % own >= axes)
    if name in _NORMS:
        return len(rest[0]) <= own - axes
    if name in _REDUCTIONS:
        along = [rest[0]] if isinstance(rest[0], int) else rest[0]
        return bool(along) and all(axis % own >= axes for axis in along)
    return False


def _rank(editor: Editor, value: "Node") -> int:
    """Return the rank of a value without the axes of one that it begins with."""
    shape = editor.shape(value)
    return next((len(shape) - at for at, extent in enumerate(shape) if extent > 1), 0)
