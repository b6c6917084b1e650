"""How the values of an ExecuTorch program are seen: it is lowered once more, with all of them as outputs.

The runtime of the wheel is built without its event tracer, and delegates hide what they compute. So what is seen is
what this lowering does, not the artifact's file; who explains compares the constants of both.
"""

import json
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.core.explanation import TracedValue
from exporter.core.extras import converting
from exporter.core.precision import Precision
from exporter.core.types import Arrays, Captured, Options
from safeio import files, strict_json

if TYPE_CHECKING:
    from torch.fx import Node

_NAMES = "values.json"
_MOST_NAMES_BYTES = 16 << 20


class ExecuTorchTracing:
    """Values are those of torch's nodes, by construction."""

    method = "one more lowering with all values as outputs, in which delegates fuse less than in the artifact"

    def lower(self, captured: Captured, precision: Precision, options: Options, folder: Path) -> Path | None:
        """Write model.pte with all values of floats as outputs, in their order, and their names beside it."""
        from exporter.targets.aten import CAPTURED
        from exporter.targets.executorch import TARGET

        with converting(
            f"torch.export cannot give all values of {captured.model}/{captured.program}", captured=captured
        ):
            opened, names = _opened(captured)
        path = TARGET.lower(opened, precision, options, folder)
        rows = [[name, operation, CAPTURED.get(operation)] for name, operation in names]
        files.write_new(folder / _NAMES, json.dumps(rows).encode())
        return path

    def load(self, model_file: Path) -> Callable[[Arrays], Sequence[TracedValue]]:
        """Load what `lower` wrote, with the runtime that also runs artifacts."""
        from exporter.targets.executorch.loader import start

        rows = strict_json.loads(files.read_file(model_file.with_name(_NAMES), _MOST_NAMES_BYTES))
        model = start(1, {}).load(model_file, None)

        def values(case: Arrays) -> list[TracedValue]:
            arrays = model.collect(model.run(model.prepare(dict(case))))
            return [
                TracedValue(name, operation, kind, name, array)
                for (name, operation, kind), array in zip(rows, arrays, strict=True)
            ]

        return values


def _opened(captured: Captured) -> tuple[Captured, list[tuple[str, str]]]:
    """Return a program with all its values of floats as outputs, and the name and operation of each."""
    import torch
    from torch.fx.graph import CodeGen

    module = captured.exported.module(check_guards=False)
    graph = module.graph
    nodes = [node for node in graph.nodes if node.op == "call_function" and _is_float(node)]
    graph.output_node().args = (tuple(nodes),)
    graph.set_codegen(CodeGen())  # inputs by name, and outputs as they stand there
    module.recompile()
    with torch.no_grad():
        exported = torch.export.export(module, args=(), kwargs=captured.exported.example_inputs[1])
    return replace(captured, exported=exported, plain=None), [(node.name, _operation(node)) for node in nodes]


def _is_float(node: "Node") -> bool:
    value: Any = node.meta.get("val")
    return hasattr(value, "is_floating_point") and bool(value.is_floating_point())


def _operation(node: "Node") -> str:
    """Return the name of an operation of ATen without namespace and overload; of a part, that of the whole."""
    if node.target is operator.getitem:
        return _operation(node.args[0])
    overload = getattr(node.target, "_schema", None)
    return str(node.target) if overload is None else str(overload.name).rpartition("::")[2]
