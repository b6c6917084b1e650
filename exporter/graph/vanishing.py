"""What is the same at all places of the last axis vanishes where the mean along it is taken away.

Layer norm, and y - mean(y), give the same of y and of y + s for a number s of each row. So such terms of y, through
sums, products with numbers of each row, and products that mix rows, need not be computed.
"""

from typing import TYPE_CHECKING, Any

from exporter.graph.editing import Editor, order_of
from exporter.graph.formulas import name
from exporter.graph.rowwise import RESHAPES

if TYPE_CHECKING:
    from torch.fx import Node

_NORMS = frozenset({"layer_norm.default", "native_layer_norm.default"})
_SUMS = frozenset({"add.Tensor", "sub.Tensor"})
_PRODUCTS = frozenset({"mm.default", "bmm.default", "matmul.default"})


def drop_shift(editor: Editor, node: "Node") -> bool:
    """Leave out one term that vanishes in what this operation centres; return whether there was one."""
    value = _centred(editor, node)
    return value is not None and _drop(editor, value)


def _centred(editor: Editor, node: "Node") -> "Node | None":
    """Return the value that an operation takes the mean along its last axis from, if nothing else reads it."""
    if name(node) in _NORMS:
        value = node.args[0]
        return value if len(node.args[1]) == 1 and set(value.users) == {node} else None
    if name(node) != "sub.Tensor" or node.kwargs or name(node.args[1]) != "mean.dim":
        return None
    value, mean = node.args
    rank = len(editor.shape(mean.args[0]))
    along = [axis % rank for axis in mean.args[1]] == [rank - 1] and mean.args[2:] == (True,)
    return value if mean.args[0] is value and along and set(value.users) == {node, mean} else None


def _drop(editor: Editor, value: "Node") -> bool:
    """Leave out a term of a value of which what is the same along the last axis does not matter."""
    if value.kwargs:
        return False
    if name(value) in _SUMS:
        left, right = value.args
        for term, other in ((right, left), (left, right)):
            signed = other is right and name(value) == "sub.Tensor"
            if _is_shift(editor, term) and not signed and editor.shape(other) == editor.shape(value):
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
        return wide
    if operation in ("mul.Tensor", "div.Tensor"):
        other = args[1]
        by_row = len(wide) == 1 and wide[0] is args[0] and _is_shift(editor, other)
        turned = operation == "mul.Tensor" and len(wide) == 1 and wide[0] is other and _is_shift(editor, args[0])
        return wide if by_row or turned else []
    if operation in _PRODUCTS:
        return [args[1]] if len(editor.shape(args[1])) > 1 else []
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
