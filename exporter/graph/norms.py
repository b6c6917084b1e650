"""Layer norms and RMS norms, however they are written."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from exporter.graph.editing import Editor
from exporter.graph.formulas import Product, either, is_close, operands, product, reduction

if TYPE_CHECKING:
    from torch.fx import Node


@dataclass(frozen=True)
class Norm:
    """(y / sqrt(mean(y ** 2) + eps)) * factor * gains + bias along the last axes, y = x - mean(x) where `centred`.

    `shape` is that of the axes; gains and the bias are constants that have it, but for axes of one before them.
    """

    x: "Node"
    shape: tuple[int, ...]
    centred: bool
    eps: float
    factor: float
    gains: "tuple[Node, ...]"
    bias: "Node | None" = None

    def weight(self, editor: Editor) -> "Node | None":
        """Add the gains and the factor as one value of the shape of the axes; None where they are one."""
        import torch

        mul = torch.ops.aten.mul.Tensor
        plain = is_close(self.factor, 1)
        if not self.gains:
            return None if plain else editor.constant(torch.full(self.shape, self.factor))
        weight = self.gains[0]
        for gain in self.gains[1:]:
            weight = editor.call(mul, weight, gain)
        weight = editor.reshape(weight, self.shape)
        return weight if plain else editor.call(mul, weight, self.factor)


@dataclass(frozen=True)
class Spread:
    """factor * (mean(y ** 2) + eps) along the last axes of x, y = x - mean(x) where `centred`."""

    x: "Node"
    axes: int
    centred: bool
    factor: float
    eps: float


def norm_of(editor: Editor, node: "Node", fixed: "set[Node]") -> Norm | None:
    """Return a value as a norm; `fixed` has the constants, and what is computed of constants alone."""
    for scaled, bias in either(node, "add.Tensor"):
        if bias in fixed and hasattr(scaled, "op"):
            norm = _scaled(editor, scaled, fixed)
            if norm and norm.centred and norm.gains and _fits(editor, bias, norm.shape):
                return Norm(norm.x, norm.shape, True, norm.eps, norm.factor, norm.gains, bias)
    return _scaled(editor, node, fixed)


def inverse_root(editor: Editor, node: "Node") -> tuple[Spread, float] | None:
    """Return a spread s and a number k for a value k / sqrt(s)."""
    whole = product(node)
    if whole is None or list(whole.powers.values()) != [-0.5]:
        return None
    spread = _spread(editor, next(iter(whole.powers)))
    return None if spread is None else (spread, whole.number)


def _scaled(editor: Editor, node: "Node", fixed: "set[Node]") -> Norm | None:
    """Return a value as a norm without a bias."""
    whole = product(node)
    for total in [] if whole is None else [value for value, power in whole.powers.items() if power == -0.5]:
        spread = _spread(editor, total)
        if spread is None or editor.shape(spread.x) != editor.shape(node):
            continue
        parts = product(node, partial(_is_divided, editor, spread))
        if parts is not None and (norm := _norm(editor, parts, total, spread, fixed)):
            return norm
    return None


def _norm(editor: Editor, parts: Product, total: "Node", spread: Spread, fixed: "set[Node]") -> Norm | None:
    """Return a product as a norm whose spread is known: one of its factors is what is divided, the others are gains."""
    shape = editor.shape(spread.x)[-spread.axes :]
    values, gains = [], []
    for value, power in parts.powers.items():
        if value is total:
            continue
        if power == 1 and value in fixed and _fits(editor, value, shape):
            gains.append(value)
        elif power == 1 and _is_divided(editor, spread, value):
            values.append(value)
        else:
            return None
    if len(values) != 1 or parts.number <= 0:
        return None
    factor = parts.number * spread.factor**-0.5
    return Norm(spread.x, shape, spread.centred, spread.eps, factor, tuple(gains))


def _is_divided(editor: Editor, spread: Spread, value: "Node") -> bool:
    """Say whether a value is the y of a spread."""
    return _centred(editor, value) == (spread.x, spread.axes) if spread.centred else value is spread.x


def _centred(editor: Editor, value: "Node") -> "tuple[Node, int] | None":
    """Return x and how many last axes, for a value x - mean(x)."""
    args = operands(value, "sub.Tensor")
    mean = reduction(editor, args[1]) if args is not None else None
    if args is None or mean is None or mean.is_variance or not is_close(mean.factor, 1) or mean.value is not args[0]:
        return None
    return mean.value, mean.axes


def _spread(editor: Editor, total: "Node") -> Spread | None:
    """Return what stands under the root of a norm."""
    for reduced, eps in either(total, "add.Tensor", "add.Scalar"):
        if not isinstance(eps, int | float) or eps <= 0:
            continue
        for x, axes, centred, factor in _spreads(editor, _without_guard(reduced)):
            return Spread(x, axes, centred, factor, eps / factor)
    return None


def _spreads(editor: Editor, reduced: Any) -> "Iterator[tuple[Node, int, bool, float]]":
    """Yield x, how many last axes, whether it is centred, and k, for k * mean(y ** 2)."""
    args = operands(reduced, "sub.Tensor")
    if args is not None:  # mean(x ** 2) - mean(x) ** 2
        left, mean = reduction(editor, args[0]), reduction(editor, _squared(args[1]))
        plain = left and mean and all(not one.is_variance and is_close(one.factor, 1) for one in (left, mean))
        if left and mean and plain and _squared(left.value) is mean.value and left.axes == mean.axes:
            yield mean.value, mean.axes, True, 1.0
        return
    found = reduction(editor, reduced)
    if found is None or found.factor <= 0:
        return
    if found.is_variance:
        yield found.value, found.axes, True, found.factor
        return
    root = _squared(found.value)
    if root is None:
        return
    inner = _centred(editor, root)
    if inner is not None and inner[1] == found.axes:
        yield inner[0], found.axes, True, found.factor
    else:
        yield root, found.axes, False, found.factor


def _without_guard(value: Any) -> Any:
    """Return v for v + (v == 0), by which a row of zeros is divided by one: of zeros it makes zeros, as eps does."""
    for inner, cast in either(value, "add.Tensor"):
        args = operands(cast, "to.dtype")
        if args is not None and operands(args[0], "eq.Scalar") in ((inner, 0), (inner, 0.0)):
            return inner
    return value


def _squared(value: Any) -> "Node | None":
    """Return x for x * x or x ** 2."""
    args = operands(value, "mul.Tensor", "pow.Tensor_Scalar", "square.default")
    if args is None:
        return None
    power = args[1] == 2 if isinstance(args[-1], int | float) else len(args) == 1 or args[0] is args[1]
    return args[0] if power and hasattr(args[0], "op") else None


def _fits(editor: Editor, value: "Node", shape: tuple[int, ...]) -> bool:
    """Say whether a value has a shape, but for axes of one before it."""
    own = editor.shape(value)
    return own[-len(shape) :] == shape and set(own[: -len(shape)]) <= {1}
