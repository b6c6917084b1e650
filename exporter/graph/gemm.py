"""The pass `gemm`: a product and what is added to it as one operation, with its values as they lie.

    x y for rows x [M, D] and a column y that is a row p [1, D], read as a row [1, M], is p x^T
    a b + c is one operation, for a c that is broadcast to it

For ONNX Runtime, whose Gemm takes the transpose and the sum with it.
"""

from typing import TYPE_CHECKING

from exporter.graph.editing import Editor, replace, rewrite_each
from exporter.graph.formulas import either, operands
from exporter.graph.rewriting import Pass
from exporter.graph.rowwise import RESHAPES

if TYPE_CHECKING:
    from torch.fx import Node


def gemm(editor: Editor) -> int:
    """Turn products and put sums into them; return how many."""
    return rewrite_each(editor, _turned) + rewrite_each(editor, _added)


def _turned(editor: Editor, node: "Node") -> bool:
    """Put p x^T in place of a product that is read as a row."""
    import torch

    aten = torch.ops.aten
    args = operands(node.args[0], "mm.default") if str(node.target) in RESHAPES else None
    if args is None or set(node.args[0].users) != {node}:
        return False
    rows, column = args
    count, width = editor.shape(rows)
    if editor.shape(column) != (width, 1) or editor.shape(node) != (1, count) or str(column.target) not in RESHAPES:
        return False
    row = editor.reshape(column.args[0], [1, width])
    return replace(editor, node, editor.call(aten.mm.default, row, editor.call(aten.t.default, rows)))


def _added(editor: Editor, node: "Node") -> bool:
    """Put a b + c in place of a product and a sum."""
    import torch

    for whole, other in either(node, "add.Tensor"):
        args = operands(whole, "mm.default")
        if args is None or set(whole.users) != {node} or not hasattr(other, "meta"):
            continue
        if editor.shape(whole) == editor.shape(node) and editor.dtype(other) == editor.dtype(node):
            return replace(editor, node, editor.call(torch.ops.aten.addmm.default, other, *args))
    return False


PASS = Pass("gemm", "a product and what is added to it as one operation", frozenset({"captured"}), gemm)
