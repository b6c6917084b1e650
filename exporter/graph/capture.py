"""torch.export, once per program: every target starts from what is captured here."""

import copy
import warnings
from typing import TYPE_CHECKING, Any

from exporter.core.extras import converting
from exporter.core.types import Arrays, Captured, TensorSpec
from safeio import process

if TYPE_CHECKING:
    from torch import nn


def capture(model: str, program: str, module: "nn.Module", examples: Arrays, outputs: tuple[str, ...]) -> Captured:
    """Export `module`, whose forward takes `examples` in order and returns one tensor per name in `outputs`.

    The captured program takes its inputs by name and returns a dict, so that every converter sees the same names.
    `module` stays as it is, and its weights are shared, not copied. Raises LoweringError where torch.export cannot
    trace the module.
    """
    import torch

    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.program = module

        def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            values = self.program(*(inputs[name] for name in examples))
            return dict(zip(outputs, (values,) if isinstance(values, torch.Tensor) else values, strict=True))

    exported = trace(f"{model}/{program}", Named(), examples)
    results = [node.meta["val"] for node in exported.graph.output_node().args[0]]  # shapes: nothing is computed
    return Captured(
        model=model,
        program=program,
        exported=exported,
        inputs=tuple(TensorSpec(name, tuple(a.shape), a.dtype.name) for name, a in examples.items()),
        outputs=tuple(
            TensorSpec(name, tuple(v.shape), str(v.dtype).removeprefix("torch."))
            for name, v in zip(outputs, results[-len(outputs) :], strict=True)
        ),
        examples=examples,
    )


def trace(name: str, module: "nn.Module", examples: Arrays) -> Any:
    """Return torch's ExportedProgram of a module that takes `examples` by name; the module itself stays as it is.

    Raises LoweringError where torch.export cannot trace it.
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
        return torch.export.export(_with_persistent_buffers(module).eval(), args=(), kwargs=tensors)


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
