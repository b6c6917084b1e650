"""Between which whole numbers the values of a graph lie, whatever its inputs are, as far as its operations say so."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.fx import Graph, Node

_MOST = 1 << 24
"""Whole numbers up to here are exact in float32; what is further may have been rounded, or wrapped in int32."""


@dataclass(frozen=True)
class Interval:
    """All elements of a value are whole numbers from `least` to `most`."""

    least: int
    most: int


def intervals(graph: "Graph") -> "dict[Node, Interval]":
    """Return the intervals of all values of a graph whose operations tell one."""
    import torch

    known: dict[Node, Interval] = {}
    for node in graph.nodes:
        value = node.meta.get("val")
        if node.op not in ("placeholder", "call_function") or not isinstance(value, torch.Tensor):
            continue
        if value.dtype == torch.bool:
            known[node] = Interval(0, 1)
        elif node.op == "placeholder" and not value.dtype.is_floating_point and not value.dtype.is_complex:
            known[node] = Interval(torch.iinfo(value.dtype).min, torch.iinfo(value.dtype).max)
        elif node.op == "call_function" and (of_node := _of_call(node, known)) is not None:
            known[node] = of_node
    return known


def _of_call(node: "Node", known: "Mapping[Node, Interval]") -> Interval | None:
    """Return the interval of an operation's value from those of what it reads; None where it is not known."""
    name, args = str(node.target), node.args
    if name == "aten.arange.default":
        return Interval(0, args[0] - 1) if isinstance(args[0], int) and 0 < args[0] <= _MOST else None
    read = [_of(value, known) for value in args]
    first = read[0] if read else None
    if first is None:
        return None
    if name in _SAME:
        return first
    if name in CASTS:
        return _exact(first, node)
    if name.startswith("aten.sum."):
        terms = args[0].meta["val"].numel() // max(node.meta["val"].numel(), 1)
        return _exact(Interval(terms * first.least, terms * first.most), node)
    if name == "aten.clamp.default":
        return _clamped(first, args, node)
    if name == "aten.relu.default":
        return Interval(max(first.least, 0), max(first.most, 0))
    if name in _PAIRS and len(args) == 2 and not node.kwargs and read[1] is not None:
        return _exact(_PAIRS[name](first, read[1]), node)
    return None


def _clamped(interval: Interval, args: tuple[Any, ...], node: "Node") -> Interval | None:
    """Return the interval of a value that is kept between two numbers, of which one may be missing."""
    least, most = ((*args[1:], None, None))[:2]
    if node.kwargs or any(bound is not None and not isinstance(bound, int) for bound in (least, most)):
        return None
    low = interval.least if least is None else max(interval.least, least)
    high = interval.most if most is None else min(max(interval.most, low), most)
    return _exact(Interval(min(low, high), high), node)


def _of(value: Any, known: "Mapping[Node, Interval]") -> Interval | None:
    if isinstance(value, bool | int | float):
        return Interval(int(value), int(value)) if float(value).is_integer() else None
    return known.get(value) if hasattr(value, "meta") else None


def _exact(interval: Interval, node: "Node") -> Interval | None:
    """Return an interval where the node's dtype has all its numbers, None otherwise."""
    import torch

    exact = node.meta["val"].dtype in (torch.float32, torch.float64, torch.int32, torch.int64)
    return interval if exact and interval.least >= -_MOST and interval.most <= _MOST else None


def _product(a: Interval, b: Interval) -> Interval:
    ends = [x * y for x in (a.least, a.most) for y in (b.least, b.most)]
    return Interval(min(ends), max(ends))


_SAME = frozenset(
    f"aten.{name}"
    for name in (
        *("unsqueeze.default", "squeeze.dim", "squeeze.dims", "squeeze.default", "reshape.default", "view.default"),
        *("expand.default", "transpose.int", "permute.default", "select.int", "slice.Tensor"),
        *("clone.default", "contiguous.default", "alias.default", "amax.default", "amin.default"),
    )
)
CASTS = frozenset({"aten.to.dtype", "aten._to_copy.default"})
_PAIRS: Mapping[str, Callable[[Interval, Interval], Interval]] = {
    "aten.add.Tensor": lambda a, b: Interval(a.least + b.least, a.most + b.most),
    "aten.sub.Tensor": lambda a, b: Interval(a.least - b.most, a.most - b.least),
    "aten.mul.Tensor": _product,
    "aten.maximum.default": lambda a, b: Interval(max(a.least, b.least), max(a.most, b.most)),
    "aten.minimum.default": lambda a, b: Interval(min(a.least, b.least), min(a.most, b.most)),
    "aten.clamp_min.default": lambda a, b: Interval(max(a.least, b.least), max(a.most, b.least)),
}
