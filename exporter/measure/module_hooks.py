"""The count of the CoCorrRec paper's Table 4: what a counter on module hooks sees of the MACs, and nothing else.

Such counters (thop, calflops) add up rules per module type when a module is called. What forward computes with plain
functions and products (attention, scans, SCN's test-time training) is not in it, so this is a way to reproduce the
published figures and never the cost of a model.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class HookCount:
    """MACs of one call by the type of module, and how often each type without a rule was called."""

    macs: int
    by_module: Mapping[str, int]
    without_rule: Mapping[str, int]


def count(model: "nn.Module", call: Callable[[], Any]) -> HookCount:
    """Count what hooks see of `call`, which uses the leaf modules of `model`."""
    import torch

    macs: Counter[str] = Counter()
    without_rule: Counter[str] = Counter()

    def seen(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        kind = _kind(module)
        if kind is None:
            without_rule[type(module).__name__] += 1
        else:
            macs[kind] += _RULES[kind](module, inputs, output)

    leaves = [module for module in model.modules() if _kind(module) or not any(module.children())]
    handles = [module.register_forward_hook(seen) for module in leaves]
    try:
        with torch.no_grad():
            call()
    finally:
        for handle in handles:
            handle.remove()
    return HookCount(sum(macs.values()), dict(macs), dict(without_rule))


def _kind(module: Any) -> str | None:
    """Return the name of the class with a rule that a module is of."""
    return next((base.__name__ for base in type(module).__mro__ if base.__name__ in _RULES), None)


def _linear(module: Any, _inputs: Any, output: Any) -> int:
    """One MAC for each result and input feature; no bias."""
    return int(output.numel() * module.in_features)


def _layer_norm(module: Any, inputs: Any, _output: Any) -> int:
    """Centre and scale, 2 an element; 4 with the learned scale and shift."""
    return int(inputs[0].numel()) * (4 if module.elementwise_affine else 2)


def _gru(module: Any, inputs: Any, _output: Any) -> int:
    """Three gates of two products and H additions, 2 H for biases; r * h and (1 - z) * n + z * h add 4 H a step."""
    width, units = int(module.input_size), int(module.hidden_size)
    gate = (units + width) * units + units + (2 * units if getattr(module, "bias", True) else 0)
    return int(inputs[0].numel()) // width * (3 * gate + 4 * units)


def _convolution(module: Any, _inputs: Any, output: Any) -> int:
    """One MAC for each result, input channel of the group and kernel element; no bias."""
    return int(output.numel() * (module.in_channels // module.groups) * module.weight[0, 0].numel())


_RULES: Final[Mapping[str, Callable[[Any, Any, Any], int]]] = {
    "Linear": _linear,
    "LayerNorm": _layer_norm,
    "GRU": _gru,
    "Conv1d": _convolution,
    "Conv2d": _convolution,
}
