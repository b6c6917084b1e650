"""Factors that several terms of a sum, or several factors of a product, have in common are applied once."""

from typing import TYPE_CHECKING

from exporter.graph.editing import Editor, replace
from exporter.graph.formulas import either, product
from exporter.graph.linear_maps import COPIED, MIXES, MOVED, affine

if TYPE_CHECKING:
    from torch.fx import Node

_SUMS = {"aten.add.Tensor": 1, "aten.sub.Tensor": -1}


def share_factor(editor: Editor, node: "Node") -> bool:
    """A Y + B Y is (A + B) Y, in a sum of any terms."""
    import torch

    aten = torch.ops.aten
    if str(node.target) not in _SUMS or [str(user.target) in _SUMS for user in node.users] == [True]:
        return False  # a term of another sum
    terms = _terms(editor, node)
    products: dict[Node, list[tuple[int, Node]]] = {}
    for sign, term in terms:
        if str(term.target) in MIXES and len(term.users) == 1 and editor.shape(term) == editor.shape(node):
            products.setdefault(term.args[1], []).append((sign, term))
    shared = [found for found in products.values() if len(found) > 1]
    if not shared:
        return False
    rest = [(sign, term) for sign, term in terms if not any((sign, term) in found for found in shared)]
    for found in shared:
        first = found[0][0]
        left = found[0][1].args[0]
        for sign, term in found[1:]:
            left = editor.call(aten.add.Tensor if sign == first else aten.sub.Tensor, left, term.args[0])
        rest.append((first, editor.call(found[0][1].target, left, found[0][1].args[1])))
    rest.sort(key=lambda term: -term[0])  # one that is added comes first, where there is one
    total = rest[0][1] if rest[0][0] > 0 else editor.call(aten.neg.default, rest[0][1])
    for sign, term in rest[1:]:
        total = editor.call(aten.add.Tensor if sign > 0 else aten.sub.Tensor, total, term)
    return replace(editor, node, total)


def _terms(editor: Editor, root: "Node") -> "list[tuple[int, Node]]":
    """Return the terms of a sum with their signs, all of its shape or broadcast to it; sums inside are taken apart."""
    terms: list[tuple[int, Node]] = []
    waiting = [(1, root)]
    while waiting:
        sign, node = waiting.pop()
        alone = node is root or len(node.users) == 1
        plain = str(node.target) in _SUMS and not node.kwargs and all(hasattr(one, "meta") for one in node.args)
        if alone and plain and editor.shape(node) == editor.shape(root):
            waiting += [(sign * _SUMS[str(node.target)], node.args[1]), (sign, node.args[0])]
        else:
            terms.append((sign, node))
    return terms


def share_product(editor: Editor, node: "Node") -> bool:
    """x P + P is (x + 1) P, where x P is computed as several products."""
    import torch

    aten = torch.ops.aten
    for large, small in either(node, "add.Tensor"):
        if not (hasattr(large, "meta") and hasattr(small, "meta")) or set(large.users) != {node}:
            continue
        if not editor.shape(large) == editor.shape(small) == editor.shape(node) or small in large.all_input_nodes:
            continue
        whole, part = product(large), product(small)
        if whole is None or part is None or whole.number != part.number:
            continue
        rest = {value: power - part.powers.get(value, 0.0) for value, power in whole.powers.items()}
        left = [value for value, power in rest.items() if power]
        if set(part.powers) <= {*whole.powers} and len(left) == 1 and rest[left[0]] == 1:
            return replace(
                editor, node, editor.call(aten.mul.Tensor, small, editor.call(aten.add.Tensor, left[0], 1.0))
            )
    return False


def merge_constants(editor: Editor, node: "Node") -> bool:
    """(x c) k is x (c k) for two constants, where c k is no larger than the larger of them."""
    import torch

    aten = torch.ops.aten
    for inner, outer in either(node, "mul.Tensor"):
        for x, constant in either(inner, "mul.Tensor"):
            if not (editor.is_constant(constant) and editor.is_constant(outer)) or not hasattr(x, "meta"):
                continue
            if set(inner.users) != {node} or editor.dtype(x) != editor.dtype(node):
                continue
            both = editor.value(constant) * editor.value(outer)
            if both.numel() <= max(editor.value(constant).numel(), editor.value(outer).numel()):
                return replace(editor, node, editor.call(aten.mul.Tensor, x, editor.constant(both)))
    return False


def scale_constant(editor: Editor, node: "Node") -> bool:
    """(k x) c is x (k c) for a number k, and a constant c that is small, also where axes of k x are moved."""
    import torch

    for value, constant in either(node, "mul.Tensor"):
        if not editor.is_constant(constant) or editor.value(constant).nbytes > COPIED or not hasattr(value, "meta"):
            continue
        reader, at = node, value
        while set(at.users) == {reader} and str(at.target) in MOVED:
            reader, at = at, at.args[0]
        found = affine(editor, at) if set(at.users) == {reader} else None
        if found is None or found.gain is None or found.gain.numel() > 1:
            continue
        if reader is node:
            value = found.value
        else:
            reader.replace_input_with(at, found.value)
        scaled = editor.constant(editor.value(constant) * found.gain.reshape(()))
        return replace(editor, node, editor.call(torch.ops.aten.mul.Tensor, value, scaled))
    return False
