"""What a pass is: a rewrite of the captured graph that keeps its outputs, and the forms of the graph that have it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from exporter.core.extras import converting, without_noise
from exporter.core.precision import Fold
from exporter.core.types import Arrays, Captured, GraphForm
from exporter.graph import origins
from exporter.graph.editing import Editor

if TYPE_CHECKING:
    from torch.fx import GraphModule

_ASSERTS = ("aten._assert_tensor_metadata.default",)
"""What torch.export assumed; it says so anew of what comes out."""


GROWTH: Mapping[Fold, float] = {"none": 0.0, "same_size": 1.02, "double": 2.02, "all": math.inf}
"""The bytes of constants that a program may have, in those that it has before its rows are folded."""

EVERY_FORM: frozenset[GraphForm] = frozenset({"captured", "within_half", "half"})


@dataclass(frozen=True)
class Pass:
    """One rewrite, for the forms of a graph that it is part of.

    `rewrite` changes a graph in place and returns at how many places it did; inputs and outputs stay. `summary` is one
    line for people. `is_needed` is asked with the graph before the pass and the golden inputs [cases, ...] by name, as
    a rewrite that a program does not need would only cost it time; None: it always is. `growth` is by what factor
    the bytes of constants may grow, None for a pass that does not make them grow.
    """

    name: str
    summary: str
    forms: frozenset[GraphForm]
    rewrite: Callable[[Editor], int]
    is_needed: "Callable[[GraphModule, Arrays], bool] | None" = None
    growth: float | None = None

    @property
    def is_optional(self) -> bool:
        """Say whether a program can be lowered without it: what fp32 has is there for speed, and no form needs it."""
        return "captured" in self.forms


def opened(captured: Captured, own_weights: bool) -> "GraphModule":
    """Return the graph of a captured program as a module that can be rewritten.

    With `own_weights` its weights are copies, else those of the program itself, which no pass may change.
    """
    import copy

    import torch

    with without_noise():
        module: GraphModule = captured.exported.module(check_guards=False)
        if own_weights:
            module = copy.deepcopy(module)
    for node in [node for node in module.graph.nodes if str(node.target) in _ASSERTS]:
        module.graph.erase_node(node)
    # torch.export writes a tensor that is a literal in the code as a constant, detached in place: that changes nothing.
    for node in module.graph.find_nodes(op="call_function", target=torch.ops.aten.detach_.default):
        node.replace_all_uses_with(node.args[0])
        module.graph.erase_node(node)
    return module


def copied(module: "GraphModule") -> "GraphModule":
    """Return a copy of a module, on the same weights, that can be rewritten.

    It has all weights of the module in their order, those that nothing reads too: torch.export names them so.
    """
    import copy

    from torch.fx import GraphModule

    twin = GraphModule(module, copy.deepcopy(module.graph))
    for name, value in vars(module).items():
        if name in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            vars(twin)[name] = copy.copy(value)
        elif name == "meta":
            twin.meta = dict(value)
        else:
            vars(twin).setdefault(name, value)
    return twin


def apply(module: "GraphModule", step: Pass, captured: Captured) -> int:
    """Let a pass rewrite a module; return at how many places it did. Raises LoweringError where it cannot."""
    outside = frozenset(captured.external.tensors if captured.external else ())
    with converting(f"the pass {step.name} cannot rewrite {captured.model}/{captured.program}"):
        editor = Editor(module, outside, 1.0 if step.growth is None else step.growth)
        places = step.rewrite(editor)
        editor.finish()
    return places


def closed(captured: Captured, module: "GraphModule", names: Sequence[str]) -> Captured:
    """Return the captured program with a rewritten graph; raises LoweringError where torch.export cannot trace it."""
    import torch

    after = f"torch.export cannot capture {captured.model}/{captured.program} after the passes {', '.join(names)}"
    with converting(after), torch.no_grad():
        exported = torch.export.export(module, args=(), kwargs=captured.exported.example_inputs[1])
    modules = origins.carried(module.graph, exported.graph)
    return replace(captured, exported=exported, plain=captured.plain or captured.exported, modules=modules)
