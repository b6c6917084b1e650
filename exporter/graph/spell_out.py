"""The pass `spell_out`: operations that a target has no fast kernel for, written as those that it has one for.

    mean and sum along the last axis   a product with the constant column of 1 / D or of 1
    layer norm                         c = x - mean(x), c / sqrt(mean(c^2) + eps) * gain + bias
    RMS norm                           x / sqrt(mean(x^2) + eps) * gain
    GELU, tanh form                    x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
    attention                          softmax((s Q) K^T + mask) V, as one product for all heads

For a target whose kernels for products take a whole graph, and which leaves it for a mean or a norm: XNNPACK. It also
computes the other GELU where this one is asked for. A row of attention of which all is masked is zero, as torch has it.
"""

import math
from typing import TYPE_CHECKING, Any

from exporter.graph.editing import Editor
from exporter.graph.formulas import name
from exporter.graph.rewriting import Pass

if TYPE_CHECKING:
    from torch.fx import Node

_HIDDEN = -1e30
"""What is added where nothing is attended to: its exponential is 0 beside that of any score."""


def spell_out(editor: Editor) -> int:
    """Write out what this pass knows; return at how many places."""
    import torch

    fixed, places = editor.constants(), 0
    for node in list(editor.graph.nodes):
        rule = _RULES.get(name(node))
        if rule is None or node in fixed or not editor.is_tensor(node) or editor.dtype(node) != torch.float32:
            continue
        with editor.graph.inserting_before(node):
            result = rule(editor, node)
        if result is not None:
            node.replace_all_uses_with(result)
            editor.graph.erase_node(node)  # attention may have dropout, so nobody else removes it
            places += 1
    return places


def _mean_of(editor: Editor, x: "Node", weight: float) -> "Node":
    """Return weight * the sum of x [..., D] along its last axis, as [..., 1]."""
    import torch

    column = editor.constant(torch.full((1, editor.shape(x)[-1]), weight))
    rows = editor.reshape(x, (math.prod(editor.shape(x)[:-1]), editor.shape(x)[-1])) if len(editor.shape(x)) < 2 else x
    return editor.reshape(editor.call(torch.ops.aten.linear.default, rows, column), (*editor.shape(x)[:-1], 1))


def _mean(editor: Editor, node: "Node") -> "Node | None":
    x, axes, *rest = node.args
    rank = len(editor.shape(x))
    keeps = bool((rest or [node.kwargs.get("keepdim")])[0])
    if rank == 0 or [axis % rank for axis in axes or ()] != [rank - 1] or node.kwargs.get("dtype") is not None:
        return None
    if editor.dtype(x) != editor.dtype(node):
        return None
    weight = 1 / editor.shape(x)[-1] if name(node) == "mean.dim" else 1.0
    mean = _mean_of(editor, x, weight)
    return mean if keeps else editor.reshape(mean, editor.shape(node))


def _layer_norm(editor: Editor, node: "Node") -> "Node | None":
    import torch

    aten = torch.ops.aten
    x, shape, weight, bias, eps = _given(node, (None, None, None, None, 1e-5))
    if len(shape) != 1:
        return None
    centred = editor.call(aten.sub.Tensor, x, _mean_of(editor, x, 1 / shape[0]))
    scaled = _over_root(editor, centred, shape[0], eps)
    scaled = scaled if weight is None else editor.call(aten.mul.Tensor, scaled, weight)
    return scaled if bias is None else editor.call(aten.add.Tensor, scaled, bias)


def _rms_norm(editor: Editor, node: "Node") -> "Node | None":
    import torch

    x, shape, weight, eps = _given(node, (None, None, None, None))
    if len(shape) != 1:
        return None
    eps = torch.finfo(torch.float32).eps if eps is None else eps
    scaled = _over_root(editor, x, shape[0], eps)
    return scaled if weight is None else editor.call(torch.ops.aten.mul.Tensor, scaled, weight)


def _over_root(editor: Editor, x: "Node", width: int, eps: float) -> "Node":
    """Return x / sqrt(mean(x ** 2) + eps) along the last axis."""
    import torch

    aten = torch.ops.aten
    mean = _mean_of(editor, editor.call(aten.mul.Tensor, x, x), 1 / width)
    return editor.call(aten.mul.Tensor, x, editor.call(aten.rsqrt.default, editor.call(aten.add.Tensor, mean, eps)))


