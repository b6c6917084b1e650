"""Operations of which one row of the result needs one row of what they read: how an axis goes through each."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from exporter.graph.editing import Editor, same_but

if TYPE_CHECKING:
    from torch.fx import Node


@dataclass(frozen=True)
class Row:
    """How one row of an operation's value along an axis is computed.

    `needs` has for each value that is read the axis of which one row is needed, or None where all of it is; `args` are
    the arguments for that row, of the same values, and `operation` what takes them. `cheap` says that nothing is
    computed.
    """

    needs: "Mapping[Node, int | None]"
    operation: Any
    args: tuple[Any, ...]
    cheap: bool = False


def row_of(editor: Editor, node: "Node", axis: int) -> Row | None:
    """Return how a row of a node's value is computed; None where its operation needs more, or is not known here."""
    rule = _RULES.get(str(node.target)) if node.op == "call_function" else None
    return None if rule is None else rule(editor, node, axis)


def _elementwise(editor: Editor, node: "Node", axis: int) -> Row | None:
    rank = len(editor.shape(node))
    needs = {value: editor.axis_in(value, axis, rank) for value in node.all_input_nodes}
    return Row(needs, node.target, node.args)


def _linear(editor: Editor, node: "Node", axis: int) -> Row | None:
    if axis == len(editor.shape(node)) - 1:
        return None
    x, *weights = node.args
    needs = {value: None for value in weights if value is not None}
    return None if x in needs else Row({**needs, x: axis}, node.target, node.args)


def _product(editor: Editor, node: "Node", axis: int) -> Row | None:
    left, right = node.args
    rank = len(editor.shape(node))
    if left is right or not len(editor.shape(left)) == rank >= len(editor.shape(right)) >= 2:
        return None
    if axis == rank - 2:
        return Row({left: axis, right: None}, node.target, node.args)
    if axis == rank - 1:
        return Row({left: None, right: len(editor.shape(right)) - 1}, node.target, node.args)
    return None


def _attention(editor: Editor, node: "Node", axis: int) -> Row | None:
    query, key, value, *others = node.args
    mask = others[0] if others else None
    rank = len(editor.shape(node))
    plain = set(node.kwargs) <= {"scale"} and all(not other for other in others[1:])
    if axis != rank - 2 or not plain or query in (key, value):
        return None
    needs: dict[Node, int | None] = {key: None, value: None, query: axis}
    if mask is not None:
        needs[mask] = editor.axis_in(mask, axis, rank)
    return Row(needs, node.target, node.args)


def _along_others(editor: Editor, node: "Node", axis: int) -> Row | None:
    """A softmax, or a sum, mean or extreme along axes that stay or go."""
    x, axes = node.args[:2]
    rank = len(editor.shape(x))
    reduced = {one % rank for one in ([axes] if isinstance(axes, int) else axes)}
    if len(editor.shape(node)) < rank:
        axis = [at for at in range(rank) if at not in reduced][axis]
    return None if axis in reduced or not reduced else Row({x: axis}, node.target, node.args)


def _layer_norm(editor: Editor, node: "Node", axis: int) -> Row | None:
    x, normalised, *weights = node.args  # an RMS norm's are its gain and eps
    if axis >= len(editor.shape(node)) - len(normalised):
        return None
    needs: dict[Node, int | None] = {value: None for value in weights if hasattr(value, "meta")}
    return None if x in needs else Row({**needs, x: axis}, node.target, node.args)


def _index_select(editor: Editor, node: "Node", axis: int) -> Row | None:
    x, along, index = node.args
    return None if along % len(editor.shape(x)) == axis else Row({x: axis, index: None}, node.target, node.args)


def _transpose(editor: Editor, node: "Node", axis: int) -> Row | None:
    import torch

    x, *axes = node.args
    one, other = (at % len(editor.shape(x)) for at in axes)
    needs = {x: {one: other, other: one}.get(axis, axis)}
    if axis in (one, other) and abs(one - other) == 1:  # one row has an extent of 1 there: its numbers stay in order
        return Row(needs, torch.ops.aten.reshape.default, (x, same_but(editor.shape(node), axis, 1)), cheap=True)
    return Row(needs, node.target, node.args, cheap=True)


