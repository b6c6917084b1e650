"""The pass `simplify`: the same values with fewer operations.

- einsum is a matrix product, tril and triu are products with a mask, and cat of one value is that value
  (`exporter/graph/canonical.py`).
- Two equal operations on equal values are one.
- An id outside [0, V) that is looked up as row 0, where(0 <= i and i < V, i, 0), is clamp(i, 0, V) on the table with a
  copy of row 0 behind its V rows: one comparison with each bound and nothing else.
- What has one user has that axis nowhere (`exporter/graph/axes.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.graph import axes, canonical
from exporter.graph.editing import Editor
from exporter.graph.formulas import name
from exporter.graph.rewriting import EVERY_FORM, Pass

if TYPE_CHECKING:
    from torch.fx import Node

_ANDS = frozenset({"logical_and.default", "bitwise_and.Tensor", "__and__.Tensor"})
_ZEROS = frozenset({"zeros_like.default", "zeros.default"})


def simplify(editor: Editor) -> int:
    """Rewrite all of these; return at how many places."""
    return canonical.plain_forms(editor) + _share(editor) + _clamp(editor) + axes.drop(editor)


def _share(editor: Editor) -> int:
    """Let all users of equal operations read the first one."""
    first: dict[Any, Node] = {}
    shared = 0
    for node in list(editor.graph.nodes):
        if node.op not in ("call_function", "get_attr") or (node.op == "call_function" and not editor.is_plain(node)):
            continue
        key = _key(node.target), _key(node.args), _key(node.kwargs)
        if key in first:
            node.replace_all_uses_with(first[key])
            editor.graph.erase_node(node)
            shared += node.op == "call_function"
        else:
            first[key] = node
    return shared


def _key(value: Any) -> Any:
    """Return what two arguments have in common that are the same; 1, 1.0 and True are three."""
    if isinstance(value, list | tuple):
        return tuple(map(_key, value))
    if isinstance(value, dict):
        return tuple((name, _key(inner)) for name, inner in sorted(value.items()))
    return type(value).__name__, repr(value) if isinstance(value, float | slice) else value


@dataclass(frozen=True)
class _Guard:
    """embedding(table, where(0 <= ids < V, ids, 0)): its node, and where the ids and the table come from."""

    node: "Node"
    table: "Node"
    ids: "Node"


def _clamp(editor: Editor) -> int:
    """Clamp ids where they are compared with both bounds and replaced, if their table is read in no other way."""
    import torch

    aten = torch.ops.aten
    guards = list(_guards(editor))
    guarded = {guard.node for guard in guards}
    longer: dict[Node, Node] = {}
    for guard in guards:
        if not editor.readers(guard.table) <= guarded:
            continue
        if guard.table not in longer:
            with editor.graph.inserting_before(guard.table):
                rows = editor.value(guard.table)
                longer[guard.table] = editor.constant(torch.cat([rows, rows[:1]]))
        with editor.graph.inserting_before(guard.node):
            ids = editor.call(aten.clamp.default, guard.ids, 0, editor.shape(guard.table)[0])
            guard.node.replace_all_uses_with(editor.call(aten.embedding.default, longer[guard.table], ids))
    return sum(guard.table in longer for guard in guards)


def _guards(editor: Editor) -> Iterator[_Guard]:
    """Find the lookups of guarded ids."""
    for node in editor.graph.nodes:
        if name(node) != "embedding.default":
            continue
        table, where = node.args[:2]
        if not editor.is_constant(table) or name(where) not in _WHERES:
            continue
        condition, ids, other = where.args
        within = name(condition) in _ANDS and set(map(_bound, condition.args))
        rows = editor.shape(table)[0]
        if within == {(ids, "ge.Scalar", 0), (ids, "lt.Scalar", rows)} and _is_zero(other):
            yield _Guard(node, table, ids)


def _bound(node: Any) -> tuple[Any, str, Any]:
    """Return what a comparison with a number compares, how, and with what."""
    return (node.args[0], name(node), node.args[1]) if name(node) in _COMPARISONS else (node, "", None)


def _is_zero(value: Any) -> bool:
    return value == 0 if isinstance(value, int) else name(value) in _ZEROS


_WHERES = frozenset({"where.self", "where.ScalarOther"})
_COMPARISONS = frozenset({"ge.Scalar", "lt.Scalar"})

PASS = Pass(
    "simplify",
    "equal operations once, guards of ids as a clamp, no axes of one",
    EVERY_FORM,
    simplify,
)
