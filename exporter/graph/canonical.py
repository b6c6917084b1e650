"""Operations with a plainer form: sums over letters, triangles, one joined value, variances, quotients by roots."""

import math
from typing import TYPE_CHECKING

from exporter.graph.editing import Editor
from exporter.graph.formulas import operands

if TYPE_CHECKING:
    from torch.fx import Node

_LARGEST_MASK = 1 << 20


def plain_forms(editor: Editor) -> int:
    """Put plainer operations in place of others; return of how many."""
    found = roots_as_factors(editor)
    for node in list(editor.graph.nodes):
        rule = _RULES.get(str(node.target)) if node.op == "call_function" else None
        if rule is None:
            continue
        with editor.graph.inserting_before(node):
            plain = rule(editor, node)
        if plain is not None:
            node.replace_all_uses_with(plain)
            found += 1
    return found


def _one_joined(_editor: Editor, node: "Node") -> "Node | None":
    """cat([x]) is x."""
    (only, *others), *_ = node.args
    return None if others else only


def _masked(editor: Editor, node: "Node") -> "Node | None":
    """tril(x) and triu(x) are products with a triangle of ones."""
    import torch

    rows, columns = editor.shape(node)[-2:]
    if rows * columns > _LARGEST_MASK or not editor.dtype(node).is_floating_point:
        return None
    ones = torch.ones(rows, columns, dtype=editor.dtype(node))
    mask = editor.shared_constant(node.target(ones, *node.args[1:], **node.kwargs))
    return editor.call(torch.ops.aten.mul.Tensor, node.args[0], mask)


def _einsum(editor: Editor, node: "Node") -> "Node | None":
    """A sum over letters of two values is a matrix product, whose batch are the letters that both and the result have.

    Without a letter that is summed over it is a product of numbers. None for any other: of more values, with a letter
    twice in one, or one in a single value that is summed over.
    """
    import torch

    aten = torch.ops.aten
    equation, values = node.args[0].replace(" ", ""), node.args[1]
    inputs, arrow, result = equation.partition("->")
    letters = inputs.split(",")
    if (
        not arrow
        or len(values) != 2
        or "." in equation
        or any(len(set(part)) < len(part) for part in (*letters, result))
    ):
        return None
    left, right = letters
    batch = [letter for letter in left if letter in right and letter in result]
    inner = [letter for letter in left if letter in right and letter not in result]
    rows = [letter for letter in left if letter not in right]
    columns = [letter for letter in right if letter not in left]
    if not {*rows, *columns} <= {*result}:
        return None
    extent = dict(zip(left, editor.shape(values[0]), strict=True))
    other = dict(zip(right, editor.shape(values[1]), strict=True))
    if any(extent.get(letter, size) != size for letter, size in other.items()):
        return None  # one of them is repeated along an axis
    extent |= other
    sizes = [[extent[letter] for letter in group] for group in (batch, rows, inner, columns)]
    b, m, k, n = (math.prod(group) for group in sizes)
    operands = []
    for part, value, order, shape in (
        (left, values[0], [*batch, *rows, *inner], [b, m, k]),
        (right, values[1], [*batch, *inner, *columns], [b, k, n]),
    ):
        operands.append(editor.reshape(_in_order(editor, value, part, order), shape))
    multiply = aten.bmm.default if inner else aten.mul.Tensor
    product = editor.reshape(editor.call(multiply, *operands), [*sizes[0], *sizes[1], *sizes[3]])
    return _in_order(editor, product, "".join((*batch, *rows, *columns)), [*result])


def _in_order(editor: Editor, value: "Node", letters: str, order: list[str]) -> "Node":
    """Return a value, whose axes are `letters`, with its axes in another order."""
    import torch

    axes = [letters.index(letter) for letter in order]
    return value if axes == sorted(axes) else editor.call(torch.ops.aten.permute.default, value, axes)


def _variance(editor: Editor, node: "Node") -> "Node | None":
    """var(x) is mean(c^2) with c = x - mean(x), where that is computed as well: x is centred once then."""
    import torch

    aten = torch.ops.aten
    x, axes, *rest = node.args
    if node.kwargs or rest != [False, True] or not any(_is_centred(user, x, axes) for user in x.users):
        return None
    centred = editor.call(aten.sub.Tensor, x, editor.call(aten.mean.dim, x, axes, True))
    return editor.call(aten.mean.dim, editor.call(aten.mul.Tensor, centred, centred), axes, True)


def _is_centred(value: "Node", x: "Node", axes: "list[int]") -> bool:
    args = operands(value, "sub.Tensor")
    return args is not None and args[0] is x and operands(args[1], "mean.dim") == (x, axes, True)


def roots_as_factors(editor: Editor) -> int:
    """Put x * rsqrt(v) in place of x / sqrt(v), with one root for all that are divided by it; return of how many."""
    import torch

    aten = torch.ops.aten
    roots: dict[Node, Node] = {}
    places = 0
    for node in list(editor.graph.nodes):
        args = operands(node, "div.Tensor")
        inside = None if args is None else operands(args[1], "sqrt.default")
        if args is None or inside is None or not hasattr(args[0], "meta"):
            continue
        if args[1] not in roots:
            with editor.graph.inserting_before(args[1]):
                roots[args[1]] = editor.call(aten.rsqrt.default, *inside)
        with editor.graph.inserting_before(node):
            node.replace_all_uses_with(editor.call(aten.mul.Tensor, args[0], roots[args[1]]))
        places += 1
    editor.remove_unused()
    return places


_RULES = {
    "aten.cat.default": _one_joined,
    "aten.tril.default": _masked,
    "aten.triu.default": _masked,
    "aten.einsum.default": _einsum,
    "aten.var.dim": _variance,
}
