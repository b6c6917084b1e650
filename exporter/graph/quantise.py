"""Tables of embeddings in fewer bits: rows quantised by themselves, and computed back after they are looked up.

For a table T [V, D] of which a graph only looks rows up, T[ids] becomes dequantise(Q[ids]) * s[ids]: Q holds whole
numbers in int8, s [V, 1] a scale for each row. Nothing computes more rows than are asked for.

- int8: s = max |x| / 127 of the row, q = round(x / s).
- int4: two numbers in one byte, q in -7..7, byte = 16 hi + lo + 8, where lo is of the first half of the row and hi of
  the second. s is the one of 26 between max |x| / 14 and max |x| / 7 with the smallest squared error: to cut the
  largest numbers of a row costs less than to store all others coarsely.
- fp16: x rounded to 16 bits, and no scale.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from exporter.core.errors import BadInputError
from exporter.core.precision import Tables
from exporter.core.types import StoredTable
from exporter.graph.editing import Editor
from exporter.graph.rewriting import EVERY_FORM, Pass
from exporter.graph.row_tables import LOOKUP
from exporter.graph.rowwise import ELEMENTWISE, MOVES

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import Node

STORED = "stored_tables"
"""The key of a graph's `meta` with a StoredTable for each table that it stores in fewer bits."""

_KEEP_IDS = {
    *(ELEMENTWISE | MOVES),
    *(LOOKUP, "aten.index.Tensor", "aten.index_select.default", "aten.gather.default", "aten.cat.default"),
    *("aten.select.int", "aten.slice.Tensor", "aten.narrow.default", "aten.expand.default", "aten.transpose.int"),
}
"""Operations between an id that comes in and a lookup: they give one for one, or some of them."""
_SHARE = 64
"""A table with less than one of so many bytes of constants stays: what it saves does not show, and it costs time."""
_AT_ONCE = 1 << 16
"""Rows that are quantised at once: for each scale that is tried, all of them are computed."""
_INT8_MOST, _INT4_MOST = 127, 7
_CLIPS = 26


@dataclass(frozen=True)
class Stored:
    """Rows [n, D] in their stored form: as they are looked up, their scales [n, 1] or None, and rows [n, D] again."""

    rows: "Tensor"
    scales: "Tensor | None"
    restored: "Tensor"


def quantise(editor: Editor, tables: Tables) -> int:
    """Store the tables of a graph in fewer bits; return how many. Raises BadInputError for one that cannot be.

    A table that something reads but a lookup stays as it is, as each call would compute all of it back; and so does one
    whose rows are looked up by what the graph counts, such as a number of clicks: its columns are no embedding, and may
    be masks and angles side by side. What each is then stands in the graph's `meta[STORED]`.
    """
    import torch

    stored = []
    for table, lookups in _tables(editor):
        value = editor.value(table)
        parts, error, size = [], 0.0, 0.0
        for at, some in enumerate(value.split(_AT_ONCE)):
            part = FORMS[tables](some)
            if not part.restored.isfinite().all():
                row = at * _AT_ONCE + int((~part.restored.isfinite()).any(-1).nonzero()[0])
                raise BadInputError(_unfit(editor, table, row, tables))
            error += float(((part.restored - some).double() ** 2).sum())
            size += float((some.double() ** 2).sum())
            parts.append((part.rows,) if part.scales is None else (part.rows, part.scales))
        with editor.graph.inserting_before(table):
            constants = [editor.constant(torch.cat(pieces)) for pieces in zip(*parts, strict=True)]
        for lookup in lookups:
            with editor.graph.inserting_before(lookup):
                lookup.replace_all_uses_with(_looked_up(editor, tables, lookup, constants))
        kept = sum(editor.value(node).nbytes for node in constants)
        count, width = value.shape
        stored.append(
            StoredTable(count, width, len(lookups), value.nbytes, kept, (error / size) ** 0.5 if size else 0.0)
        )
        editor.remove_unused()
    editor.graph_module.meta[STORED] = tuple(stored)
    return len(stored)


def restored(tables: Tables, table: "Tensor") -> "Tensor":
    """Return the rows of a table [V, D] as they are computed back after they were stored in fewer bits.

    In fp16 it may be any constant.
    """
    import torch

    if tables == "fp16":
        return _in_half(table).restored
    return torch.cat([FORMS[tables](some).restored for some in table.split(_AT_ONCE)])


def table_names(editor: Editor) -> set[str]:
    """Return the names of the constants that `quantise` would store in fewer bits."""
    return {str(node.target) for node, _ in _tables(editor)}


def _unfit(editor: Editor, table: "Node", row: int, tables: Tables) -> str:
    """Say what is wrong with a row of a table that is not stored in fewer bits, and what to do."""
    value = editor.value(table)
    words = f"the table {table.target} {list(value.shape)}"
    if not value[row].isfinite().all():
        return f"{words} has NaN or infinite values in row {row}, which nothing can be stored for; mend the weights"
    return f"{words} has a value in row {row} that {tables} cannot hold; choose another --precision"


