"""What is linear moves into the constant matrices beside it, rule by rule, until no rule finds a place."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from exporter.graph.editing import Editor
from exporter.graph.linear_maps import Affine, Map, affine, along_last, map_of
from exporter.graph.rowwise import RESHAPES

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import Node

_MOVED = RESHAPES | {"aten.transpose.int", "aten.permute.default"}
_MIXES = frozenset({"aten.bmm.default", "aten.mm.default"})
_SUMS = {"aten.add.Tensor": 1, "aten.sub.Tensor": -1}


def move(editor: Editor) -> int:
    """Move all that is linear; return how often."""
    moved = 0
    while found := sum(_places(editor, rule) for rule in _RULES):
        moved += found
    return moved


def _places(editor: Editor, rule: "Callable[[Editor, Node], bool]") -> int:
    """Let a rule rewrite the operations of a graph that are read; return at how many places it did."""
    found = 0
    for node in list(editor.graph.nodes):
        if node.op == "call_function" and node.users and editor.is_tensor(node):
            with editor.graph.inserting_before(node):
                applied = rule(editor, node)
            if applied:
                editor.remove_unused()  # who reads a value decides what may be moved
                found += 1
    return found


def _replace(editor: Editor, node: "Node", other: "Node") -> bool:
    """Let another node be read in place of one."""
    node.replace_all_uses_with(editor.reshape(other, editor.shape(node)))
    return True


def _as_product(editor: Editor, node: "Node") -> bool:
    """sum(x c) along the last axis is a product with one column."""
    import torch

    if str(node.target) != "aten.sum.dim_IntList" or node.kwargs:
        return False
    term, axes = node.args[:2]
    if str(term.target) != "aten.mul.Tensor" or set(term.users) != {node}:
        return False
    if [axis % len(editor.shape(term)) for axis in axes] != [len(editor.shape(term)) - 1]:
        return False
    for x, other in (term.args, tuple(reversed(term.args))):
        column = along_last(editor, x, other) if hasattr(x, "meta") else None
        if column is not None and column.numel() > 1 and editor.shape(x) == editor.shape(term):
            return _replace(editor, node, editor.call(torch.ops.aten.linear.default, x, editor.constant(column[None])))
    return False


def _into_readers(editor: Editor, node: "Node") -> bool:
    """A gain or a shift moves into the matrices of all that read it."""
    found = affine(editor, node)
    maps = None if found is None else _readers(editor, node, found.shift is not None)
    if found is None or maps is None:
        return False
    _move_into(editor, maps, found)
    return True


def _affine_of_norm(editor: Editor, node: "Node") -> bool:
    """Gain and shift of a layer norm move into the matrices of all that read it.

    Not those of an RMS norm: ONNX Runtime has one kernel for it with a gain, and five without.
    """
    if str(node.target) != "aten.layer_norm.default" or len(node.args) < 3 or node.args[2] is None:
        return False
    x, normalised, gain, *others = node.args
    shift, *rest = others or [None]
    maps = _readers(editor, node, True)
    fixed = all(map(editor.is_constant, [gain] if shift is None else [gain, shift]))
    if maps is None or not fixed or len(normalised) > 1:
        return False
    plain = editor.call(node.target, x, normalised, None, None, *rest)
    _move_into(editor, maps, Affine(plain, editor.value(gain), None if shift is None else editor.value(shift)))
    return True


def _move_into(editor: Editor, maps: list[Map], found: Affine) -> None:
    """Let products read a value without its gain and shift, which are in their constants then."""
    for one in maps:
        constants = one.of_affine(found.gain, found.shift)
        with editor.graph.inserting_before(one.node):
            one.node.replace_all_uses_with(one.with_constants(editor, found.value, *constants))


def _readers(editor: Editor, node: "Node", with_bias: bool) -> list[Map] | None:
    """Return the products that read a value, if all that do are ones with constants, and can have a bias."""
    maps = [map_of(editor, user) for user in node.users]
    known = [one for one in maps if one is not None and one.x is node and (one.matrix.dim() == 2 or not with_bias)]
    return known if known and len(known) == len(maps) else None


def _into_product(editor: Editor, node: "Node") -> bool:
    """A gain or a shift moves into the product before it."""
    found = affine(editor, node)
    if found is None or set(found.value.users) != {node}:
        return False
    one = map_of(editor, found.value)
    if one is None or (found.shift is not None and one.matrix.dim() > 2):
        return False
    return _replace(editor, node, one.with_constants(editor, one.x, *one.made_affine(found.gain, found.shift)))


def _scale(editor: Editor, node: "Node") -> bool:
    """A number moves through moved axes and products of two values into the product with a constant before them."""
    found = affine(editor, node)
    if found is None or found.gain is None or found.gain.numel() > 1:
        return False
    reader, at = node, found.value
    while set(at.users) == {reader}:
        one = map_of(editor, at)
        if one is not None:
            with editor.graph.inserting_before(at):
                scaled = one.with_constants(editor, one.x, *one.made_affine(found.gain, None))
            at.replace_all_uses_with(scaled)
            return _replace(editor, node, scaled if at is found.value else found.value)
        if str(at.target) not in _MOVED | _MIXES:
            return False
        reader, at = at, at.args[0]
    return False


def _centre(editor: Editor, node: "Node") -> bool:
    """y - mean(y) of a product, with constants that may be added to it, is a product with centred constants."""
    import torch

    if str(node.target) != "aten.sub.Tensor" or node.kwargs or not hasattr(node.args[1], "meta"):
        return False
    y, mean = node.args
    if not hasattr(y, "meta") or str(mean.target) != "aten.mean.dim" or mean.args[0] is not y:
        return False
    rank = len(editor.shape(y))
    along = [axis % rank for axis in mean.args[1]] == [rank - 1] and mean.args[2:] == (True,)
    if not along or set(y.users) != {node, mean} or set(mean.users) != {node}:
        return False
    added = None
    if str(y.target) == "aten.add.Tensor" and not y.kwargs:
        for product, other in (y.args, tuple(reversed(y.args))):
            if editor.is_constant(other):
                y, added = product, editor.value(other)
                break
        if added is None or set(y.users) != {node.args[0]} or added.shape[-1:] != editor.shape(node)[-1:]:
            return False
    one = map_of(editor, y)
    if one is None or editor.shape(y) != editor.shape(node):
        return False

    def centred(values: "Tensor") -> "Tensor":
        return values - values.mean(-1, keepdim=True)

    bias = None if one.bias is None else centred(one.bias)
    product = one.with_constants(editor, one.x, centred(one.matrix), bias)
    if added is not None:
        product = editor.call(torch.ops.aten.add.Tensor, product, editor.constant(centred(added)))
    return _replace(editor, node, product)


def _compose(editor: Editor, node: "Node") -> bool:
    """Products of a product are products of what that one reads, where they are fewer multiplications."""
    inner, outer = map_of(editor, node), _readers(editor, node, True)
    if inner is None or outer is None or inner.matrix.dim() > 2:
        return False
    into, middle = inner.matrix.shape
    ends = sum(one.matrix.shape[1] for one in outer)
    if into * ends > middle * (into + ends):
        return False
    for one in outer:
        _, bias = one.of_affine(None, inner.bias)
        with editor.graph.inserting_before(one.node):
            made = one.with_constants(editor, inner.x, inner.matrix @ one.matrix, bias)
        one.node.replace_all_uses_with(made)
    return True


def _reassociate(editor: Editor, node: "Node") -> bool:
    """(x W + b) y is x (W y) + b y for one column y: the matrix is applied once, and not to every row of x."""
    import torch

    aten = torch.ops.aten
    if str(node.target) != "aten.mm.default":
        return False
    left, column = node.args
    one = map_of(editor, left)
    if one is None or set(left.users) != {node} or editor.shape(column)[1] > 1 or column.op == "get_attr":
        return False
    rows, (into, out) = editor.shape(one.x)[0], one.matrix.shape
    if len(editor.shape(one.x)) != 2 or into * out + rows * into >= rows * into * out + rows * out:
        return False
    row = editor.reshape(column, [1, out])
    through = editor.call(aten.linear.default, row, editor.constant(one.matrix))
    product = editor.call(aten.mm.default, one.x, editor.reshape(through, [into, 1]))
    if one.bias is not None:
        shifted = editor.call(aten.linear.default, row, editor.constant(one.bias[None]))
        product = editor.call(aten.add.Tensor, product, shifted)
    return _replace(editor, node, product)


def _share_factor(editor: Editor, node: "Node") -> bool:
    """A Y + B Y is (A + B) Y, in a sum of any terms."""
    import torch

    aten = torch.ops.aten
    if str(node.target) not in _SUMS or [str(user.target) in _SUMS for user in node.users] == [True]:
        return False  # a term of another sum
    terms = _terms(editor, node)
    products: dict[Node, list[tuple[int, Node]]] = {}
    for sign, term in terms:
        if str(term.target) in _MIXES and len(term.users) == 1 and editor.shape(term) == editor.shape(node):
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
    return _replace(editor, node, total)


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


_RULES = (
    _as_product,
    _affine_of_norm,
    _into_readers,
    _into_product,
    _scale,
    _centre,
    _compose,
    _reassociate,
    _share_factor,
)
