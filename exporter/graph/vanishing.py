"""What is the same at all places of the last axis vanishes where the mean along it is taken away.

Layer norm, and y - mean(y), give the same of y and of y + s for a number s of each row. So such terms of y, through
sums, products with numbers of each row, and products that mix rows, need not be computed.
"""

from typing import TYPE_CHECKING, Any

from exporter.graph.editing import Editor, order_of
from exporter.graph.formulas import name, operands, sides
from exporter.graph.rowwise import RESHAPES

if TYPE_CHECKING:
    from torch.fx import Node

_SUMS = frozenset({"add.Tensor", "sub.Tensor"})
_PRODUCTS = frozenset({"mm.default", "bmm.default", "matmul.default"})


def centred(editor: Editor, node: "Node") -> "Node | None":
    """Return the value y of y - mean(y) along the last axis, if nothing else reads y or the mean."""
    args = operands(node, "sub.Tensor")
    mean = None if args is None else operands(args[1], "mean.dim")
    if args is None or mean is None or mean[0] is not args[0]:
        return None
    rank = len(editor.shape(mean[0]))
    along = [axis % rank for axis in mean[1]] == [rank - 1] and mean[2:] == (True,)
    alone = set(mean[0].users) == {node, args[1]} and set(args[1].users) == {node}
    return mean[0] if along and alone else None


def drop_shift(editor: Editor, node: "Node") -> bool:
    """Leave out one term that vanishes in what this operation centres; return whether there was one."""
    value = centred(editor, node)
    if name(node) == "layer_norm.default" and len(node.args[1]) == 1 and set(node.args[0].users) == {node}:
        value = node.args[0]
    return value is not None and _drop(editor, value)


def _drop(editor: Editor, value: "Node") -> bool:
    """Leave out a term of a value of which what is the same along the last axis does not matter."""
    for other, term in sides(value) if name(value) in _SUMS else ():
        if _is_shift(editor, term) and hasattr(other, "meta") and editor.shape(other) == editor.shape(value):
            value.replace_all_uses_with(other)
            return True
    return any(_drop(editor, inner) for inner in _through(editor, value) if len(inner.users) == 1)


def _through(editor: Editor, value: "Node") -> "list[Node]":
    """Return those values of which what is the same along the last axis makes in this one what is so too."""
    operation, args = name(value), value.args
    extent = editor.shape(value)[-1] if editor.is_tensor(value) and editor.shape(value) else 1
    if extent == 1:
        return []
    wide = [one for one in value.all_input_nodes if editor.is_tensor(one) and editor.shape(one)[-1:] == (extent,)]
    if operation in _SUMS:
        return wide if not value.kwargs else []
    if operation in ("mul.Tensor", "div.Tensor"):
        return [one for one, other in sides(value) if one in wide and _is_shift(editor, other)]
    if operation in _PRODUCTS:
        return [args[1]] if len(editor.shape(args[1])) > 1 and args[0] is not args[1] else []
    if str(value.target) in RESHAPES:
        return wide
    if operation in ("transpose.int", "permute.default"):
        rank = len(editor.shape(value))
        return wide if order_of(value, rank)[-1] == rank - 1 else []
    return []


def _is_shift(editor: Editor, term: Any) -> bool:
    """Say whether a term is a number, or the same at all places of the last axis."""
    if isinstance(term, int | float):
        return True
    return editor.is_tensor(term) and (not editor.shape(term) or editor.shape(term)[-1] == 1)
