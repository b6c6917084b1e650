"""Rotary positions with one form: pairs of numbers that are turned by constants, however that is written.

Cut into even and odd numbers x_0, x_1 of each pair, turned as (a x_0 + b x_1, c x_0 + d x_1) and put together again,
they are x C + x' S: x' has the two of each pair the other way round, and C and S are the constants a, d and b, c in
turn.
"""

from typing import TYPE_CHECKING

from exporter.graph.editing import Editor, replace, rewrite_each
from exporter.graph.formulas import either, operands, slice_of
from exporter.graph.rowwise import RESHAPES

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import Node


def turn_at_once(editor: Editor) -> int:
    """Put x C + x' S in place of pairs that are cut apart, turned and put together; return how often."""
    return rewrite_each(editor, _turned)


def _turned(editor: Editor, node: "Node") -> bool:
    import torch

    aten = torch.ops.aten
    joined = operands(node.args[0], "cat.default") if str(node.target) in RESHAPES else None
    parts = [] if joined is None else [_whole(editor, part) for part in joined[0]]
    if joined is None or len(parts) != 2 or joined[1:] not in ((-1,), (len(editor.shape(node.args[0])) - 1,)):
        return False
    both = [_combination(editor, part) for part in parts if part is not None]
    found = [one for one in both if one is not None]
    if len(found) != 2 or found[0][0] is not found[1][0] or editor.shape(node) != editor.shape(found[0][0]):
        return False
    (x, first), (_, second) = found
    places = torch.arange(editor.shape(x)[-1])
    pairs = (first[0], second[1]), (first[1], second[0])  # what a number is multiplied with, and its partner
    own, other = (torch.stack(torch.broadcast_tensors(*pair), -1).flatten(-2) for pair in pairs)
    turned = editor.call(aten.index_select.default, x, -1, editor.shared_constant(places ^ 1))
    product = editor.call(aten.mul.Tensor, x, editor.constant(own))
    partner = editor.call(aten.mul.Tensor, turned, editor.constant(other))
    return replace(editor, node, editor.call(aten.add.Tensor, product, partner))


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
        part = slice_of(editor, cut)
        if part is None or not editor.is_constant(constant):
            continue
        rank, extent = len(editor.shape(part.value)), editor.shape(part.value)[-1]
        along = part.axis == rank - 1 and part.step == 2 and part.stop == extent and extent % 2 == 0
        if along and part.start in (0, 1) and editor.shape(constant)[-1:] == (extent // 2,):
            return part.value, part.start, editor.value(constant)
    return None
