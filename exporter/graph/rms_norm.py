"""The pass `rms_norm`: norms that ONNX Runtime alone has a kernel for, however they are written.

    RMS norm    x / sqrt(mean(x^2) + eps) * gain, and what equals it, such as
                x / sqrt(sum(x^2) + D eps) * (gain * sqrt(D))
    layer norm  y = (x - mean(x)) r with r = 1 / sqrt(mean((x - mean(x))^2) + eps), where other values read r, as the
                gradient of a norm does: the kernel gives both

Found as in `recognise`, and with the same caution.
"""

import operator
from functools import partial
from typing import TYPE_CHECKING

from exporter.graph.canonical import roots_as_factors
from exporter.graph.editing import Editor
from exporter.graph.formulas import is_close
from exporter.graph.norms import Norm, inverse_root, norm_of
from exporter.graph.rewriting import Pass
from exporter.graph.sweeping import Found, behind, sweep, uncast

if TYPE_CHECKING:
    from torch.fx import Node


def rms_norm(editor: Editor) -> int:
    """Put one operation in place of each such norm; return of how many."""
    return uncast(editor) + roots_as_factors(editor) + _with_roots(editor) + sweep(editor, (_rms_norm,))


def _rms_norm(editor: Editor, node: "Node", fixed: "set[Node]") -> Found | None:
    import torch

    norm = norm_of(editor, node, fixed)
    if norm is None or norm.centred:
        return None
    call = torch.ops.aten.rms_norm.default
    return Found((norm.x,), lambda: editor.call(call, norm.x, [*norm.shape], norm.weight(editor), norm.eps))


def _with_roots(editor: Editor) -> int:
    """Replace the layer norms of which others read the inverse root, and that root."""
    import torch

    fixed, places = editor.constants(), 0
    for node in list(editor.graph.nodes):
        is_float = editor.is_tensor(node) and editor.dtype(node) == torch.float32
        norm = norm_of(editor, node, fixed) if is_float and node.users and node not in fixed else None
        roots = None if norm is None else _read_roots(editor, node, norm, fixed)
        if not roots or norm is None:
            continue
        with editor.graph.inserting_before(min(roots)):
            whole = editor.call(torch.ops.aten.native_layer_norm.default, norm.x, [*norm.shape], None, None, norm.eps)
            item = partial(editor.call, operator.getitem, whole)
            root = item(2)
            for one, number in roots.items():
                scaled = root if is_close(number, 1) else editor.call(torch.ops.aten.mul.Tensor, root, number)
                one.replace_all_uses_with(scaled)
            node.replace_all_uses_with(item(0))
        editor.remove_unused()
        places += 1
    return places


def _read_roots(editor: Editor, node: "Node", norm: Norm, fixed: "set[Node]") -> "dict[Node, float] | None":
    """Return the inverse roots of a plain layer norm with their factors, if others read them and nothing else of it."""
    if not norm.centred or norm.gains or norm.bias is not None or not is_close(norm.factor, 1):
        return None
    inside = behind(node, {norm.x, *fixed})
    roots = {}
    for one in inside - {node}:
        found = inverse_root(editor, one)
        if found is not None and found[0].x is norm.x and found[0].centred:
            roots[one] = found[1] * found[0].factor ** -0.5
    outside = {one for one in inside - {node} if any(user not in inside for user in one.users)}
    return roots if outside and outside <= {*roots} else None


PASS = Pass(
    "rms_norm",
    "RMS norms, and layer norms whose root is read, as one operation",
    frozenset({"captured"}),
    rms_norm,
)
