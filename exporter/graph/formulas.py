"""How a value is computed of others, whatever its spelling: as a product of powers, as a polynomial, as a reduction."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.graph.editing import Editor

if TYPE_CHECKING:
    from torch.fx import Node

_MOST_FACTORS = 12  # no formula here has more; a stranger's graph may multiply thousands of values in a row
_MOST_STEPS = 10
CLOSE = 1e-5
"""By how much a number may differ from the one in a formula, relatively: people write 0.79788456 for sqrt(2 / pi)."""

Monomial = tuple[int, ...]


def name(value: Any) -> str:
    """Return the name of an operation, without its namespace: "mul.Tensor"; empty for what is none."""
    target = str(value.target) if getattr(value, "op", None) == "call_function" else ""
    return target.removeprefix("aten.") if target.startswith("aten.") else ""


def operands(node: Any, *names: str) -> tuple[Any, ...] | None:
    """Return the arguments of an operation of one of these names that has no keywords, None for any other."""
    return node.args if name(node) in names and not node.kwargs else None


def either(node: Any, *names: str) -> tuple[tuple[Any, Any], ...]:
    """Return both orders of the two operands of a sum or product of these names; none for any other operation."""
    args = operands(node, *names)
    return ((args[0], args[1]), (args[1], args[0])) if args is not None and len(args) == 2 else ()


def sides(node: Any) -> tuple[tuple[Any, Any], ...]:
    """Return the operands of a sum, difference, product or quotient, as what is changed and by what.

    Those of a sum or product in both orders; none for any other operation.
    """
    own = operands(node, "sub.Tensor", "div.Tensor")
    return either(node, "add.Tensor", "mul.Tensor") if own is None or len(own) != 2 else ((own[0], own[1]),)


def is_close(number: float, wanted: float) -> bool:
    """Say whether a number of a graph is one of a formula."""
    return abs(number - wanted) <= CLOSE * abs(wanted)


@dataclass(frozen=True)
class Slice:
    """value[..., start:stop:step, ...] along an axis, all of them counted from the beginning."""

    value: "Node"
    axis: int
    start: int
    stop: int
    step: int


def slice_of(editor: Editor, node: Any) -> Slice | None:
    """Return a value as a slice of another; None where it is none."""
    args = operands(node, "slice.Tensor")
    if args is None:
        return None
    value, axis, start, stop, step = [*args, None, None, None, None][:5]
    shape = editor.shape(value)
    axis = (axis or 0) % len(shape)
    return Slice(value, axis, *slice(start, stop, step).indices(shape[axis]))


@dataclass(frozen=True)
class Product:
    """number * prod(value ** power)."""

    number: float
    powers: "Mapping[Node, float]"


def product(node: "Node", is_whole: "Callable[[Node], bool]" = lambda _: False) -> Product | None:
    """Return a value as a product, None where it has too many factors.

    A factor for which `is_whole` holds is not taken apart, and neither is what stands under a root: sqrt(x * x) is not
    x. A value that is no product at all is its own only factor.
    """
    number, powers = 1.0, dict[Any, float]()
    waiting: list[tuple[Any, float]] = [(node, 1.0)]
    while waiting:
        value, power = waiting.pop()
        if isinstance(value, int | float):
            if not value > 0 and (value == 0 or not power.is_integer()):
                return None
            number *= value**power
            continue
        parts = None if is_whole(value) or not power.is_integer() else _factors(value)
        if parts is not None:
            waiting += [(part, power * own) for part, own in parts]
        else:
            powers[value] = powers.get(value, 0.0) + power
        if len(powers) + len(waiting) > _MOST_FACTORS:
            return None
    return Product(number, powers)


def _factors(node: "Node") -> "tuple[tuple[Any, float], ...] | None":
    """Return what a value is the product of, with powers; None where it is no product."""
    args = operands(node, *_POWERS)
    if args is None:
        return None
    if name(node) == "pow.Tensor_Scalar":
        return ((args[0], float(args[1])),)
    return tuple(zip(args, _POWERS[name(node)], strict=True))


_POWERS: Mapping[str, tuple[float, ...]] = {
    "mul.Tensor": (1, 1),
    "mul.Scalar": (1, 1),
    "div.Tensor": (1, -1),
    "div.Scalar": (1, -1),
    "reciprocal.default": (-1,),
    "square.default": (2,),
    "sqrt.default": (0.5,),
    "rsqrt.default": (-0.5,),
    "pow.Tensor_Scalar": (),
}


def polynomial(node: Any, variables: "tuple[Node, ...]") -> dict[Monomial, float] | None:
    """Return a value as a polynomial in others: its coefficients by the powers of each; None where it is none.

    Only small ones are looked at, so that the depth of a graph does not matter.
    """
    return _polynomial(node, variables, _MOST_STEPS)


def _polynomial(node: Any, variables: "tuple[Node, ...]", steps: int) -> dict[Monomial, float] | None:
    constant = (0,) * len(variables)
    if isinstance(node, int | float):
        return {constant: float(node)}
    if node in variables:
        return {tuple(int(node is variable) for variable in variables): 1.0}
    operation = name(node)
    args = operands(node, *POLYNOMIAL)
    if args is None or steps == 0:
        return None
    if operation == "pow.Tensor_Scalar":
        args = (args[0],) * int(args[1]) if args[1] in (2, 3) else (None,)
    elif operation == "square.default":
        args = (args[0],) * 2
    parts = [_polynomial(value, variables, steps - 1) for value in args if value is not None]
    if not parts or len(parts) != len(args) or any(part is None for part in parts):
        return None
    known = [part for part in parts if part is not None]
    if operation.startswith(("add.", "sub.", "neg.")):
        sign = -1.0 if not operation.startswith("add.") else 1.0
        first = {} if operation.startswith("neg.") else known[0]
        return _sum(first, {powers: sign * value for powers, value in known[-1].items()})
    if operation.startswith("div."):
        if set(known[1]) != {constant} or known[1][constant] == 0:
            return None
        known[1] = {constant: 1 / known[1][constant]}
    result = known[0]
    for other in known[1:]:
        result = _times(result, other)
    return result


def _sum(a: dict[Monomial, float], b: dict[Monomial, float]) -> dict[Monomial, float]:
    return {powers: a.get(powers, 0.0) + b.get(powers, 0.0) for powers in {**a, **b}}


def _times(a: dict[Monomial, float], b: dict[Monomial, float]) -> dict[Monomial, float]:
    result: dict[Monomial, float] = {}
    for one, first in a.items():
        for other, second in b.items():
            powers = tuple(x + y for x, y in zip(one, other, strict=True))
            result[powers] = result.get(powers, 0.0) + first * second
    return result


POLYNOMIAL = frozenset(
    f"{operation}.{kind}" for operation in ("add", "sub", "mul", "div") for kind in ("Tensor", "Scalar")
) | {"neg.default", "square.default", "pow.Tensor_Scalar"}
"""The operations that a polynomial is made of."""


@dataclass(frozen=True)
class Reduction:
    """factor * the mean of `value`, or where `is_variance` of its variance, along its last `axes` axes, which stay."""

    value: "Node"
    axes: int
    factor: float = 1.0
    is_variance: bool = False


def reduction(editor: Editor, node: Any) -> Reduction | None:
    """Return a value as a mean, a sum or a variance along the last axes, times a number; None where it is none."""
    if not hasattr(node, "op"):
        return None
    whole = product(node)
    if whole is None or list(whole.powers.values()) != [1.0]:
        return None
    (inner,) = whole.powers
    found = _reduction(editor, inner)
    if found is None:
        return None
    return Reduction(found.value, found.axes, found.factor * whole.number, found.is_variance)


def _reduction(editor: Editor, node: "Node") -> Reduction | None:
    keeps = False
    args = operands(node, "unsqueeze.default")
    if args is not None and args[1] in (-1, len(editor.shape(node)) - 1):
        node, keeps = args[0], True  # of the one axis that went
    operation = name(node)
    if operation not in _REDUCTIONS:
        return None
    value, axes, *rest = node.args
    options = dict(zip(("unbiased", "keepdim") if operation == "var.dim" else ("keepdim",), rest, strict=False))
    options.update(node.kwargs)
    rank, shape = len(editor.shape(value)), editor.shape(value)
    reduced = sorted(axis % rank for axis in axes or ())
    if not reduced or reduced != list(range(rank - len(reduced), rank)) or options.get("dtype") is not None:
        return None
    if bool(options.get("keepdim")) == keeps or (keeps and len(reduced) > 1):
        return None
    count = 1
    for axis in reduced:
        count *= shape[axis]
    if operation == "sum.dim_IntList":
        return Reduction(value, len(reduced), float(count))
    if operation == "mean.dim":
        return Reduction(value, len(reduced))
    correction = options.get("correction", 1) if operation == "var.correction" else int(options.get("unbiased", True))
    correction = 1 if correction is None else correction
    return Reduction(value, len(reduced), count / (count - correction), True) if correction < count else None


_REDUCTIONS = frozenset({"mean.dim", "sum.dim_IntList", "var.correction", "var.dim"})
