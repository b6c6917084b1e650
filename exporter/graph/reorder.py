"""The pass `reorder`: what a projection gives in another order is a projection with its rows in that order.

(x W + b)[..., order] = x W[:, order] + b[order], also where heads are axes of their own: rotary position embeddings
read each number's partner so.

It costs the multiplications of one projection more, and pays where moving single numbers costs more than those: in
ONNX Runtime.
"""

from typing import TYPE_CHECKING

from exporter.graph.editing import Editor, replace, rewrite_each
from exporter.graph.formulas import operands
from exporter.graph.late_moves import move_late, moved, moves_of, places_after, undone
from exporter.graph.linear_maps import map_of
from exporter.graph.rewriting import Pass

if TYPE_CHECKING:
    from torch.fx import Node


def reorder(editor: Editor) -> int:
    """Compute what is reordered by projections of its own; return of how many."""
    places = rewrite_each(editor, _projected)
    return places + (move_late(editor) if places else 0)


def _projected(editor: Editor, node: "Node") -> bool:
    """Put a projection in place of a selection by a constant order from another one."""
    import torch

    args = operands(node, "index_select.default")
    if args is None or not editor.is_constant(args[2]) or editor.shape(args[0]) != editor.shape(node):
        return False
    moves = moves_of(editor, args[0])
    source = moves[-1].args[0] if moves else args[0]
    one = map_of(editor, source)
    if one is None or one.matrix.dim() > 2:
        return False
    shape = editor.shape(source)
    places = places_after(moves, shape)
    taken = undone(moves, places.index_select(args[1], editor.value(args[2])), shape).reshape(-1, shape[-1])
    order = taken[0]
    rows = torch.arange(len(taken))[:, None] * shape[-1]
    if not torch.equal(taken, rows + order) or sorted(order.tolist()) != [*range(shape[-1])]:
        return False  # numbers come from other rows, or twice
    bias = None if one.bias is None else one.bias[order]
    other = one.with_constants(editor, one.x, one.matrix[:, order], bias)
    return replace(editor, node, moved(editor, moves, other))


PASS = Pass(
    "reorder",
    "what a projection gives in another order as a projection",
    frozenset({"captured"}),
    reorder,
)
