"""The pass `unroll`: the layers of a GRU, written step by step.

    r, z = sigmoid(W_rz x + c_rz + U_rz h + b_rz)
    n    = tanh(W_n x + c_n + r (U_n h + b_n))
    h'   = n + z (h - n)

The products with x are those of all steps at once. Those with h are left out of the first step where the state before
it is zero, as it is where a model gives none. For a target without an operation for a GRU that reads weights from a
torch.export graph: Core ML's converter refuses it, and XNNPACK and LiteRT get it written out by torch, which cuts each
step's gates out by operations that XNNPACK leaves its delegate for.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.graph.editing import Editor
from exporter.graph.formulas import name
from exporter.graph.rewriting import EVERY_FORM, Pass

if TYPE_CHECKING:
    from torch.fx import Node


@dataclass(frozen=True)
class _Part:
    """W x + bias for some gates: a matrix [gates * H, width] and a bias or None, both nodes."""

    weight: "Node"
    bias: "Node | None"

    def of(self, editor: Editor, x: "Node") -> "Node":
        """Add the product for rows x [..., width]."""
        import torch

        return editor.call(torch.ops.aten.linear.default, x, self.weight, self.bias)


def unroll(editor: Editor) -> int:
    """Write out each GRU; return how many."""
    found = [node for node in editor.graph.nodes if name(node) == "gru.input" and not _drops(node)]
    for node in found:
        readers = list(node.users)
        with editor.graph.inserting_before(node):
            results = _layers(editor, node)
        for reader in readers:
            reader.replace_all_uses_with(results[reader.args[1]])
            editor.graph.erase_node(reader)
        editor.graph.erase_node(node)
    return len(found)


def _drops(node: "Node") -> bool:
    """Say whether a GRU has dropout, or is read by anything but a choice of one of its results."""
    *_, dropout, train, _bidirectional, _batch_first = node.args
    return bool(train and dropout) or any(user.target is not operator.getitem for user in node.users)


def _layers(editor: Editor, node: "Node") -> "tuple[Node, Node]":
    """Add all layers; return the states of the last one at all steps, and of all layers at the end."""
    import torch

    aten = torch.ops.aten
    x, initial, weights, biases, layers, _, _, bidirectional, batch_first = node.args
    steps, users = editor.shape(x)[:2]
    if batch_first:
        steps, users = users, steps
        x = _swapped(editor, x)
    rows = editor.reshape(x, [steps * users, editor.shape(x)[2]])  # of all users for the first step, then the next
    directions, each = 2 if bidirectional else 1, 4 if biases else 2
    last = []
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            at = layer * directions + direction
            gates = _gates(editor, weights[at * each : (at + 1) * each])
            state = None if _is_zero(editor, initial) else editor.call(aten.select.int, initial, 0, at)
            order = range(steps)[::-1] if direction else range(steps)
            states = _states(editor, rows, gates, state, [slice(t * users, (t + 1) * users) for t in order])
            last.append(states[-1])
            outputs.append(editor.call(aten.cat.default, states[::-1] if direction else states, 0))
        rows = outputs[0] if directions == 1 else editor.call(aten.cat.default, outputs, 1)
    output = editor.reshape(rows, [steps, users, editor.shape(rows)[1]])
    ends = editor.reshape(editor.call(aten.cat.default, last, 0), editor.shape(initial))
    return _swapped(editor, output) if batch_first else output, ends


def _gates(editor: Editor, weights: "Sequence[Node]") -> "tuple[_Part, _Part, _Part, _Part]":
    """Return the products with x for r and z and for n, and those with h."""
    import torch

    def cut(value: "Node", start: int, stop: int) -> "Node":
        width = editor.shape(value)[0] // 3
        return editor.call(torch.ops.aten.slice.Tensor, value, 0, start * width, stop * width)

    own = [*weights, None, None][:4]
    return tuple(  # type: ignore[return-value]
        _Part(cut(weight, *gates), None if bias is None else cut(bias, *gates))
        for weight, bias in ((own[0], own[2]), (own[1], own[3]))
        for gates in ((0, 2), (2, 3))
    )


def _states(
    editor: Editor,
    rows: "Node",
    gates: "tuple[_Part, _Part, _Part, _Part]",
    state: "Node | None",
    places: "Sequence[slice]",
) -> "list[Node]":
    """Return the states [B, H] after the steps at these places of rows [N * B, width], from a state or from zero."""
    import torch

    aten, call = torch.ops.aten, editor.call
    both_x, new_x, both_h, new_h = gates
    both, new = both_x.of(editor, rows), new_x.of(editor, rows)
    width = editor.shape(new)[1]
    states = []
    for place in places:
        from_both, from_new = (call(aten.slice.Tensor, one, 0, place.start, place.stop) for one in (both, new))
        old = [part.bias if state is None else part.of(editor, state) for part in (both_h, new_h)]
        from_both = from_both if old[0] is None else call(aten.add.Tensor, from_both, old[0])
        opened = call(aten.sigmoid.default, from_both)
        update = call(aten.slice.Tensor, opened, 1, width, 2 * width)
        if old[1] is not None:
            kept = call(aten.mul.Tensor, call(aten.slice.Tensor, opened, 1, 0, width), old[1])
            from_new = call(aten.add.Tensor, from_new, kept)
        fresh = call(aten.tanh.default, from_new)
        if state is None:
            state = call(aten.sub.Tensor, fresh, call(aten.mul.Tensor, update, fresh))
        else:
            change = call(aten.mul.Tensor, update, call(aten.sub.Tensor, state, fresh))
            state = call(aten.add.Tensor, fresh, change)
        states.append(state)
    return states


def _is_zero(editor: Editor, initial: "Node") -> bool:
    """Say whether the state before the first step is zero."""
    if editor.is_constant(initial):
        return not bool(editor.value(initial).any())
    return name(initial) == "zeros.default"


def _swapped(editor: Editor, x: "Node") -> "Node":
    """Return x [A, B, D] as [B, A, D]."""
    import torch

    first, second, width = editor.shape(x)
    if 1 in (first, second):  # the numbers stay in order
        return editor.reshape(x, [second, first, width])
    return editor.call(torch.ops.aten.transpose.int, x, 0, 1)


PASS = Pass("unroll", "GRUs step by step", EVERY_FORM, unroll)
