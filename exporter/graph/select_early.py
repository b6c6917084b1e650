"""The pass `select_early`: what is picked at the end is picked as early as the graph allows.

A recommender computes all rows of a sequence and scores with one of them: that of the last click. For an operation f
that works row by row, the row of f(X) is f of the row of X; of a product A B it is a row of A times all of B. So from
the place where a row is picked on, back through all values that only the picked row is wanted of, one row is computed
in place of N. What other values need in full stays, and its row is picked there.
"""

from typing import TYPE_CHECKING

from exporter.graph.editing import Editor
from exporter.graph.rewriting import EVERY_FORM, Pass
from exporter.graph.rowwise import Row, row_of
from exporter.graph.selection import Pick, picks

if TYPE_CHECKING:
    from torch.fx import Node


def select_early(editor: Editor) -> int:
    """Move the picks of a graph towards its inputs; return how many were moved."""
    return sum(_move(editor, pick) for pick in picks(editor))


def _move(editor: Editor, pick: Pick) -> bool:
    """Compute the picked row alone from where that is possible; False where nothing would be saved."""
    from torch.fx.node import map_arg

    rows = _through(editor, pick)
    if all(row.cheap for row in rows.values()):
        return False
    computed: dict[Node, Node] = {}
    picked: dict[tuple[Node, int], Node] = {}

    def row_of_input(value: "Node", axis: int | None) -> "Node":
        if axis is None:
            return value
        if value in computed:
            return computed[value]
        if (value, axis) not in picked:
            picked[value, axis] = pick.row(editor, value, axis)
        return picked[value, axis]

    with editor.graph.inserting_before(pick.node):
        for node in [node for node in editor.graph.nodes if node in rows]:
            needs = rows[node].needs
            args = map_arg(rows[node].args, lambda value, needs=needs: row_of_input(value, needs[value]))
            computed[node] = editor.call(rows[node].operation, *args, **node.kwargs)
        row = editor.reshape(computed[pick.value], editor.shape(pick.node))
    pick.node.replace_all_uses_with(row)
    return True


def _through(editor: Editor, pick: Pick) -> "dict[Node, Row]":
    """Return how the row of each value is computed that nothing but the picked row is wanted of."""
    wanted: dict[Node, int] = {pick.value: pick.axis}
    rows: dict[Node, Row] = {}
    whole = editor.constants()  # one row of each is picked, and not of all that it is computed from
    for node in reversed(editor.graph.nodes):
        if node not in wanted or node in whole:
            continue
        alone = all(user in rows or user is pick.reader for user in node.users)
        row = row_of(editor, node, wanted[node]) if alone else None
        if row is None:
            continue
        rows[node] = row
        for value, axis in row.needs.items():
            if axis is None or wanted.get(value, axis) != axis:
                whole.add(value)
            else:
                wanted[value] = axis
    return rows


PASS = Pass(
    "select_early",
    "pick the last click's row as early as the graph allows",
    EVERY_FORM,
    select_early,
)
