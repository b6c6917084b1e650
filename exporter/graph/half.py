"""Rewrite a captured program for 16-bit floats, with its inputs and outputs unchanged."""

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from exporter.core.extras import converting, without_noise
from exporter.core.types import Captured
from exporter.graph.ranges import narrow

if TYPE_CHECKING:
    from torch import nn
    from torch.fx import GraphModule


def within_half(captured: Captured) -> Captured:
    """Return the program, still fp32, with values narrowed for fp16."""
    graph_module = _copy(captured)
    narrow(graph_module)
    return _exported(captured, graph_module)


def half(captured: Captured) -> Captured:
    """Return the program with every fp32 weight, buffer and intermediate in fp16; inputs and outputs stay fp32."""
    import torch

    graph_module = _copy(captured)
    for node in graph_module.graph.nodes:
        # dtypes that the graph names, as in aten.arange(dtype=) and aten.to.dtype(x, dtype)
        node.args = tuple(torch.float16 if value is torch.float32 else value for value in node.args)
        node.kwargs = {key: torch.float16 if value is torch.float32 else value for key, value in node.kwargs.items()}
    graph_module.recompile()
    graph_module.half()

    class Half(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.program = graph_module

        def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            inner = {name: value.half() if value.is_floating_point() else value for name, value in inputs.items()}
            return {name: value.float() for name, value in self.program(**inner).items()}

    return _exported(captured, Half())


def _copy(captured: Captured) -> "GraphModule":
    """Return a copy of the program's graph, since the captured one must not change."""
    with without_noise():
        graph_module: GraphModule = copy.deepcopy(captured.exported.module())
    return graph_module


def _exported(captured: Captured, module: "nn.Module") -> Captured:
    """Return the captured program with `module` in place of what it was."""
    import torch

    with converting(f"torch.export cannot capture {captured.model}/{captured.program} again"):
        exported = torch.export.export(module, args=(), kwargs=captured.exported.example_inputs[1])
    return replace(captured, exported=exported)
