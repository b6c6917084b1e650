"""The pass `ranges`: rewrite what leaves the range of 16-bit floats on its way to a value that does not."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from exporter.core.types import Arrays
from exporter.graph.editing import Editor
from exporter.graph.rewriting import Pass

if TYPE_CHECKING:
    from torch.fx import Graph, GraphModule, Node

# fp16 ends at 65,504. Histories that no golden case shows may go further than those, so a sixteenth of it is safe.
SAFE = 4_094.0


def widest(graph_module: "GraphModule", cases: Arrays) -> float:
    """Return the largest size of a value that `ranges` would make smaller, over inputs [cases, ...]; 0 for none."""
    import torch
    from torch.fx import Interpreter

    graph = graph_module.graph
    watched = {product for _, product, _ in _products(graph)}
    watched |= {node for _, _, reduced, _ in _norms(graph) for node in (reduced, reduced.args[0])}
    sizes = [0.0]

    class Watch(Interpreter):
        def run_node(self, n: "Node") -> Any:
            value = super().run_node(n)
            if n in watched:
                sizes.append(float(value.abs().max()))
            return value

    if watched:
        names = [node.target for node in graph.find_nodes(op="placeholder")]
        with torch.no_grad():
            for case in zip(*(cases[name] for name in names), strict=True):
                tensors = (torch.from_numpy(array.copy()) for array in case)
                Watch(graph_module).run(*tensors, enable_io_processing=False)
    return max(sizes)


def _outgrows_half(graph_module: "GraphModule", cases: Arrays) -> bool:
    """Say whether golden cases reach values that this pass keeps smaller; what does not need that is faster."""
    return widest(graph_module, cases) > SAFE


def _narrow(editor: Editor) -> int:
    """Keep the squares of normalisations and the products of attention within fp16."""
    return _scale_products(editor.graph) + _scale_norms(editor.graph)


def _scale_products(graph: "Graph") -> int:
    """Compute s (A B) as (s A) B for numbers |s| < 1: attention divides by sqrt(d) what it has summed over d."""
    import torch

    aten = torch.ops.aten
    found = list(_products(graph))
    for root, product, scale in found:
        left, right = product.args
        with graph.inserting_before(root):
            scaled = graph.call_function(aten.mul.Tensor, (left, scale))
            root.replace_all_uses_with(graph.call_function(product.target, (scaled, right)))
    return len(found)


def _scale_norms(graph: "Graph") -> int:
    """Compute each 1 / sqrt(R(x * x) + eps), R a mean or a sum along axes that stay, from values within [-1, 1].

    With m = max |x| + sqrt(eps) along the same axes it equals 1 / (m sqrt(R((x / m)^2) + (sqrt(eps) / m)^2)). The
    squares themselves leave 16 bits where |x| is beyond 255, and a sum of 64 of them where it is beyond 32.
    """
    import torch

    aten = torch.ops.aten

    def call(operation: Any, *values: Any) -> "Node":
        return graph.call_function(operation, values)

    found = list(_norms(graph))
    for root, x, reduced, eps in found:
        axes = reduced.args[1]
        with graph.inserting_before(root):
            largest = call(aten.add.Tensor, call(aten.amax.default, call(aten.abs.default, x), axes, True), eps**0.5)
            unit = call(aten.div.Tensor, x, largest)
            rest = call(aten.mul.Tensor, call(aten.reciprocal.default, largest), eps**0.5)
            mean = call(reduced.target, call(aten.mul.Tensor, unit, unit), axes, True)
            total = call(aten.add.Tensor, mean, call(aten.mul.Tensor, rest, rest))
            root.replace_all_uses_with(call(aten.div.Tensor, call(aten.rsqrt.default, total), largest))
    return len(found)


def _products(graph: "Graph") -> Iterator[tuple["Node", "Node", float]]:
    """Find s (A B) with a number |s| < 1: its node, that of A B, and s."""
    import torch

    aten = torch.ops.aten
    for root in graph.find_nodes(op="call_function", target=aten.mul.Tensor):
        product, scale = root.args
        mixes = getattr(product, "target", None) in (aten.bmm.default, aten.mm.default)
        if isinstance(scale, float) and abs(scale) < 1 and mixes:
            yield root, product, scale


def _norms(graph: "Graph") -> Iterator[tuple["Node", "Node", "Node", float]]:
    """Find rsqrt(R(x * x) + eps): its node, x, the node of R, and eps, unless fp16 could flush its root to zero."""
    import torch

    aten = torch.ops.aten
    for root in graph.find_nodes(op="call_function", target=aten.rsqrt.default):
        (total,) = root.args
        if getattr(total, "target", None) != aten.add.Tensor:
            continue
        reduced, eps = total.args
        if not isinstance(eps, float) or eps**0.5 < torch.finfo(torch.float16).tiny:
            continue
        if getattr(reduced, "target", None) not in (aten.mean.dim, aten.sum.dim_IntList):
            continue
        square, _, *keeps = reduced.args
        if keeps == [True] and getattr(square, "target", None) == aten.mul.Tensor and len({*square.args}) == 1:
            yield root, square.args[0], reduced, eps


PASS = Pass(
    "ranges",
    "keep what leaves 16 bits on its way to a value that does not within them",
    frozenset({"within_half", "half"}),
    _narrow,
    _outgrows_half,
)
