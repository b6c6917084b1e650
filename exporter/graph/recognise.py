"""The pass `recognise`: what is written out as its formula becomes the one operation that it is.

Layer norm, GELU (both forms), SiLU, softmax, attention with a mask that is added, and a product with a constant
matrix plus a bias, in any spelling that equals

    norm       (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * gain + bias, along the last axes
    GELU       x (1 + erf(x / sqrt(2))) / 2, x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
    SiLU       x sigmoid(x)
    softmax    exp(x - m) / sum(exp(x - m)), m = max(x) or 0
    attention  softmax(s Q K^T + mask) V
    linear     x W + b

Nothing is recognised of which another part of the program reads a value in between, as the gradient of a norm reads
1 / sqrt(...): that would be computed twice. What a target has no good operation for is written out again, in the way
that is best there (`spell_out`). Norms that one target alone has a kernel for have a pass of their own (`rms_norm`).
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from exporter.graph.editing import Editor, order_of
from exporter.graph.formulas import (
    CLOSE,
    POLYNOMIAL,
    Monomial,
    either,
    is_close,
    name,
    operands,
    polynomial,
    product,
)
from exporter.graph.norms import norm_of
from exporter.graph.rewriting import Pass
from exporter.graph.sweeping import Found, sweep, uncast

if TYPE_CHECKING:
    from torch.fx import Node


def recognise(editor: Editor) -> int:
    """Put one operation in place of each formula; return of how many."""
    places = uncast(editor)
    for kinds in ((_layer_norm, _activation, _softmax, _linear), (_attention,)):  # which has a softmax in it
        places += sweep(editor, kinds)
    return places


def _layer_norm(editor: Editor, node: "Node", fixed: "set[Node]") -> Found | None:
    import torch

    norm = norm_of(editor, node, fixed)
    if norm is None or not norm.centred:
        return None

    def add() -> "Node":
        weight = norm.weight(editor)
        bias = None if norm.bias is None else editor.reshape(norm.bias, norm.shape)
        return editor.call(torch.ops.aten.layer_norm.default, norm.x, [*norm.shape], weight, bias, norm.eps)

    return Found((norm.x,), add)


_HALVES: dict[Monomial, float] = {(1, 0): 0.5, (1, 1): 0.5}
_PRODUCT: dict[Monomial, float] = {(1, 1): 1.0}
_ROOT = math.sqrt(2 / math.pi)
_ACTIVATIONS: tuple[tuple[str, dict[Monomial, float], dict[Monomial, float], str, dict[str, str]], ...] = (
    ("erf.default", {(1,): 0.5**0.5}, _HALVES, "gelu", {}),
    ("tanh.default", {(1,): _ROOT, (3,): 0.044715 * _ROOT}, _HALVES, "gelu", {"approximate": "tanh"}),
    # (1 + tanh(z)) / 2 is sigmoid(2 z)
    ("sigmoid.default", {(1,): 2 * _ROOT, (3,): 0.08943 * _ROOT}, _PRODUCT, "gelu", {"approximate": "tanh"}),
    ("sigmoid.default", {(1,): 1.0}, _PRODUCT, "silu", {}),
)
"""A function f, its argument as a polynomial in x, the result as one in x and f, and what it is."""


def _activation(editor: Editor, node: "Node", _fixed: "set[Node]") -> Found | None:
    import torch

    if not name(node).startswith(("mul.", "div.", "add.")):
        return None
    near = _near(node)
    for function, argument, whole, operation, options in _ACTIVATIONS:
        for inner in [value for value in near if name(value) == function]:
            for x in _near(inner.args[0]):
                if editor.shape(x) != editor.shape(node) or not _equals(polynomial(inner.args[0], (x,)), argument):
                    continue
                if _equals(polynomial(node, (x, inner)), whole):
                    call = getattr(torch.ops.aten, operation).default
                    return Found((x,), partial(editor.call, call, x, **options))
    return None


def _near(node: "Node") -> "list[Node]":
    """Return a value and those from which a polynomial may compute it, in few steps."""
    found, last = {node: None}, [node]
    for _ in range(5):
        last = [value for one in last if name(one) in POLYNOMIAL for value in one.all_input_nodes if value not in found]
        found.update(dict.fromkeys(last))
    return list(found)


def _equals(found: dict[Monomial, float] | None, wanted: dict[Monomial, float]) -> bool:
    """Say whether two polynomials have the same coefficients."""
    return found is not None and all(
        is_close(found.get(powers, 0.0), wanted[powers]) if powers in wanted else abs(found[powers]) < CLOSE
        for powers in {**found, **wanted}
    )


def _softmax(editor: Editor, node: "Node", _fixed: "set[Node]") -> Found | None:
    import torch

    whole = product(node, lambda value: name(value) == "exp.default")
    if whole is None or whole.number != 1 or sorted(whole.powers.values()) != [-1.0, 1.0]:
        return None
    total, above = sorted(whole.powers, key=whole.powers.__getitem__)
    rank = len(editor.shape(node))
    summed = operands(total, "sum.dim_IntList")
    if summed is None or len(summed) != 3 or len(summed[1]) != 1 or summed[2] is not True:
        return None
    inner, axis = summed[0], summed[1][0] % rank
    if name(inner) != "exp.default" or name(above) != "exp.default":
        return None
    x, other = (_unshifted(editor, value.args[0], axis) for value in (above, inner))
    alike = x is other and (above.args[0] is x) == (inner.args[0] is x)
    if not alike or editor.shape(x) != editor.shape(node):
        return None
    return Found((x,), partial(editor.call, torch.ops.aten.softmax.int, x, axis))


def _unshifted(editor: Editor, value: "Node", axis: int) -> "Node":
    """Return x for x - max(x) along an axis, and any other value itself."""
    args = operands(value, "sub.Tensor")
    if args is None or not hasattr(args[0], "op") or not hasattr(args[1], "op"):
        return value
    x, largest = args
    if str(largest.target) == "<built-in function getitem>" and largest.args[1] == 0:
        largest = largest.args[0]
    found = operands(largest, "amax.default", "max.dim")
    if found is None or len(found) != 3 or found[0] is not x or found[2] is not True:
        return value
    along = found[1] if isinstance(found[1], list | tuple) else [found[1]]
    return x if [one % len(editor.shape(x)) for one in along] == [axis] else value


def _attention(editor: Editor, node: "Node", _fixed: "set[Node]") -> Found | None:
    import torch

    args = operands(node, "matmul.default")
    rank = len(editor.shape(node))
    if args is None or rank != 4:
        return None
    weights, value = args
    soft = operands(weights, "softmax.int")
    if soft is None or len(soft) != 2 or soft[1] % rank != rank - 1:
        return None
    for scores, mask in (*either(soft[0], "add.Tensor"), (soft[0], None)):
        scaled = product(scores) if hasattr(scores, "op") else None
        if scaled is None or list(scaled.powers.values()) != [1.0]:
            continue
        (inner,) = scaled.powers
        found = operands(inner, "matmul.default")
        key = None if found is None else _transposed(editor, found[1])
        if found is None or key is None or (mask is not None and not hasattr(mask, "op")):
            continue
        query, shape = found[0], editor.shape(inner)
        alike = len({editor.shape(one)[:2] for one in (query, key, value)}) == 1
        fits = mask is None or _broadcasts(editor.shape(mask), shape)
        if alike and fits and editor.shape(weights) == shape and query not in (key, value):
            reads = (query, key, value, *(() if mask is None else (mask,)))
            call = torch.ops.aten.scaled_dot_product_attention.default
            return Found(reads, partial(editor.call, call, query, key, value, mask, scale=scaled.number))
    return None


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Say whether a shape of two axes or more is broadcast to another."""
    return 2 <= len(shape) <= len(to) and all(a in (1, b) for a, b in zip(reversed(shape), reversed(to), strict=False))


