"""Core ML programs (.mlpackage) through coremltools."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from exporter.core import kinds
from exporter.core.errors import LoweringError
from exporter.core.extras import require, without_noise
from exporter.core.liveness import Lifetime, arena_bytes
from exporter.core.types import Captured, DataFile, MemoryPlan, Operation, Precision

NOISE = (
    r"Failed to load _ML\w+: No module named 'coremltools\.libcoremlpython'",
    r"Torch version .* has not been tested with coremltools",
    r"scikit-learn version .* is not supported",
    r"Saving value type of int64 into a builtin type of int32",  # ids and shapes: they fit
    r"gather\) layer does not support any inputs besides the weights and indices",  # padding_idx is for training
    r"torchao/_C\w*\..*\.so: Could not load this library",
    r"KernelPreference.* is an Enum subclass",
)

_KINDS = {
    "matmul": kinds.MATMUL,
    "linear": kinds.LINEAR,
    "conv": kinds.CONVOLUTION,
    "conv_transpose": kinds.TRANSPOSED_CONVOLUTION,
    "add": kinds.ADD,
    "sub": kinds.SUBTRACT,
    "mul": kinds.MULTIPLY,
    "real_div": kinds.DIVIDE,
    "floor_div": kinds.FLOOR_DIVIDE,
    "mod": kinds.REMAINDER,
    "pow": kinds.POWER,
    "minimum": kinds.MINIMUM,
    "maximum": kinds.MAXIMUM,
    "clip": kinds.MAXIMUM,
    "equal": kinds.COMPARE,
    "not_equal": kinds.COMPARE,
    "greater": kinds.COMPARE,
    "greater_equal": kinds.COMPARE,
    "less": kinds.COMPARE,
    "less_equal": kinds.COMPARE,
    "logical_and": kinds.LOGICAL,
    "logical_or": kinds.LOGICAL,
    "logical_not": kinds.LOGICAL,
    "select": kinds.SELECT,
    "abs": kinds.ABSOLUTE,
    "exp": kinds.EXP,
    "log": kinds.LOG,
    "square": kinds.SQUARE,
    "sqrt": kinds.SQRT,
    "rsqrt": kinds.RSQRT,
    "inverse": kinds.RECIPROCAL,
    "tanh": kinds.TANH,
    "sigmoid": kinds.SIGMOID,
    "erf": kinds.ERF,
    "sin": kinds.SINE,
    "cos": kinds.COSINE,
    "relu": kinds.RELU,
    "leaky_relu": kinds.LEAKY_RELU,
    "gelu": kinds.GELU,
    "silu": kinds.SILU,
    "softplus": kinds.SOFTPLUS,
    "softmax": kinds.SOFTMAX,
    "layer_norm": kinds.LAYER_NORMALIZATION,
    "batch_norm": kinds.BATCH_NORMALIZATION,
    "l2_norm": kinds.L2_NORMALIZATION,
    "reduce_sum": kinds.REDUCE_SUM,
    "reduce_mean": kinds.REDUCE_MEAN,
    "reduce_max": kinds.REDUCE_EXTREME,
    "reduce_min": kinds.REDUCE_EXTREME,
    "reduce_prod": kinds.REDUCE_PRODUCT,
    "reduce_l2_norm": kinds.REDUCE_L2,
    "cumsum": kinds.CUMULATIVE_SUM,
    "gather": kinds.GATHER,
    "gather_along_axis": kinds.GATHER,
    "gather_nd": kinds.GATHER,
    "cast": kinds.MOVE,
    "concat": kinds.MOVE,
    "expand_dims": kinds.MOVE,
    "fill": kinds.MOVE,
    "identity": kinds.MOVE,
    "pad": kinds.MOVE,
    "range_1d": kinds.MOVE,
    "reshape": kinds.MOVE,
    "slice_by_index": kinds.MOVE,
    "slice_by_size": kinds.MOVE,
    "split": kinds.MOVE,
    "squeeze": kinds.MOVE,
    "stack": kinds.MOVE,
    "tile": kinds.MOVE,
    "transpose": kinds.MOVE,
    "shape": kinds.SHAPE,
}


class CoreMLTarget:
    """`.mlpackage` folders, ML Programs only."""

    name = "coreml"
    extra = "coreml"
    packages: tuple[str, ...] = ("coremltools",)
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    external_weights: Literal["inputs", "parameters"] = "inputs"

    def wants_half(self, options: Mapping[str, Any]) -> bool:
        """The converter changes the precision itself."""
        return False

    def unverifiable(self, options: Mapping[str, Any]) -> str | None:
        """Return None: Core ML runs on macOS, and the reference interpreter everywhere else."""
        return None

    def lower(self, captured: Captured, precision: Precision, options: Mapping[str, Any], folder: Path) -> Path:
        """Write model.mlpackage; inputs and outputs stay int32 and float32 at every precision."""
        with without_noise(*NOISE):
            np = require("numpy", self.extra)
            ct = require("coremltools", self.extra)
            try:
                package = ct.convert(
                    captured.exported.run_decompositions({}),
                    outputs=[
                        ct.TensorType(name=spec.name, dtype=np.dtype(spec.dtype).type) for spec in captured.outputs
                    ],
                    minimum_deployment_target=getattr(ct.target, options["deployment_target"]),
                    compute_precision={"fp32": ct.precision.FLOAT32, "fp16": ct.precision.FLOAT16}[precision],
                    skip_model_load=True,
                )
                path = folder / "model.mlpackage"
                package.save(str(path))
            except Exception as error:  # coremltools raises whatever its passes raise
                raise LoweringError(f"coremltools refused {captured.model}/{captured.program}: {error}") from error
        (path / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)
        return path

    def data_file(self, model_file: Path) -> DataFile | None:
        """Return None: weights that stay outside are inputs."""
        return None

    def operations(self, model_file: Path) -> Sequence[Operation]:
        """Read the operations of the default function, constants left out."""
        from exporter import mil  # it needs numpy, which the command line does not want when it starts

        return [
            Operation(
                name=info.name,
                native=info.type,
                kind=_KINDS.get(info.type),
                inputs=tuple(spec.shape for spec in info.inputs),
                outputs=tuple(spec.shape for spec in info.outputs),
                attributes=info.attributes,
            )
            for info in mil.load(model_file).function().operations
        ]

    def memory_plan(self, model_file: Path) -> MemoryPlan:
        """Sum the stored constants, and plan an arena over the lifetimes of the default function's values."""
        from exporter import mil

        function = mil.load(model_file).function()
        constants = sum(constant.bytes for constant in function.constants)
        unknown = [value.name for value in function.values if value.bytes is None]
        if unknown:
            return MemoryPlan(constants, None, "", f"the size of {unknown[0]!r} is only known in a run")
        lifetimes = [Lifetime(value.bytes or 0, value.first, value.last) for value in function.values]
        return MemoryPlan(
            constant_bytes=constants,
            planned_activation_bytes=arena_bytes(lifetimes),
            plan_method="greedy-by-size arena over the lifetimes of the program's values in order, 64-byte aligned;"
            " Core ML plans for itself and does not tell",
        )
