"""Rotary positions with one form: pairs of numbers that are turned by constants, however that is written.

Cut into even and odd numbers x_0, x_1 of each pair, turned as (a x_0 + b x_1, c x_0 + d x_1) and put together again,
they are x C + x' S: x' has the two of each pair the other way round, and C and S are the constants a, d and b, c in
turn.
"""

from typing import TYPE_CHECKING

from exporter.graph.editing import Editor, replace
from exporter.graph.formulas import either, operands
from exporter.graph.rowwise import RESHAPES

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import Node


def turn_at_once(editor: Editor) -> int:
    """Put x C + x' S in place of pairs that are cut apart, turned and put together; return how often."""
    places = 0
    for node in list(editor.graph.nodes):
        with editor.graph.inserting_before(node):
            places += str(node.target) in RESHAPES and _turned(editor, node)
    editor.remove_unused()
    return places


def _turned(editor: Editor, node: "Node") -> bool:
    import torch

    aten = torch.ops.aten
    joined = operands(node.args[0], "cat.default")
    parts = [] if joined is None else [_whole(editor, part) for part in joined[0]]
    if joined is None or len(parts) != 2 or joined[1:] not in ((-1,), (len(editor.shape(node.args[0])) - 1,)):
        return False
    both = [_combination(editor, part) for part in parts if part is not None]
    found = [one for one in both if one is not None]
    if len(found) != 2 or found[0][0] is not found[1][0] or editor.shape(node) != editor.shape(found[0][0]):
        return False
    (x, first), (_, second) = found
    places = torch.arange(editor.shape(x)[-1])
    own, other = (torch.stack(torch.broadcast_tensors(*pair), -1).flatten(-2) for pair in _by_place(first, second))
    turned = editor.call(aten.index_select.default, x, -1, editor.constant(places ^ 1))
    product = editor.call(aten.mul.Tensor, x, editor.constant(own))
    partner = editor.call(aten.mul.Tensor, turned, editor.constant(other))
    return replace(editor, node, editor.call(aten.add.Tensor, product, partner))


def _by_place(first: "list[Tensor]", second: "list[Tensor]") -> "tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]":
    """Return what each number of a pair is multiplied with itself, and its partner."""
    return (first[0], second[1]), (first[1], second[0])


def _whole(editor: Editor, part: "Node") -> "Node | None":
    """Return the value that is one number wide in a joined part, [..., D / 2] for [..., D / 2, 1]."""
    if str(part.target) not in RESHAPES:
        return None
    value: Node = part.args[0]
    return value if editor.shape(part) == (*editor.shape(value), 1) else None


def _combination(editor: Editor, value: "Node") -> "tuple[Node, list[Tensor]] | None":
    """Return x and what its even and its odd numbers are multiplied with in a sum or difference of both; else None."""
    args = operands(value, "add.Tensor", "sub.Tensor")
    terms = [] if args is None or len(args) != 2 else [_term(editor, one) for one in args]
    known = [term for term in terms if term is not None]
    if len(known) != 2 or known[0][0] is not known[1][0] or {known[0][1], known[1][1]} != {0, 1}:
        return None
    sign = -1.0 if operands(value, "sub.Tensor") else 1.0
    (x, start, factor), (_, _, other) = known
    factors = [factor, sign * other]
    return x, factors if start == 0 else factors[::-1]


def _term(editor: Editor, value: object) -> "tuple[Node, int, Tensor] | None":
    """Return x, 0 or 1, and the constant that x[..., 0::2] or x[..., 1::2] is multiplied with; None for others."""
    for cut, constant in either(value, "mul.Tensor"):
        args = operands(cut, "slice.Tensor")
        if args is None or len(args) != 5 or not editor.is_constant(constant):
            continue
        x, axis, start, end, step = args
        rank, extent = len(editor.shape(x)), editor.shape(x)[-1]
        along = axis % rank == rank - 1 and step == 2 and end >= extent and extent % 2 == 0
        if along and start in (0, 1) and editor.shape(constant)[-1:] == (extent // 2,):
            return x, start, editor.value(constant)
    return None
