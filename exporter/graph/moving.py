"""What is linear moves into the constant matrices beside it, rule by rule, until no rule finds a place."""

import itertools
import operator
from typing import TYPE_CHECKING

from exporter.graph import factors, vanishing
from exporter.graph.editing import Editor, replace, rewrite_each
from exporter.graph.formulas import operands, slice_of
from exporter.graph.linear_maps import MIXES, MOVED, Affine, Map, affine, along_last, map_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import Node


def move(editor: Editor) -> int:
    """Move all that is linear; return how often."""
    moved = 0
    while found := sum(rewrite_each(editor, rule) for rule in _RULES):
        moved += found
    return moved


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
            return replace(editor, node, editor.call(torch.ops.aten.linear.default, x, editor.constant(column[None])))
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
    return replace(editor, node, one.with_constants(editor, one.x, *one.made_affine(found.gain, found.shift)))


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
            return replace(editor, node, scaled if at is found.value else found.value)
        if str(at.target) not in MOVED | MIXES:
            return False
        reader, at = at, at.args[0]
    return False


def _centre(editor: Editor, node: "Node") -> bool:
    """y - mean(y) of a product, with constants that may be added to it, is a product with centred constants."""
    import torch

    y = vanishing.centred(editor, node)
    if y is None:
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
    return replace(editor, node, product)


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
    return replace(editor, node, product)


def _apart(editor: Editor, node: "Node") -> bool:
    """Parts of a product along its last axis are products with parts of its matrix, if nothing else reads it.

    So a row that is picked of one part is computed for that part alone, and what cuts them apart is not needed.
    """
    one = map_of(editor, node)
    parts = None if one is None or one.matrix.dim() > 2 else _parts(editor, node)
    if one is None or not parts:
        return False
    for (start, end), reader in parts:
        bias = None if one.bias is None else one.bias[start:end]
        with editor.graph.inserting_before(reader):
            reader.replace_all_uses_with(one.with_constants(editor, one.x, one.matrix[:, start:end], bias))
    return True


def _parts(editor: Editor, node: "Node") -> "list[tuple[tuple[int, int], Node]] | None":
    """Return all that reads a value, as where along its last axis; None where something reads more than a part."""
    found = []
    rank, width = len(editor.shape(node)), editor.shape(node)[-1]
    for user in node.users:
        part, cut = slice_of(editor, user), operands(user, *_CUTS)
        if part is not None and part.axis == rank - 1 and part.step == 1:
            found.append(((part.start, part.stop), user))
        elif cut is not None and (*cut, 0)[2] % rank == rank - 1:
            bounds = [0, *itertools.accumulate(value.shape[-1] for value in user.meta["val"])]
            if any(reader.target is not operator.getitem for reader in user.users):
                return None
            found += [((bounds[one.args[1]], bounds[one.args[1] + 1]), one) for one in user.users]
        else:
            return None
    whole = any(end - start == width for (start, end), _ in found)
    return None if whole or sum(end - start for (start, end), _ in found) > width else found


_CUTS = frozenset({"chunk.default", "split.Tensor", "split_with_sizes.default"})
_RULES = (
    _apart,
    _as_product,
    _affine_of_norm,
    _into_readers,
    _into_product,
    _scale,
    _centre,
    _compose,
    _reassociate,
    vanishing.drop_shift,
    factors.share_factor,
    factors.share_product,
    factors.merge_constants,
    factors.scale_constant,
)
