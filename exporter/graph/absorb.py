"""The pass `absorb`: what is constant is computed once, and what is linear moves into a constant matrix beside it.

Whatever reads constants alone has one value for all calls. The largest such parts of a graph become constants, unless
those are larger than what they are computed from. And for a product with a constant matrix W and bias b:

- (x g + s) W + b = x (g W) + (s W + b): gains and shifts of what all its readers multiply;
- (x W + b) g + s = x (W g) + (b g + s), and g (x Y) = (g x) Y for a number g: those behind it, scales of attention too;
- y - mean(y) = x (W C) + b C with C = I - 1 1' / d, for y = x W + b: centring;
- (x W + b) U = x (W U) + b U, where that is fewer multiplications; and sum(x c) is a product with one column.

Parts of x W along its last axis are products with parts of W.

And (x W + b) y = x (W y) + b y for one column y and many rows x.

A Y + B Y = (A + B) Y, whatever Y is. Rotary positions have one form (`exporter/graph/rotary.py`), and axes are moved
after them, once (`exporter/graph/late_moves.py`).
"""

import math
from typing import TYPE_CHECKING

from exporter.graph import moving, rotary
from exporter.graph.editing import Editor
from exporter.graph.late_moves import move_late
from exporter.graph.rewriting import EVERY_FORM, Pass
from exporter.graph.sweeping import behind

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import Node


def absorb(editor: Editor) -> int:
    """Compute what is constant, and move what is linear into constants; return at how many places."""
    before = _fold(editor) + rotary.turn_at_once(editor)
    return before + moving.move(editor) + move_late(editor) + _fold(editor)


def _fold(editor: Editor) -> int:
    """Put constants in place of what is computed of constants alone; return of how many values."""
    fixed = editor.constants()
    ends = [
        node
        for node in editor.graph.nodes
        if node in fixed and node.op == "call_function" and any(user not in fixed for user in node.users)
    ]
    values: dict[Node, Tensor] = {}
    folded = 0
    for node in ends:
        if math.prod(editor.shape(node)) > _largest(editor, node):
            continue  # an expanded weight is one that is stored small
        with editor.graph.inserting_before(node):
            node.replace_all_uses_with(editor.constant(_value(editor, node, values)))
        folded += 1
    return folded


def _largest(editor: Editor, node: "Node") -> int:
    """Return the elements of the largest constant that a value is computed of; of one without any, its own."""
    sizes = [math.prod(editor.shape(value)) for value in behind(node, set()) if value.op == "get_attr"]
    return max(sizes, default=math.prod(editor.shape(node)))


def _value(editor: Editor, node: "Node", values: "dict[Node, Tensor]") -> "Tensor":
    """Compute a value of constants alone; `values` has those that were computed before, and gets the new ones."""
    needed = behind(node, set())
    editor.compute([one for one in editor.graph.nodes if one in needed and one.op == "call_function"], values)
    return values[node]


PASS = Pass(
    "absorb",
    "compute constants once, move what is linear into matrices",
    EVERY_FORM,
    absorb,
)