def _tables(editor: Editor) -> "list[tuple[Node, list[Node]]]":
    """Return the constants that are quantised, each once, with the lookups that read them."""
    import torch

    constants: dict[int, list[Node]] = {}
    for node in editor.graph.find_nodes(op="get_attr"):
        if editor.is_constant(node):
            constants.setdefault(editor.value(node).data_ptr(), []).append(node)
    least = sum(editor.value(nodes[0]).nbytes for nodes in constants.values()) / _SHARE
    found = []
    for nodes in constants.values():
        readers = [reader for reader in editor.graph.nodes if any(node in reader.all_input_nodes for node in nodes)]
        only_looked_up = all(
            str(reader.target) == LOOKUP and reader.args[0] in nodes and _come_in(editor, reader.args[1])
            for reader in readers
        )
        value = editor.value(nodes[0])
        if readers and only_looked_up and value.dtype == torch.float32 and value.ndim == 2 and value.nbytes >= least:
            found.append((nodes[0], readers))
    return found


def _come_in(editor: Editor, ids: "Node") -> bool:
    """Say whether ids are those of an input, moved or chosen, or what tables of whole numbers have for those."""
    import torch

    waiting, seen = [ids], {ids}
    while waiting:
        node = waiting.pop()
        whole = editor.is_tensor(node) and not editor.dtype(node).is_floating_point and editor.dtype(node) != torch.bool
        if node.op == "placeholder" and whole:
            return True
        if node.op == "call_function" and whole and str(node.target) in _KEEP_IDS:
            read = set(node.all_input_nodes) - seen
            waiting += read
            seen |= read
    return False


def _looked_up(editor: Editor, tables: Tables, lookup: "Node", constants: "list[Node]") -> "Node":
    """Add the operations that look rows [*ids, D] up, and their scales, and compute them back."""
    import torch

    aten, ids = torch.ops.aten, lookup.args[1]
    rows, *scales = (editor.call(aten.embedding.default, constant, ids) for constant in constants)
    numbers = editor.call(aten.to.dtype, rows, torch.float32)
    if not scales:
        return numbers
    if tables == "int4":
        axis = len(editor.shape(lookup)) - 1
        high = editor.call(aten.floor.default, editor.call(aten.mul.Tensor, numbers, 1 / 16))
        low = editor.call(aten.sub.Tensor, numbers, editor.call(aten.mul.Tensor, high, 16.0))
        numbers = editor.call(aten.cat.default, [editor.call(aten.sub.Tensor, low, 8.0), high], axis)
        width = editor.shape(lookup)[axis]
        if editor.shape(numbers)[axis] > width:
            numbers = editor.call(aten.slice.Tensor, numbers, axis, 0, width)
    return editor.call(aten.mul.Tensor, numbers, *scales)


def _in_half(rows: "Tensor") -> Stored:
    half = rows.half()
    return Stored(half, None, half.float())


def _in_int8(rows: "Tensor") -> Stored:
    import torch

    scales = _scales(rows, _INT8_MOST)
    numbers = _rounded(rows, scales, _INT8_MOST)
    return Stored(numbers.to(torch.int8), scales, numbers * scales)


def _in_int4(rows: "Tensor") -> Stored:
    import torch

    widest = _scales(rows, _INT4_MOST)
    scales, least = widest, torch.full_like(widest, torch.inf, dtype=torch.float64)
    for clip in torch.linspace(0.5, 1.0, _CLIPS).tolist():
        tried = (widest * clip).clamp_min(torch.finfo(torch.float32).tiny)
        # in float64, as the square of a number that fp32 holds may be beyond it
        error = ((_rounded(rows, tried, _INT4_MOST) * tried - rows).double() ** 2).sum(-1, keepdim=True)
        scales, least = torch.where(error < least, tried, scales), torch.minimum(error, least)
    numbers = _rounded(rows, scales, _INT4_MOST)
    padded = torch.nn.functional.pad(numbers, (0, numbers.shape[1] % 2))
    low, high = padded.chunk(2, -1)
    return Stored((16 * high + low + 8).to(torch.int8), scales, numbers * scales)


def _scales(rows: "Tensor", most: int) -> "Tensor":
    """Return the scales [V, 1] at which the largest number of each row is `most`; 1 for a row of zeros."""
    import torch

    largest = rows.abs().amax(-1, keepdim=True)
    return torch.where(largest > 0, (largest / most).clamp_min(torch.finfo(torch.float32).tiny), 1.0)


def _rounded(rows: "Tensor", scales: "Tensor", most: int) -> "Tensor":
    return (rows / scales).round().clamp(-most, most)


FORMS: "Mapping[Tables, Callable[[Tensor], Stored]]" = {"fp16": _in_half, "int8": _in_int8, "int4": _in_int4}
"""How rows [n, D] are stored, by the name of the form."""


QUANTISE: Mapping[Tables, Pass] = {
    tables: Pass(
        f"{tables} tables", f"rows of tables are stored in {tables}", EVERY_FORM, partial(quantise, tables=tables)
    )
    for tables in FORMS
}
"""A pass for each way to store tables; a scheme asks for it, and it changes what comes out."""
