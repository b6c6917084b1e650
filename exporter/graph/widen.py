"""The pass `widen`: products of one value with several constant matrices are one product, cut into their results.

[x A + a, x B + b] = x [A, B] + [a, b]: the same multiplications in one operation. It pays where an operation costs more
than its numbers and a cut costs little, as in ONNX Runtime; XNNPACK and LiteRT lose by it or gain nothing.
"""

import operator
from typing import TYPE_CHECKING

from exporter.graph.editing import Editor
from exporter.graph.linear_maps import Map, map_of
from exporter.graph.rewriting import EVERY_FORM, Pass

if TYPE_CHECKING:
    from torch.fx import Node


def widen(editor: Editor) -> int:
    """Put one product in place of those of the same value; return how many values had several."""
    groups: dict[Node, list[Map]] = {}
    for node in editor.graph.nodes:
        found = map_of(editor, node)
        if found is not None and found.matrix.dim() == len(editor.shape(found.x)) == 2:
            groups.setdefault(found.x, []).append(found)
    several = [maps for maps in groups.values() if len(maps) > 1]
    for maps in several:
        _join(editor, maps)
    return len(several)


def _join(editor: Editor, maps: list[Map]) -> None:
    """Compute products of the same value together, where the first of them was."""
    import torch

    aten = torch.ops.aten
    matrix = torch.cat([one.matrix for one in maps], 1)
    widths = [one.matrix.shape[1] for one in maps]
    first = next((one for one in maps if str(one.node.target) == "aten.linear.default"), maps[0])
    bias = None
    if any(one.bias is not None for one in maps):
        bias = torch.cat([one.matrix.new_zeros(one.matrix.shape[1]) if one.bias is None else one.bias for one in maps])
    with editor.graph.inserting_before(maps[0].node):
        wide = first.with_constants(editor, first.x, matrix, bias)
        parts = editor.call(aten.split_with_sizes.default, wide, widths, 1)
        for at, one in enumerate(maps):
            one.node.replace_all_uses_with(editor.call(operator.getitem, parts, at))


PASS = Pass(
    "widen",
    "products of one value with several matrices as one",
    EVERY_FORM,
    widen,
)
