"""No axes of one: each value without the axes of extent 1 that lead its shape, as a program for one user has them.

Axes are counted from the last one, which such an axis does not move: an operation along other axes, broadcasting
included, is the same operation without it. A product of one batch is a product of matrices. Two axes always stay, so
that a matrix is one, and an operation that is not known here gets its values in their own shapes.
"""

import math
import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from exporter.graph.editing import Editor, order_of, same_but
from exporter.graph.rowwise import ELEMENTWISE, MOVES, by_name

if TYPE_CHECKING:
    from torch.fx import Node

_LEAST = 2


def drop(editor: Editor) -> int:
    """Rewrite the operations of a graph without leading axes of one; return how many were."""
    return _Flat(editor).rewrite()


class _Flat:
    """A graph on its way: `flat` has for each value that is rewritten what stands for it, in its flat shape."""

    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self._flat: dict[Node, Node] = {}
        self._whole: dict[Node, Node] = {}

    def rewrite(self) -> int:
        """Rewrite all that is known; return how many operations."""
        changed = 0
        for node in list(self.editor.graph.nodes):
            if node.op not in ("call_function", "output"):
                continue
            with self.editor.graph.inserting_before(node):
                rule = RULES.get(str(node.target)) if self._is_worth(node) else None
                found = None if rule is None else rule(self, node)
                if found is None:
                    for value in node.all_input_nodes:
                        node.replace_input_with(value, self.whole(value))
                else:
                    several = not self.editor.is_tensor(node)
                    self._flat[node] = found if several else self.editor.reshape(found, self.shape(node))
                    changed += str(node.target) not in MOVES
        return changed

    def _is_worth(self, node: "Node") -> bool:
        """Say whether an operation has, or reads, a value whose flat shape is another."""
        values = [value for value in (*node.all_input_nodes, node) if self.editor.is_tensor(value)]
        shorter = any(self.shape(value) != self.editor.shape(value) for value in values)
        return shorter or any(value in self._flat for value in node.all_input_nodes)

    def shape(self, node: "Node") -> tuple[int, ...]:
        """Return the flat shape of a value."""
        shape = self.editor.shape(node)
        while len(shape) > _LEAST and shape[0] == 1:
            shape = shape[1:]
        return shape

    def is_flat(self, node: "Node") -> bool:
        """Say whether something stands for a value, or for several that an operation gives."""
        return node in self._flat

    def value(self, node: "Node") -> "Node":
        """Return a value in its flat shape."""
        if node not in self._flat:
            self._flat[node] = self.editor.reshape(node, self.shape(node))
        return self._flat[node]

    def whole(self, node: "Node") -> "Node":
        """Return a value in its own shape."""
        if node not in self._flat:
            return node
        if node not in self._whole:
            self._whole[node] = self.editor.reshape(self._flat[node], self.editor.shape(node))
        return self._whole[node]

    def values(self, args: Any) -> Any:
        """Return arguments with all values in their flat shapes."""
        from torch.fx.node import map_arg

        return map_arg(args, self.value)

    def from_last(self, node: "Node", axis: int) -> int | None:
        """Return an axis of a value counted from the last one; None where its flat shape is without it."""
        rank = len(self.editor.shape(node))
        axis = axis % rank - rank
        return axis if -axis <= len(self.shape(node)) else None


_Rule = Callable[[_Flat, "Node"], "Node | None"]


def _elementwise(flat: _Flat, node: "Node") -> "Node":
    return flat.editor.call(node.target, *flat.values(node.args), **flat.values(node.kwargs))


def _linear(flat: _Flat, node: "Node") -> "Node":
    x, *weights = node.args
    return flat.editor.call(node.target, flat.value(x), *weights)


def _product(flat: _Flat, node: "Node") -> "Node | None":
    import torch

    aten = torch.ops.aten
    if any(len(flat.editor.shape(value)) < _LEAST for value in node.args):
        return None
    left, right = flat.values(node.args)
    shapes = flat.editor.shape(left), flat.editor.shape(right)
    ranks = {len(shape) for shape in shapes}
    if ranks == {2}:
        return flat.editor.call(aten.mm.default, left, right)
    batched = ranks == {3} and shapes[0][0] == shapes[1][0]
    return flat.editor.call(aten.bmm.default if batched else aten.matmul.default, left, right)


def _reduction(flat: _Flat, node: "Node") -> "Node | None":
    """A sum, mean or extreme; what is along axes of one that are not there is the value itself."""
    x, axes, *_ = node.args
    if node.kwargs:
        return None
    along = [flat.from_last(x, axis) for axis in axes]
    left = [axis for axis in along if axis is not None]
    return flat.editor.call(node.target, flat.value(x), left, True) if left else flat.value(x) if along else None


def _variance(flat: _Flat, node: "Node") -> "Node | None":
    x, axes, unbiased = (*node.args, True)[:3]
    along = [flat.from_last(x, axis) for axis in axes or ()]
    if node.kwargs or not along or None in along:
        return None
    return flat.editor.call(node.target, flat.value(x), along, unbiased, True)


def _along(flat: _Flat, node: "Node") -> "Node | None":
    """An operation along one axis, its second argument, that reads its value first."""
    x, axis, *others = node.args
    along = flat.from_last(x, axis)
    return None if along is None else flat.editor.call(node.target, flat.value(x), along, *others, **node.kwargs)


