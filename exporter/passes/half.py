"""Rewrite a captured program to 16-bit floats inside, with its inputs and outputs unchanged."""

import copy
from dataclasses import replace

from exporter.core.extras import without_noise
from exporter.core.types import Captured


def half(captured: Captured) -> Captured:
    """Return the program with every fp32 weight, buffer and intermediate in fp16; its inputs and outputs stay as they are."""
    import torch

    graph_module = copy.deepcopy(captured.exported.module())  # halving in place would change the captured program too
    for node in graph_module.graph.nodes:
        if node.op == "call_function" and node.kwargs.get("dtype") is torch.float32:
            node.kwargs = {**node.kwargs, "dtype": torch.float16}
    graph_module.recompile()
    graph_module.half()

    class Half(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.program = graph_module

        def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            return {name: value.float() for name, value in self.program(**inputs).items()}

    with without_noise(r"treespec, LeafSpec", r"return cls\.__new__\(cls, \*args\)"):
        exported = torch.export.export(Half(), args=(), kwargs=captured.exported.example_inputs[1])
    return replace(captured, exported=exported)
