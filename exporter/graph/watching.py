"""All values of a captured graph for given inputs, as torch computes them, with other constants where asked."""

import operator
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from exporter.core.explanation import GraphValue
from exporter.core.precision import Precision, body_of, has_own_tables, tables_of
from exporter.core.types import Arrays, Captured
from exporter.graph import origins
from exporter.graph.editing import Editor
from exporter.graph.quantise import restored, table_names
from exporter.graph.rewriting import opened

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from torch.fx import GraphModule, Node


class Watch:
    """A captured graph that is computed in fp32, whatever it is written in.

    `exact` has constants by name that a graph in 16 bits has rounded; each other one is what the graph has.
    """

    def __init__(self, captured: Captured, exact: "Mapping[str, Tensor] | None" = None) -> None:
        self._captured = captured
        self._module: GraphModule = opened(captured, own_weights=False)
        self._exact = exact or {}

    def constants(self) -> "dict[str, Tensor]":
        """Return the constants of floats that the graph reads, by their names in it, in fp32."""
        names = dict.fromkeys(str(node.target) for node in self._module.graph.find_nodes(op="get_attr") if node.users)
        tensors = {name: self._constant(name) for name in names}
        return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}

    def stored(self, precision: Precision) -> "dict[str, Tensor]":
        """Return the constants of floats that a precision changes, as the program reads them back, by their names.

        The graph has its tables as they were.
        """
        import torch

        constants, tables = self.constants(), set[str]()
        if has_own_tables(precision):
            outside = frozenset(self._captured.external.tensors if self._captured.external else ())
            tables = table_names(Editor(self._module, outside))
        forms = {name: tables_of(precision) if name in tables else body_of(precision) for name in constants}
        kept = {name: restored(form, constants[name]) for name, form in forms.items() if form != "fp32"}
        return {name: tensor for name, tensor in kept.items() if not torch.equal(tensor, constants[name])}

    def readers(self) -> dict[str, tuple[str, str]]:
        """Return the first operation that reads each constant: its module, and its name in ATen."""
        modules, first = origins.modules(self._captured), dict[str, tuple[str, str]]()
        for node in self._module.graph.nodes:
            for value in node.all_input_nodes:
                if value.op == "get_attr":
                    first.setdefault(str(value.target), (modules.get(node.name, ""), _operation(node)))
        return first

    def output_nodes(self) -> dict[str, str]:
        """Return the name of the node that each output is, by the output's name."""
        nodes = self._module.graph.output_node().args[0]
        names = [spec.name for spec in self._captured.outputs]
        return {name: node.name for name, node in zip(names, nodes, strict=True)}

    def bytes_per_case(self) -> int:
        """Return the bytes that all values of floats of one case take in fp32."""
        values = (node.meta.get("val") for node in self._module.graph.nodes if node.op == "call_function")
        sizes = (value.numel() for value in values if hasattr(value, "dtype") and value.dtype.is_floating_point)
        return 4 * sum(map(int, sizes))

    def outputs(self, cases: Arrays, replaced: "Mapping[str, Tensor]") -> "dict[str, np.ndarray]":
        """Return the outputs [cases, *shape] by name, with some constants replaced."""
        import numpy as np

        rows = self._run(cases, replaced, lambda _node, _value: None)
        names = [spec.name for spec in self._captured.outputs]
        return {name: np.stack(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}

    def values(self, cases: Arrays, kind: Callable[[str], str | None]) -> tuple[GraphValue, ...]:
        """Return all values of floats that operations give, in the order of the graph.

        `kind` says which normal kind an operation of ATen is, by its name without namespace and overload.
        """
        import numpy as np
        import torch

        seen: dict[Node, list[np.ndarray]] = {}

        def keep(node: "Node", value: Any) -> None:
            if node.op == "call_function" and isinstance(value, torch.Tensor) and value.is_floating_point():
                seen.setdefault(node, []).append(value.numpy().copy())

        self._run(cases, {}, keep)
        modules = origins.modules(self._captured)
        return tuple(
            GraphValue(
                name=node.name,
                module=modules.get(node.name, ""),
                operation=_operation(node),
                kind=kind(_operation(node).partition("[")[0]),
                reads=tuple(value.name for value in _read(node, seen)),
                numbers=np.stack(rows),
            )
            for node, rows in seen.items()
        )

    def _constant(self, name: str) -> "Tensor":
        import torch

        tensor: Tensor = self._exact.get(name, operator.attrgetter(name)(self._module)).detach()
        return tensor.float() if tensor.dtype == torch.float16 else tensor

    def _run(
        self, cases: Arrays, replaced: "Mapping[str, Tensor]", keep: "Callable[[Node, Any], None]"
    ) -> "list[list[np.ndarray]]":
        """Compute each case; return its outputs, and let `keep` see every value."""
        import torch
        from torch.fx import Interpreter
        from torch.fx.node import map_aggregate

        constant = self._constant

        def in_single(value: Any) -> Any:
            return torch.float32 if value is torch.float16 else value

        class Watching(Interpreter):
            def fetch_attr(self, target: str) -> Any:
                return replaced[target] if target in replaced else constant(target)

            def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
                return super().call_function(target, map_aggregate(args, in_single), map_aggregate(kwargs, in_single))

            def run_node(self, n: "Node") -> Any:
                value = super().run_node(n)
                keep(n, value)
                return value

        names = [str(node.target) for node in self._module.graph.find_nodes(op="placeholder")]
        rows = []
        with torch.no_grad():
            for case in zip(*(cases[name] for name in names), strict=True):
                tensors = (torch.from_numpy(array.copy()) for array in case)
                given = Watching(self._module).run(*tensors, enable_io_processing=False)
                rows.append([value.numpy().copy() for value in given])
        return rows


def _read(node: "Node", seen: "Collection[Node]") -> "dict[Node, None]":
    """Return the values among `seen` that an operation reads, or that what it reads is cut or counted from."""
    found: dict[Node, None] = {}
    waiting = list(node.all_input_nodes)
    while waiting:
        value = waiting.pop(0)
        if value in seen:
            found[value] = None
        else:
            waiting += value.all_input_nodes
    return found


def _operation(node: "Node") -> str:
    """Return the name of an operation of ATen without namespace and overload; `split[1]` is a part of what it gives."""
    if node.target is operator.getitem:
        return f"{_operation(node.args[0])}[{node.args[1]}]"
    overload = getattr(node.target, "_schema", None)
    return str(node.target) if overload is None else str(overload.name).rpartition("::")[2]