def _gelu(editor: Editor, node: "Node") -> "Node | None":
    import torch

    aten, x = torch.ops.aten, node.args[0]
    if node.kwargs.get("approximate", "none") != "tanh":
        return None
    cube = editor.call(aten.mul.Tensor, editor.call(aten.mul.Tensor, x, x), x)
    inner = editor.call(aten.add.Tensor, x, editor.call(aten.mul.Tensor, cube, 0.044715))
    tanh = editor.call(aten.tanh.default, editor.call(aten.mul.Tensor, inner, math.sqrt(2 / math.pi)))
    half = editor.call(aten.mul.Tensor, x, 0.5)
    return editor.call(aten.mul.Tensor, half, editor.call(aten.add.Tensor, tanh, 1.0))


def _attention(editor: Editor, node: "Node") -> "Node | None":
    import torch

    aten = torch.ops.aten
    query, key, value, mask, dropout, causal = _given(node, (None, None, None, None, 0.0, False))
    shapes = [editor.shape(one) for one in (query, key, value)]
    if len(shapes[0]) < 3 or len({shape[:-2] for shape in shapes}) != 1 or dropout or node.kwargs.get("enable_gqa"):
        return None
    if any(editor.dtype(one) != torch.float32 for one in (query, key, value)):
        return None
    (*apart, rows, width), columns = shapes[0], shapes[1][-2]
    heads = math.prod(apart)
    scale = node.kwargs.get("scale")
    scaled = editor.call(aten.mul.Tensor, query, width**-0.5 if scale is None else scale)
    scaled, key, value = (editor.reshape(one, (heads, *editor.shape(one)[-2:])) for one in (scaled, key, value))
    scores = editor.call(aten.bmm.default, scaled, editor.call(aten.transpose.int, key, 1, 2))
    if causal:
        mask = editor.constant(torch.ones(rows, columns).tril() > 0)
    seen = None
    if mask is not None:
        added, seen = _masks(editor, mask)
        if added is None:
            return None
        scores = editor.call(aten.add.Tensor, editor.reshape(scores, (*apart, rows, columns)), added)
    weights = editor.call(aten.softmax.int, scores, len(editor.shape(scores)) - 1)
    if seen is not None:
        weights = editor.call(aten.mul.Tensor, weights, seen)
    weights = editor.reshape(weights, (heads, rows, columns))
    return editor.reshape(editor.call(aten.bmm.default, weights, value), editor.shape(node))


def _masks(editor: Editor, mask: "Node") -> "tuple[Node | None, Node | None]":
    """Return what is added to the scores, None where that is not known to be finite, and what weights are times.

    A row of minus infinities alone would have no softmax; of one that sees nothing the weights are made zero.
    """
    import torch

    aten = torch.ops.aten
    if editor.is_constant(mask):
        value = editor.value(mask)
        if value.dtype != torch.bool:
            return (mask if bool(torch.isfinite(value).all()) else None), None
        added = editor.constant(torch.where(value, 0.0, _HIDDEN))
        return added, None if bool(value.any(-1).all()) else editor.constant(value.float())
    if editor.dtype(mask) != torch.bool:
        return None, None
    seen = editor.call(aten.to.dtype, mask, torch.float32)
    return editor.call(aten.mul.Tensor, editor.call(aten.sub.Tensor, seen, 1.0), -_HIDDEN), seen


def _given(node: "Node", defaults: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return as many arguments as there are defaults, which stand for those that are not given."""
    named = dict(zip((argument.name for argument in node.target._schema.arguments), defaults, strict=False))
    given = dict(zip(named, node.args, strict=False))
    return tuple({**named, **given, **{key: node.kwargs[key] for key in node.kwargs if key in named}}.values())


_RULES = {
    "mean.dim": _mean,
    "sum.dim_IntList": _mean,
    "layer_norm.default": _layer_norm,
    "rms_norm.default": _rms_norm,
    "gelu.default": _gelu,
    "scaled_dot_product_attention.default": _attention,
}

PASS = Pass(
    "spell_out",
    "norms by products with ones, attention and GELU by formula",
    frozenset({"captured"}),
    spell_out,
)
