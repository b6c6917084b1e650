"""The pass `fold_rows`: what is computed of an item's row alone is in the table.

For an operation f that works row by row, f(T[ids]) is f(T)[ids]. So whatever a graph computes of looked up rows and
constants alone, until it meets another value, is computed once for all rows, and their table takes the place of T. It
may be wider than T, and T may still be read elsewhere: how far this goes is decided by the bytes that constants may
grow by, and within those by the multiplications that a call saves.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.graph.editing import Editor
from exporter.graph.rewriting import EVERY_FORM, GROWTH, Pass
from exporter.graph.row_tables import LOOKUP, Rows, rows_of

if TYPE_CHECKING:
    from torch.fx import Node

_MOST_CHOICES = 4096
"""Ways to fold all lookups of a graph that are compared; of a graph with more, the costliest lookups alone are."""


@dataclass(frozen=True)
class _Cut:
    """Values of a lookup's region that a table can have in its rows, so that nothing before them is computed.

    `width` counts the numbers of a row, `saved` the multiplications, or other operations, of a call.
    """

    rows: Rows
    values: tuple["Node", ...]
    width: int
    saved: int


def fold_rows(editor: Editor) -> int:
    """Put tables of computed rows in place of looked up rows that are computed with; return how many lookups."""
    regions = [region for node in _lookups(editor) if (region := rows_of(editor, node)) is not None]
    options = [[None, *_cuts(editor, region)] for region in regions]
    options = [cuts for cuts in options if len(cuts) > 1]
    while math.prod(map(len, options)) > _MOST_CHOICES:
        options.remove(min(options, key=lambda cuts: max(cut.saved for cut in cuts if cut is not None)))
    chosen = _best(editor, options)
    for cut in chosen:
        _fold(editor, cut)
    return len(chosen)


def _lookups(editor: Editor) -> "Iterator[Node]":
    """Return where rows of a constant table are looked up by ids."""
    for node in list(editor.graph.nodes):
        if str(node.target) == LOOKUP and editor.is_constant(node.args[0]):
            yield node


def _cuts(editor: Editor, rows: Rows) -> Iterator[_Cut]:
    """Return where the rows of a lookup can be cut: behind all that is computed of them alone, or at a waist before.

    A waist is one value through which all goes that is computed of the rows.
    """
    inside = set(rows.nodes)
    border = tuple(node for node in rows.nodes if any(user not in inside for user in node.users))
    yield from _cut(editor, rows, border)
    for node in rows.nodes[1:]:
        before = rows.before((node,)) | {rows.lookup}
        if all(user in before or user is node for one in before for user in one.users) and border != (node,):
            yield from _cut(editor, rows, (node,))


def _cut(editor: Editor, rows: Rows, values: "Sequence[Node]") -> Iterator[_Cut]:
    """Return the cut behind values, or before what only moves their numbers; none where it saves nothing."""
    at = tuple(dict.fromkeys(rows.source(value) for value in values))
    folded = rows.before(at) | {*at}
    saved = sum(rows.cost(editor, node) for node in folded)
    width = sum(rows.width(editor, value) for value in at)
    ids = math.prod(editor.shape(rows.lookup)[: rows.axes])
    saved -= ids * max(width - rows.width(editor, rows.lookup), 0)  # what is read more
    if at != (rows.lookup,) and saved > 0:
        yield _Cut(rows, at, width, saved)


def _best(editor: Editor, options: "list[list[_Cut | None]]") -> list[_Cut]:
    """Return the cuts that save most within the bytes that constants may take."""
    constants = {str(node.target): editor.value(node) for node in editor.graph.find_nodes(op="get_attr")}
    held = {tensor.data_ptr(): tensor.nbytes for tensor in constants.values()}
    before = sum(held.values())
    readers = {cut.rows.table: editor.readers(cut.rows.table) for cuts in options for cut in cuts if cut is not None}
    best: tuple[int, int, list[_Cut]] = (0, 0, [])
    for choice in itertools.product(*options):
        cuts = [cut for cut in choice if cut is not None]
        bytes_after = before + sum(cut.rows.table_bytes(editor, cut.width) for cut in cuts)
        replaced = {cut.rows.lookup for cut in cuts}
        for table in {cut.rows.table for cut in cuts}:
            if readers[table] <= replaced:
                bytes_after -= editor.value(table).nbytes
        if bytes_after <= before * editor.growth:
            best = max(best, (sum(cut.saved for cut in cuts), -bytes_after, cuts), key=lambda found: found[:2])
    return best[2]


def _fold(editor: Editor, cut: _Cut) -> None:
    """Look the values of a cut up in a table of their own."""
    import torch

    rows, aten = cut.rows, torch.ops.aten
    table, ids = rows.lookup.args[:2]
    with editor.graph.inserting_before(table):
        wide = editor.constant(rows.computed(editor, cut.values))
    with editor.graph.inserting_before(rows.lookup):
        found = editor.call(aten.embedding.default, wide, ids)
        start = 0
        for value in cut.values:
            width = rows.width(editor, value)
            part = found
            if len(cut.values) > 1:
                part = editor.call(aten.slice.Tensor, found, len(editor.shape(found)) - 1, start, start + width)
            start += width
            value.replace_all_uses_with(editor.reshape(part, editor.shape(value)))


PASS = Pass(
    "fold_rows",
    "what is computed of an item's row alone is in the table",
    EVERY_FORM,
    fold_rows,
    growth=GROWTH["same_size"],
)
