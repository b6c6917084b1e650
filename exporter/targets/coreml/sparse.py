"""Weights of many zeros are kept as their other numbers and a mask of bits, which Core ML spreads as it loads them."""

from typing import Any

from exporter.core.types import Captured

_LEAST_ZEROS = 0.4
"""The share of zeros from which a weight is stored so; the mask takes 1 / 32 of what the whole weight does in fp32."""
_LEAST_NUMBERS = 256
NOISE = (r"OpThresholdPrunerConfig\(", r"weight value has sparsity of", r"Running MIL .*passes/s")
"""What coremltools says of each weight that it leaves as it is."""
_WITHOUT = ("iOS15",)
"""Deployment targets that came before the operation."""


def without_zeros(ct: Any, converted: Any, captured: Captured, deployment_target: str) -> Any:
    """Return a converted model whose weights of many zeros are stored without these, or the model as it is."""
    if deployment_target in _WITHOUT or not _has_zeros(captured):
        return converted
    coreml = ct.optimize.coreml
    pruner = coreml.OpThresholdPrunerConfig(
        threshold=0.0, minimum_sparsity_percentile=_LEAST_ZEROS, weight_threshold=_LEAST_NUMBERS
    )
    return coreml.prune_weights(converted, config=coreml.OptimizationConfig(global_config=pruner))


def _has_zeros(captured: Captured) -> bool:
    """Say whether a weight of a program has that share of zeros, and numbers enough."""
    held = (*captured.exported.state_dict.values(), *captured.exported.constants.values())
    tensors = [tensor for tensor in held if hasattr(tensor, "count_nonzero") and tensor.is_floating_point()]
    return any(
        tensor.numel() >= _LEAST_NUMBERS and int(tensor.count_nonzero()) <= (1 - _LEAST_ZEROS) * tensor.numel()
        for tensor in tensors
    )
