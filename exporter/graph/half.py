"""The pass `half`: all that a program computes in 16-bit floats, with its inputs and outputs unchanged."""

from typing import TYPE_CHECKING

from exporter.graph.rewriting import Pass

if TYPE_CHECKING:
    from torch import nn
    from torch.fx import GraphModule


def _half(graph_module: "GraphModule") -> "nn.Module":
    """Return the program with all that is fp32 inside in fp16; its inputs and outputs stay as they are."""
    import torch

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
            given = self.program(**inner).items()
            return {name: value.float() if value.is_floating_point() else value for name, value in given}

    return Half()


PASS = Pass("half", frozenset({"half"}), _half)
