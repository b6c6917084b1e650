"""Rewrite a captured program to 16-bit floats inside, with its inputs and outputs unchanged."""

import copy
from dataclasses import replace

from exporter.core.extras import without_noise
from exporter.core.types import Captured


def half(captured: Captured) -> Captured:
    """Return the program with every fp32 weight, buffer and intermediate in fp16; inputs and outputs stay fp32."""
    import torch

    with without_noise():  # a copy, because halving in place would change the captured program too
        graph_module = copy.deepcopy(captured.exported.module())
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

    with without_noise():
        exported = torch.export.export(Half(), args=(), kwargs=captured.exported.example_inputs[1])
    return replace(captured, exported=exported)