def _transposed(editor: Editor, value: "Node") -> "Node | None":
    """Return x for x with its last two axes the other way round."""
    rank = len(editor.shape(value))
    args = operands(value, "transpose.int", "t.default", "numpy_T.default", "permute.default", "mT.default")
    if args is None or rank < 2:
        return None
    swapped = [*range(rank - 2), rank - 1, rank - 2]
    axes = order_of(value, rank) if name(value) in ("transpose.int", "permute.default") else swapped
    inner: Node = args[0]
    return inner if axes == swapped and (name(value) != "numpy_T.default" or rank == 2) else None


def _linear(editor: Editor, node: "Node", fixed: "set[Node]") -> Found | None:
    for bias, whole, *args in _with_bias(editor, node):
        own = editor.shape(bias)
        if len(args) != 2 or bias not in fixed or not own or math.prod(own) != own[-1]:
            continue
        x, weight = args
        if own[-1] != editor.shape(node)[-1] or weight not in fixed or x in fixed:
            continue
        if len(editor.shape(weight)) != 2 or len(editor.shape(x)) < 2:
            continue
        return Found((x,), partial(_biased, editor, x, weight, bias, name(whole) != "linear.default"))
    return None


def _with_bias(editor: Editor, node: "Node") -> "Iterator[tuple[Any, ...]]":
    """Yield a bias, the product that it is added to, and what that multiplies."""
    added = operands(node, "addmm.default")
    if added is not None:
        yield added[0], node, *added[1:]
    for whole, bias in either(node, "add.Tensor"):
        args = operands(whole, "matmul.default", "mm.default", "linear.default")
        if args is not None and hasattr(bias, "op") and editor.shape(whole) == editor.shape(node):
            yield bias, whole, *args


def _biased(editor: Editor, x: "Node", weight: "Node", bias: "Node", turn: bool) -> "Node":
    """Add x W + b, or x W^T + b, as torch has it, where there is nothing to turn round."""
    import torch

    aten = torch.ops.aten
    if turn:
        weight = _transposed(editor, weight) or editor.call(aten.transpose.int, weight, 0, 1)
    return editor.call(aten.linear.default, x, weight, editor.reshape(bias, editor.shape(bias)[-1:]))


PASS = Pass(
    "recognise",
    "norms, activations, attention, biases as one operation",
    frozenset({"captured"}),
    recognise,
)