def _permute(_editor: Editor, node: "Node", axis: int) -> Row | None:
    x, axes = node.args
    return Row({x: axes[axis] % len(axes)}, node.target, node.args, cheap=True)


def _reshape(editor: Editor, node: "Node", axis: int) -> Row | None:
    import torch

    x, shape, own = node.args[0], editor.shape(node), editor.shape(node.args[0])
    before = math.prod(shape[:axis])
    for at, extent in enumerate(own):
        if extent == shape[axis] and math.prod(own[:at]) == before:
            return Row({x: at}, torch.ops.aten.reshape.default, (x, same_but(shape, axis, 1)), cheap=True)
    return None


def _expand(editor: Editor, node: "Node", axis: int) -> Row | None:
    x, shape = node.args[0], editor.shape(node)
    needs = {x: editor.axis_in(x, axis, len(shape))}
    return Row(needs, node.target, (x, same_but(shape, axis, 1)), cheap=True)


def _cat(editor: Editor, node: "Node", axis: int) -> Row | None:
    values, *along = node.args
    rank = len(editor.shape(node))
    return None if (along or [0])[0] % rank == axis else Row(dict.fromkeys(values, axis), node.target, node.args)


def _slice(editor: Editor, node: "Node", axis: int) -> Row | None:
    x, *rest = node.args
    along = rest[0] if rest else 0
    return None if along % len(editor.shape(x)) == axis else Row({x: axis}, node.target, node.args, cheap=True)


def _same(_editor: Editor, node: "Node", axis: int) -> Row | None:
    return Row({node.args[0]: axis}, node.target, node.args, cheap=True)


Rule = TypeVar("Rule")
_Rule = Callable[[Editor, "Node", int], Row | None]


def _names(*lines: str) -> frozenset[str]:
    return frozenset(f"aten.{name}" for line in lines for name in line.split())


def by_name(rules: "Mapping[str, Rule]") -> "dict[str, Rule]":
    """Return rules by the name of each operation; they are given by the names of several."""
    return {name: rule for names, rule in rules.items() for name in _names(names)}


ELEMENTWISE = _names(
    "add.Tensor sub.Tensor mul.Tensor div.Tensor maximum.default minimum.default pow.Tensor_Scalar",
    "relu.default sigmoid.default tanh.default exp.default sqrt.default rsqrt.default neg.default",
    "abs.default reciprocal.default gelu.default silu.default leaky_relu.default softplus.default",
    "log.default log1p.default erf.default floor.default sin.default cos.default elu.default rsub.Scalar",
    "to.dtype clamp.default clamp_min.default where.self eq.Tensor eq.Scalar ne.Scalar ne.Tensor",
    "ge.Scalar gt.Scalar le.Scalar lt.Scalar ge.Tensor gt.Tensor le.Tensor lt.Tensor",
    "logical_and.default logical_or.default logical_not.default bitwise_and.Tensor bitwise_not.default",
)
"""Operations whose result at one place needs what they read at that place, after broadcasting."""
RESHAPES = _names("reshape.default view.default flatten.using_ints unsqueeze.default squeeze.dim unflatten.int")
"""Operations that give the same numbers in the same order in another shape."""
SAME = _names("clone.default contiguous.default dropout.default alias.default")
"""Operations that, when nothing is trained, give what they read."""
MOVES = RESHAPES | SAME

_RULES: Mapping[str, _Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(RESHAPES, _reshape),
    **dict.fromkeys(SAME, _same),
    **by_name(
        {
            "linear.default": _linear,
            "matmul.default bmm.default": _product,
            "scaled_dot_product_attention.default": _attention,
            "softmax.int sum.dim_IntList mean.dim amax.default amin.default": _along_others,
            "layer_norm.default rms_norm.default": _layer_norm,
            "index_select.default": _index_select,
            "transpose.int": _transpose,
            "permute.default": _permute,
            "expand.default": _expand,
            "cat.default": _cat,
            "slice.Tensor narrow.default": _slice,
        }
    ),
}
