"""torch.export, once per program: every target starts from what is captured here."""

import copy
from typing import TYPE_CHECKING

from exporter.core.extras import converting
from exporter.core.types import Arrays, Captured, TensorSpec

if TYPE_CHECKING:
    from torch import nn


def capture(model: str, program: str, module: "nn.Module", examples: Arrays, outputs: tuple[str, ...]) -> Captured:
    """Export `module`, whose forward takes `examples` in order and returns one tensor per name in `outputs`.

    The captured program takes its inputs by name and returns a dict, so that every converter sees the same names.
    `module` stays as it is, and its weights are shared, not copied. Raises LoweringError where torch.export cannot
    trace the module.
    """
    import torch

    to_trace = _with_persistent_buffers(module)

    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.program = to_trace

        def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            values = self.program(*(inputs[name] for name in examples))
            return dict(zip(outputs, (values,) if isinstance(values, torch.Tensor) else values, strict=True))

    # An axis of one that numpy added has stride 0, which ExecuTorch refuses; numpy's own copy has none.
    tensors = {name: torch.from_numpy(array.copy()) for name, array in examples.items()}
    with converting(f"torch.export cannot capture {model}/{program}"), torch.no_grad():
        exported = torch.export.export(Named().eval(), args=(), kwargs=tensors)
        values = exported.module()(**tensors)
    return Captured(
        model=model,
        program=program,
        exported=exported,
        inputs=tuple(TensorSpec(name, tuple(a.shape), a.dtype.name) for name, a in examples.items()),
        outputs=tuple(
            TensorSpec(name, tuple(v.shape), str(v.dtype).removeprefix("torch.")) for name, v in values.items()
        ),
        examples=examples,
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
