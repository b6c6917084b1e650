"""XNNPACK's passes, but those alone that have something to do.

The delegate's preprocessing sends the graph of every delegate through 17 passes, each of which traces it again; an SCN
has 14 delegates. Most passes look for one operation, and where it is not in the graph they return what they were given.
Two of them also lower models of their own to have patterns to look for. Without all that a program is lowered in about
half the time, to the same bytes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_BATCH_NORM = frozenset(
    {"aten.native_batch_norm.default", "aten._native_batch_norm_legit_no_training.default", "aten.batch_norm.default"}
)
_QUANTIZED = "quantized_decomposed."
NEEDED_FOR = {
    "XNNPACKRemoveCloneOpsTransform": {"aten.clone.default", "dim_order_ops._clone_dim_order.default"},
    "DimOrderOpsRevertPass": {"dim_order_ops."},
    "ConvertToUpsampleBilinear2d": {"aten.index.Tensor", "aten._unsafe_index.Tensor"},
    "ConvertToLinearPass": {"aten.mm.default", "aten.addmm.default", "aten.bmm.default"},
    "PropagateCustomMetaPass": {_QUANTIZED},
    "ConvertToSDPAPass": {"aten._softmax.default"},
    "FuseBatchNormPass": _BATCH_NORM,
    "DecomposeBatchNorm": _BATCH_NORM,
    "FuseActivationPass": {"aten.relu.default", "aten.hardtanh.default"},
    "DecomposeConcatenate": {"aten.cat.default"},
    "RemoveGetItemPass": {"aten.max_pool2d_with_indices.default", "aten.max.dim"},
    "InsertPadQDQPass": {"aten.constant_pad_nd.default"},
    "Conv1dUnsqueezePass": {"aten.convolution.default"},
    "PReLUReshapePass": {"aten._prelu_kernel.default"},
    "RemoveRedundantCopyPass": {"aten._to_copy.default"},
}
"""What each pass of ExecuTorch 1.4.1 looks for, by names of operations or their beginnings; other passes always run."""


@contextmanager
def needed_passes() -> Iterator[None]:
    """Let XNNPACK's preprocessing leave out, in the body, the passes that would find nothing to change."""
    from executorch.backends.xnnpack import xnnpack_preprocess

    every = xnnpack_preprocess.XNNPACKPassManager

    class Needed:
        """Stands for the vendor's manager, and gives it one pass at a time."""

        def __init__(self, exported: Any, passes: list[Any] | None = None) -> None:
            self.exported = exported
            self.passes = list(every(exported, passes).passes)

        def transform(self) -> Any:
            for step in self.passes:
                if is_needed(step.__name__, _operations(self.exported)):
                    self.exported = every(self.exported, [step]).transform()
            return self.exported

    xnnpack_preprocess.XNNPACKPassManager = Needed
    try:
        yield
    finally:
        xnnpack_preprocess.XNNPACKPassManager = every


def is_needed(step: str, operations: set[str]) -> bool:
    """Say whether a graph with these operations has something for a pass to change."""
    beginnings = tuple(NEEDED_FOR.get(step, {""}))
    return any(name.startswith(beginnings) for name in operations)


def _operations(exported: Any) -> set[str]:
    """Return the names of the operations that a program calls."""
    return {node.target.__name__ for node in exported.graph.nodes if node.op == "call_function"}
