"""The pass `tabulate`: what is computed of one small whole number is a row of a table.

A number n that is whole and from a to b whatever the inputs are, as the number of clicks in a history of N places is,
has b - a + 1 values, and so has all that is computed of it and of constants alone: f(n) = T[n - a]. The mark of the
last click, its rotation and its row of a mask become one lookup in place of comparisons, casts and products.
"""

import math
import operator
from typing import TYPE_CHECKING, Any

from exporter.graph.editing import Editor, replace
from exporter.graph.formulas import operands
from exporter.graph.intervals import Interval, intervals
from exporter.graph.linear_maps import COPIED
from exporter.graph.rewriting import EVERY_FORM, Pass
from exporter.graph.rowwise import MOVES
from exporter.graph.sweeping import behind

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import Node


def tabulate(editor: Editor) -> int:
    """Look up what is computed of small whole numbers; return of how many numbers."""
    import torch

    known, places, done = intervals(editor.graph), 0, set[Any]()
    for node in list(editor.graph.nodes):
        interval = known.get(node)
        if interval is None or interval.most - interval.least >= COPIED or node.op != "call_function" or node in done:
            continue
        if math.prod(editor.shape(node)) > 1 or editor.dtype(node) not in (torch.float32, torch.int64):
            continue
        region = _region(editor, node)
        done |= {*region}
        places += _looked_up(editor, node, interval, region)
    return places


def _region(editor: Editor, number: "Node") -> "list[Node]":
    """Return what is computed of a number and of constants alone, in order; the number comes first."""
    inside = {number: None}
    for node in editor.graph.nodes:
        if node.op != "call_function" or node in inside or not editor.is_plain(node):
            continue
        read = [value for value in node.all_input_nodes if not editor.is_constant(value)]
        if read and all(value in inside for value in read):
            inside[node] = None
    return [*inside]


def _looked_up(editor: Editor, number: "Node", interval: Interval, region: "list[Node]") -> bool:
    """Put rows of a table in place of what is read of a region; False where that saves nothing."""
    import torch

    aten = torch.ops.aten
    inside = {*region}
    read = [node for node in region[1:] if any(user not in inside for user in node.users)]
    ends = [node for node in read if editor.dtype(node) == torch.float32]
    stay = set[Any]().union(*(behind(node, set()) for node in read if node not in ends))  # ids, which are no numbers
    computed = [node for node in region[1:] if str(node.target) not in MOVES and node not in stay]
    new = (
        1 + (len(ends) > 1) + (editor.dtype(number) != torch.int64) + bool(interval.least)
    )  # look up, cut, cast, shift
    if not ends or len(computed) <= new:
        return False
    widths = [math.prod(editor.shape(node)) for node in ends]
    if sum(widths) * 4 * (interval.most - interval.least + 1) > COPIED:
        return False
    with editor.graph.inserting_before(region[1]):
        index = _index(editor, number, interval)
        row = editor.call(aten.embedding.default, editor.constant(_table(editor, interval, region, ends)), index)
        parts = editor.call(aten.split_with_sizes.default, row, widths, 1) if len(ends) > 1 else None
        for at, node in enumerate(ends):
            part = row if parts is None else editor.call(operator.getitem, parts, at)
            replace(editor, node, part)
    editor.remove_unused()
    return True


def _index(editor: Editor, number: "Node", interval: Interval) -> "Node":
    """Add the row of a number [1]: what is counted is counted in whole numbers, without a cast of the result."""
    import torch

    aten = torch.ops.aten
    counted = operands(number, "sum.dim_IntList")
    cast = None if counted is None else operands(counted[0], "to.dtype")
    if counted is None or cast is None or editor.dtype(cast[0]) != torch.bool:
        whole = editor.call(aten.to.dtype, number, torch.int64)
    else:
        asked = operands(cast[0], "ne.Scalar")
        is_set = cast[0] if asked is None or asked[1] != 0 else editor.call(aten.to.dtype, asked[0], torch.bool)
        whole = editor.call(aten.sum.dim_IntList, editor.call(aten.to.dtype, is_set, torch.int64), counted[1])
    index = editor.reshape(whole, [1])
    return editor.call(aten.sub.Tensor, index, interval.least) if interval.least else index


def _table(editor: Editor, interval: Interval, region: "list[Node]", ends: "list[Node]") -> "Tensor":
    """Return the values of a region for each number, one row [sum of widths] for each."""
    import torch

    rows = []
    for value in range(interval.least, interval.most + 1):
        found = {region[0]: torch.full(editor.shape(region[0]), value, dtype=editor.dtype(region[0]))}
        editor.compute(region, found)
        rows.append(torch.cat([found[node].reshape(-1) for node in ends]))
    return torch.stack(rows)


PASS = Pass(
    "tabulate",
    "what is computed of a small whole number as a row of a table",
    EVERY_FORM,
    tabulate,
)