def _select(flat: _Flat, node: "Node") -> "Node":
    import torch

    x, axis, place = node.args
    along = flat.from_last(x, axis)
    if along is None:
        return flat.value(x)
    if same_but(flat.shape(x), len(flat.shape(x)) + along, 1) != list(flat.shape(node)):
        return flat.editor.call(node.target, flat.value(x), along, place)
    place %= flat.editor.shape(x)[axis]
    return flat.editor.call(torch.ops.aten.slice.Tensor, flat.value(x), along, place, place + 1)


def _gathered(flat: _Flat, node: "Node") -> "Node | None":
    x, axis, index, *_ = node.args  # what else it takes is for training
    along = flat.from_last(x, axis)
    if along is None:
        return None
    rank = len(flat.shape(x))
    index = flat.editor.reshape(flat.value(index), flat.editor.shape(index)[-rank:])
    return flat.editor.call(node.target, flat.value(x), along, index)


def _normalised(flat: _Flat, node: "Node") -> "Node | None":
    x, normalised, *others = node.args
    inside = len(normalised) <= len(flat.shape(x))
    return flat.editor.call(node.target, flat.value(x), normalised, *others, **node.kwargs) if inside else None


def _permuted(flat: _Flat, node: "Node") -> "Node":
    """A permutation; one that moves axes of one alone is a reshape."""
    import torch

    x, shape = node.args[0], flat.editor.shape(node.args[0])
    order = order_of(node, len(shape))
    wide = [axis for axis in order if shape[axis] > 1]
    if wide == sorted(wide):
        return flat.value(x)
    dropped = len(shape) - len(flat.shape(x))
    stay = [axis - dropped for axis in order if axis >= dropped]
    swapped = [at for at, axis in enumerate(stay) if at != axis]
    if len(swapped) == 2:
        return flat.editor.call(torch.ops.aten.transpose.int, flat.value(x), *swapped)
    return flat.editor.call(torch.ops.aten.permute.default, flat.value(x), stay)


def _reshaped(flat: _Flat, node: "Node") -> "Node":
    return flat.value(node.args[0])


def _expanded(flat: _Flat, node: "Node") -> "Node":
    x, shape = node.args[0], flat.shape(node)
    if math.prod(flat.editor.shape(x)) == math.prod(shape):
        return flat.value(x)
    return flat.editor.call(node.target, flat.value(x), [*shape])


def _joined(flat: _Flat, node: "Node") -> "Node | None":
    values, *axes = node.args
    along = flat.from_last(node, axes[0] if axes else 0)
    if along is None:
        return None
    rank = len(flat.shape(node))
    same = [flat.editor.reshape(flat.value(value), flat.editor.shape(value)[-rank:]) for value in values]
    return flat.editor.call(node.target, same, along)


def _stacked(flat: _Flat, node: "Node") -> "Node | None":
    import torch

    values, *axes = node.args
    along = flat.from_last(node, axes[0] if axes else 0)
    if along is None:
        return None
    shape = flat.shape(node)
    rows = [flat.editor.reshape(flat.value(value), same_but(shape, len(shape) + along, 1)) for value in values]
    return flat.editor.call(torch.ops.aten.cat.default, rows, along)


def _parted(flat: _Flat, node: "Node") -> "Node | None":
    """Several parts along an axis, the last argument where there is one."""
    x, *others = node.args
    takes = [argument.name for argument in node.target._schema.arguments]
    at = takes.index("dim")
    axis = node.args[at] if len(node.args) > at else 0
    along = flat.from_last(x, axis)
    if along is None or node.kwargs:
        return None
    return flat.editor.call(node.target, flat.value(x), *others[: at - 1], along)


def _item(flat: _Flat, node: "Node") -> "Node | None":
    parts, at = node.args
    return flat.editor.call(node.target, flat.value(parts), at) if flat.is_flat(parts) else None


def _looked_up(flat: _Flat, node: "Node") -> "Node":
    table, ids, *_ = node.args  # what else it takes is for training
    return flat.editor.call(node.target, table, flat.editor.reshape(flat.value(ids), flat.shape(node)[:-1]))


RULES: Mapping[str, _Rule] = {
    **dict.fromkeys((*ELEMENTWISE, "aten.zeros_like.default"), _elementwise),
    **dict.fromkeys(MOVES, _reshaped),
    **by_name(
        {
            "linear.default": _linear,
            "matmul.default bmm.default": _product,
            "sum.dim_IntList mean.dim amax.default amin.default": _reduction,
            "var.dim": _variance,
            "softmax.int index_select.default slice.Tensor narrow.default cumsum.default": _along,
            "select.int": _select,
            "gather.default": _gathered,
            "layer_norm.default rms_norm.default native_layer_norm.default": _normalised,
            "transpose.int permute.default": _permuted,
            "expand.default": _expanded,
            "cat.default": _joined,
            "stack.default": _stacked,
            "chunk.default split.Tensor split_with_sizes.default unbind.int": _parted,
            "embedding.default": _looked_up,
        }
    ),
    str(operator.getitem): _item,
}
