"""torch.export, once per program: every target starts from what is captured here."""

import copy
import inspect
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from exporter.core.errors import LoweringError
from exporter.core.extras import converting
from exporter.core.types import Arrays, Captured, TensorSpec
from safeio import process

if TYPE_CHECKING:
    import torch
    from torch import nn

MOST_USERS = 1 << 20
"""In a call of a program that takes any number of them."""


def capture(model: str, program: str, module: "nn.Module", examples: Arrays, outputs: tuple[str, ...]) -> Captured:
    """Export `module`, whose forward takes `examples` in order and returns one tensor per name in `outputs`.

    The captured program takes its inputs by name and returns a dict, so that every converter sees the same names.
    `module` stays as it is, and its weights are shared, not copied. Raises LoweringError where torch.export cannot
    trace the module.
    """
    exported = trace(f"{model}/{program}", _named(module, tuple(examples), outputs), examples)
    return Captured(
        model=model,
        program=program,
        exported=exported,
        inputs=tuple(TensorSpec(name, tuple(a.shape), a.dtype.name) for name, a in examples.items()),
        outputs=tuple(
            TensorSpec(name, tuple(value.shape), str(value.dtype).removeprefix("torch."))
            for name, value in _results(exported, outputs).items()
        ),
        examples=examples,
    )


def for_any_batch(captured: Captured, module: "nn.Module") -> Captured:
    """Export `module` anew for any number of users on the first axis, which is of one in what was captured of it.

    Torch proves that nothing else in the graph depends on their number. Raises LoweringError where something does, and
    where an output has no such axis.
    """
    import numpy as np
    import torch

    name = f"{captured.model}/{captured.program} for any number of users"
    outputs = tuple(spec.name for spec in captured.outputs)
    # Torch takes a size of one in an example for one that stays.
    examples = {spec.name: np.concatenate([captured.examples[spec.name]] * 2) for spec in captured.inputs}
    users = torch.export.Dim("users", min=1, max=MOST_USERS)
    exported = trace(name, _named(module, tuple(examples), outputs), examples, {one: {0: users} for one in examples})
    for output, value in _results(exported, outputs).items():
        if value.dim() == 0 or isinstance(value.shape[0], int):
            raise LoweringError(f"torch.export cannot capture {name}: {output!r} has no axis of users")
    return replace(captured, exported=exported, any_batch=True)


def _named(module: "nn.Module", inputs: tuple[str, ...], outputs: tuple[str, ...]) -> "nn.Module":
    """Return a module that takes its inputs by name and returns its outputs by name."""
    import torch

    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.program = module

        def forward(self, **given: torch.Tensor) -> dict[str, torch.Tensor]:
            values = self.program(*(given[name] for name in inputs))
            return dict(zip(outputs, (values,) if isinstance(values, torch.Tensor) else values, strict=True))

    # Where sizes are free, torch.export looks for each input's name here.
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    parameters += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in inputs]
    Named.forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return Named()


def _results(exported: Any, outputs: tuple[str, ...]) -> "dict[str, torch.Tensor]":
    """Return torch's fake tensors of the outputs by name: shapes, for which nothing is computed."""
    results = [node.meta["val"] for node in exported.graph.output_node().args[0]]
    return dict(zip(outputs, results[-len(outputs) :], strict=True))


def trace(name: str, module: "nn.Module", examples: Arrays, free: Mapping[str, Mapping[int, Any]] | None = None) -> Any:
    """Return torch's ExportedProgram of a module that takes `examples` by name; the module itself stays as it is.

    `free` has torch's Dim of the axes whose sizes are no part of the program, by input; None: all sizes are. Raises
    LoweringError where torch.export cannot trace it.
    """
    import torch

    # An axis of one that numpy added has stride 0, which ExecuTorch refuses; numpy's own copy has none.
    tensors = {name: torch.from_numpy(array.copy()) for name, array in examples.items()}
    # The first call imports half of torch.
    with (
        converting(f"torch.export cannot capture {name}"),
        torch.no_grad(),
        process.importing(),
        warnings.catch_warnings(),
    ):
        # What a GRU calls its weights besides, which are parameters too.
        warnings.filterwarnings("ignore", "The tensor attributes .*_flat_weights")
        return torch.export.export(
            _with_persistent_buffers(module).eval(), args=(), kwargs=tensors, dynamic_shapes=free
        )


def _with_persistent_buffers(module: "nn.Module") -> "nn.Module":
    """Return a copy of a module, on the same weights and buffers, whose buffers are all persistent.

    Converters that trace a captured program again look for its buffers among the persistent ones only.
    """
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    twin = copy.deepcopy(module, shared)  # what a memo holds already is taken from it
    for part in twin.modules():
        for name, buffer in list(part.named_buffers(recurse=False)):
            part.register_buffer(name, buffer, persistent=True)
    return twin
