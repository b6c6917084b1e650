"""The pass `cut`: slices of one value that do not overlap are one cut of it.

Tables of computed rows have several values side by side, each of which is a slice. It pays where an operation costs
more than its numbers, as in ONNX Runtime.
"""

import itertools
import operator
from typing import TYPE_CHECKING

from exporter.graph.editing import Editor
from exporter.graph.formulas import slice_of
from exporter.graph.rewriting import EVERY_FORM, Pass

if TYPE_CHECKING:
    from torch.fx import Node


def cut(editor: Editor) -> int:
    """Cut values along an axis once; return how many values."""
    groups: dict[tuple[Node, int], list[tuple[int, int, Node]]] = {}
    for node in editor.graph.nodes:
        part = slice_of(editor, node)
        if part is not None and part.step == 1:
            groups.setdefault((part.value, part.axis), []).append((part.start, part.stop, node))
    return sum(_at_once(editor, value, axis, parts) for (value, axis), parts in groups.items())


def _at_once(editor: Editor, value: "Node", axis: int, parts: "list[tuple[int, int, Node]]") -> bool:
    """Cut a value where its parts begin and end; False for one part, and for parts that overlap or are empty."""
    import torch

    parts = sorted(parts, key=lambda part: part[:2])
    if len(parts) < 2 or any(start >= end for start, end, _ in parts):
        return False
    if any(one[1] > other[0] for one, other in itertools.pairwise(parts)):
        return False
    bounds = sorted({0, editor.shape(value)[axis], *(at for start, end, _ in parts for at in (start, end))})
    widths = [end - start for start, end in itertools.pairwise(bounds)]
    with editor.graph.inserting_before(min(node for _, _, node in parts)):
        whole = editor.call(torch.ops.aten.split_with_sizes.default, value, widths, axis)
        for start, _, node in parts:
            node.replace_all_uses_with(editor.call(operator.getitem, whole, bounds.index(start)))
    return True


PASS = Pass("cut", "several slices of one value as one cut", EVERY_FORM, cut)
