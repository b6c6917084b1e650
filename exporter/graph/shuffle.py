"""The pass `shuffle`: numbers of a row in another order are its product with a matrix of zeros and ones.

x[..., order] = x P with P[order[j], j] = 1, for short rows, as the pairs of a rotary position. It costs multiplications
by zero, and pays where a selection leaves a delegate or needs its axes moved, as for XNNPACK and LiteRT. A number that
is not finite makes others of its row NaN; golden cases with such rows keep this pass out.
"""

from typing import TYPE_CHECKING

from exporter.graph.editing import Editor, replace, rewrite_each
from exporter.graph.formulas import operands
from exporter.graph.rewriting import Pass

if TYPE_CHECKING:
    from torch.fx import Node

_SHORT = 32


def shuffle(editor: Editor) -> int:
    """Put products in place of selections along the last axis by constants; return of how many."""
    return rewrite_each(editor, _multiplied)


def _multiplied(editor: Editor, node: "Node") -> bool:
    """Put a product in place of a selection of numbers."""
    import torch

    args = operands(node, "index_select.default")
    if args is None or not editor.is_constant(args[2]) or editor.dtype(node) != torch.float32:
        return False
    value, axis, order = args
    shape = editor.shape(value)
    if len(shape) < 2 or axis % len(shape) != len(shape) - 1 or max(shape[-1], editor.shape(node)[-1]) > _SHORT:
        return False
    matrix = torch.zeros(editor.shape(node)[-1], shape[-1])
    matrix[torch.arange(len(matrix)), editor.value(order)] = 1
    return replace(editor, node, editor.call(torch.ops.aten.linear.default, value, editor.shared_constant(matrix)))


PASS = Pass(
    "shuffle",
    "numbers of a row in another order as a product",
    frozenset({"captured"}),
    shuffle,
)
