"""What a pass is: a rewrite of the captured graph that keeps its outputs, and the forms of the graph that have it."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from exporter.core.extras import converting, without_noise
from exporter.core.types import Arrays, Captured, GraphForm

if TYPE_CHECKING:
    from torch import nn
    from torch.fx import GraphModule


@dataclass(frozen=True)
class Pass:
    """One rewrite, for the forms of a graph that it is part of.

    `rewrite` takes a copy of the graph, which it may change in place, and returns the module that takes its place;
    inputs and outputs stay. `is_needed` is asked with the graph as it was captured and the golden inputs
    [cases, ...] by name, as a rewrite that a program does not need would only cost it time; None: it always is.
    """

    name: str
    forms: frozenset[GraphForm]
    rewrite: "Callable[[GraphModule], nn.Module]"
    is_needed: "Callable[[GraphModule, Arrays], bool] | None" = None

    def apply(self, captured: Captured) -> Captured:
        """Return the program rewritten; raises LoweringError where torch.export cannot trace what came out."""
        import torch

        with without_noise():
            graph_module = copy.deepcopy(captured.exported.module())
        module = self.rewrite(graph_module)
        with converting(f"torch.export cannot capture {captured.model}/{captured.program} after the pass {self.name}"):
            exported = torch.export.export(module, args=(), kwargs=captured.exported.example_inputs[1])
        return replace(captured, exported=exported, plain=captured.plain or captured.exported)
