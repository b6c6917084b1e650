"""The pass `widen`: products of one value with several constant matrices are one product, cut into their results.

[x A + a, x B + b] = x [A, B] + [a, b]: the same multiplications in one operation. And slices of one value are cut at
once. It pays where an operation costs more
than its numbers and a cut costs little, as in ONNX Runtime; XNNPACK and LiteRT lose by it or gain nothing.
"""

import itertools
import operator
from typing import TYPE_CHECKING

from exporter.graph.editing import Editor
from exporter.graph.formulas import operands
from exporter.graph.linear_maps import Map, map_of
from exporter.graph.rewriting import EVERY_FORM, Pass

if TYPE_CHECKING:
    from torch.fx import Node


def widen(editor: Editor) -> int:
    """Put one product, and one cut, in place of those of the same value; return how many values had several."""
    groups: dict[Node, list[Map]] = {}
    for node in editor.graph.nodes:
        found = map_of(editor, node)
        if found is not None and found.matrix.dim() == len(editor.shape(found.x)) == 2:
            groups.setdefault(found.x, []).append(found)
    several = [maps for maps in groups.values() if len(maps) > 1]
    for maps in several:
        _join(editor, maps)
    return len(several) + _cut(editor)


def _cut(editor: Editor) -> int:
    """Cut values along an axis once, where several slices of one do not overlap; return how many values."""
    import torch

    groups: dict[tuple[Node, int], list[tuple[int, int, Node]]] = {}
    for node in editor.graph.nodes:
        args = operands(node, "slice.Tensor")
        if args is not None and len(args) == 4:
            shape = editor.shape(args[0])
            axis = args[1] % len(shape)
            start, end, _ = slice(args[2], args[3]).indices(shape[axis])
            groups.setdefault((args[0], axis), []).append((start, end, node))
    places = 0
    for (value, axis), parts in groups.items():
        parts.sort(key=lambda part: part[:2])
        apart = all(one[1] <= other[0] for one, other in itertools.pairwise(parts))
        if len(parts) < 2 or not apart:
            continue
        bounds = sorted({0, editor.shape(value)[axis], *(at for start, end, _ in parts for at in (start, end))})
        widths = [end - start for start, end in itertools.pairwise(bounds)]
        with editor.graph.inserting_before(min(node for _, _, node in parts)):
            cut = editor.call(torch.ops.aten.split_with_sizes.default, value, widths, axis)
            for start, _, node in parts:
                node.replace_all_uses_with(editor.call(operator.getitem, cut, bounds.index(start)))
        places += 1
    return places


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
