"""ExecuTorch programs (.pte): XNNPACK or portable kernels, or a delegate that only a phone has."""

import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from exporter.core import kinds
from exporter.core.errors import ArtifactError, LoweringError
from exporter.core.extras import require, without_noise
from exporter.core.types import Captured, MemoryPlan, Operation, Precision
from exporter.targets.coreml import NOISE as COREML_NOISE

_NOISE = (
    *COREML_NOISE,
    r"was exported with CoreML specification version",  # the artifact's profile states the deployment target
)
_UNVERIFIABLE = {
    "coreml": "the Core ML delegate runs on Apple devices only; the host's ExecuTorch runtime has no such backend",
    "vulkan": "the Vulkan delegate needs a GPU driver of the device; the host's ExecuTorch runtime has no such backend",
}
OPERATIONS_FILE = "operations.json"

# ATen operator of the edge dialect, without its overload -> normal kind
_KINDS = {
    "linear": kinds.LINEAR,
    "addmm": kinds.MATMUL,
    "mm": kinds.MATMUL,
    "bmm": kinds.MATMUL,
    "matmul": kinds.MATMUL,
    "convolution": kinds.CONVOLUTION,
    "add": kinds.ADD,
    "sub": kinds.SUBTRACT,
    "mul": kinds.MULTIPLY,
    "div": kinds.DIVIDE,
    "pow": kinds.POWER,
    "remainder": kinds.REMAINDER,
    "minimum": kinds.MINIMUM,
    "maximum": kinds.MAXIMUM,
    "clamp": kinds.MAXIMUM,
    "eq": kinds.COMPARE,
    "ne": kinds.COMPARE,
    "ge": kinds.COMPARE,
    "gt": kinds.COMPARE,
    "le": kinds.COMPARE,
    "lt": kinds.COMPARE,
    "logical_and": kinds.LOGICAL,
    "logical_or": kinds.LOGICAL,
    "logical_not": kinds.LOGICAL,
    "bitwise_and": kinds.LOGICAL,
    "where": kinds.SELECT,
    "abs": kinds.ABSOLUTE,
    "neg": kinds.NEGATE,
    "exp": kinds.EXP,
    "log": kinds.LOG,
    "sqrt": kinds.SQRT,
    "rsqrt": kinds.RSQRT,
    "reciprocal": kinds.RECIPROCAL,
    "tanh": kinds.TANH,
    "sigmoid": kinds.SIGMOID,
    "erf": kinds.ERF,
    "sin": kinds.SINE,
    "cos": kinds.COSINE,
    "relu": kinds.RELU,
    "leaky_relu": kinds.LEAKY_RELU,
    "gelu": kinds.GELU,
    "_softmax": kinds.SOFTMAX,
    "softmax": kinds.SOFTMAX,
    "native_layer_norm": kinds.LAYER_NORMALIZATION,
    "layer_norm": kinds.LAYER_NORMALIZATION,
    "sum": kinds.REDUCE_SUM,
    "mean": kinds.REDUCE_MEAN,
    "amax": kinds.REDUCE_EXTREME,
    "amin": kinds.REDUCE_EXTREME,
    "var": kinds.REDUCE_VARIANCE,
    "cumsum": kinds.CUMULATIVE_SUM,
    "embedding": kinds.GATHER,
    "gather": kinds.GATHER,
    "index": kinds.GATHER,
    "index_select": kinds.GATHER,
    "_to_copy": kinds.MOVE,
    "arange": kinds.MOVE,
    "_to_dim_order_copy": kinds.MOVE,
    "_clone_dim_order": kinds.MOVE,
    "cat": kinds.MOVE,
    "clone": kinds.MOVE,
    "constant_pad_nd": kinds.MOVE,
    "expand_copy": kinds.MOVE,
    "full": kinds.MOVE,
    "full_like": kinds.MOVE,
    "zeros_like": kinds.MOVE,
    "permute_copy": kinds.MOVE,
    "repeat": kinds.MOVE,
    "select_copy": kinds.MOVE,
    "slice_copy": kinds.MOVE,
    "split_with_sizes_copy": kinds.MOVE,
    "squeeze_copy": kinds.MOVE,
    "stack": kinds.MOVE,
    "t_copy": kinds.MOVE,
    "tril": kinds.MOVE,
    "unbind_copy": kinds.MOVE,
    "unsqueeze_copy": kinds.MOVE,
    "view_copy": kinds.MOVE,
}


class ExecuTorchTarget:
    """`.pte` files; operations.json beside it keeps the graph that a delegate takes in and hides."""

    name = "executorch"
    extra = "executorch"
    packages: tuple[str, ...] = ("executorch",)
    precisions: tuple[Precision, ...] = ("fp32", "fp16")

    def wants_half(self, options: Mapping[str, Any]) -> bool:
        """The Core ML delegate has a precision of its own; every other one takes the graph as it is."""
        return bool(options["delegate"] != "coreml")

    def unverifiable(self, options: Mapping[str, Any]) -> str | None:
        """Return why nothing here can run a delegate that only the device has."""
        return _UNVERIFIABLE.get(options["delegate"])

    def lower(self, captured: Captured, precision: Precision, options: Mapping[str, Any], folder: Path) -> Path:
        """Write model.pte and operations.json."""
        with without_noise(*_NOISE):
            exir = require("executorch.exir", self.extra)
            try:
                edge = exir.to_edge_transform_and_lower(
                    captured.exported, partitioner=_partitioners(options["delegate"], precision)
                )
                operations = [vars(operation) for operation in _operations(edge.exported_program().graph_module)]
                program = edge.to_executorch()
            except Exception as error:  # the partitioners raise whatever their passes raise
                raise LoweringError(f"ExecuTorch refused {captured.model}/{captured.program}: {error}") from error
        path = folder / "model.pte"
        path.write_bytes(program.buffer)
        (folder / OPERATIONS_FILE).write_text(json.dumps(operations))
        return path

    def operations(self, model_file: Path) -> Sequence[Operation]:
        """Read operations.json, the edge program as it was before the delegates took their parts."""
        path = model_file.with_name(OPERATIONS_FILE)
        try:
            return [_operation(entry) for entry in json.loads(path.read_text())]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path}: not readable as a list of operations; export the artifact again") from error

    def memory_plan(self, model_file: Path) -> MemoryPlan:
        """Read the sizes that ExecuTorch planned from the program itself."""
        with without_noise(*_NOISE):
            serialize = require("executorch.exir._serialize._program", self.extra)
            try:
                data = model_file.read_bytes()
                file = serialize.deserialize_pte_binary(data)
                plan = file.program.execution_plan[0]
            except Exception as error:  # the flatbuffer reader has no error class of its own
                raise ArtifactError(f"{model_file}: not a readable ExecuTorch program; export it again") from error
        constants = sum(len(buffer.storage) for buffer in file.program.constant_buffer)
        constants += sum(len(delegate.data) for delegate in file.program.backend_delegate_data)
        if file.named_data is not None:
            constants += sum(len(buffer) for buffer in file.named_data.buffers)
        return MemoryPlan(
            constant_bytes=constants,
            planned_activation_bytes=sum(plan.non_const_buffer_sizes),
            plan_method="ExecuTorch's own memory plan (non_const_buffer_sizes); workspace inside a delegate is not in"
            " it, delegate payloads count as constants",
        )


def _partitioners(delegate: str, precision: Precision) -> list[Any]:
    match delegate:
        case "portable":
            return []
        case "xnnpack":
            module = require("executorch.backends.xnnpack.partition.xnnpack_partitioner", "executorch")
            return [module.XnnpackPartitioner()]
        case "vulkan":
            module = require("executorch.backends.vulkan.partitioner.vulkan_partitioner", "executorch")
            return [module.VulkanPartitioner()]
        case _:
            module = require("executorch.backends.apple.coreml.partition", "executorch")
            compiler = require("executorch.backends.apple.coreml.compiler", "executorch")
            ct = require("coremltools", "coreml")
            specs = (
                compiler.CoreMLBackend.generate_compile_specs(  # the delegate's own default is fp16 whatever comes in
                    compute_precision={"fp32": ct.precision.FLOAT32, "fp16": ct.precision.FLOAT16}[precision]
                )
            )
            return [module.CoreMLPartitioner(compile_specs=specs)]


def _operations(graph_module: Any, delegate: str | None = None) -> Iterator[Operation]:
    """Walk an edge graph in order; a delegate call is replaced by the operations that went into it."""
    for node in graph_module.graph.nodes:
        if node.op != "call_function" or node.target is operator.getitem:
            continue
        if node.target.__name__ == "executorch_call_delegate":
            lowered = getattr(graph_module, node.args[0].target)
            yield from _operations(lowered.original_module.graph_module, lowered.backend_id)
            continue
        native = getattr(node.target, "_name", None) or str(node.target)
        name = native.partition("::")[2].partition(".")[0] or native
        inputs = [_shape(source) for source in node.all_input_nodes]
        kind = _KINDS.get(name)
        yield Operation(
            name=node.name,
            native=native,
            kind=kind,
            inputs=tuple(inputs[1:] if name == "addmm" else inputs),  # addmm(bias, x, y)
            outputs=_shapes(node),
            delegate=delegate,
        )


def _shape(node: Any) -> tuple[int, ...]:
    shapes = _shapes(node)
    return shapes[0] if shapes else ()


def _shapes(node: Any) -> tuple[tuple[int, ...], ...]:
    value = node.meta.get("val")
    values = value if isinstance(value, tuple | list) else (value,)
    return tuple(tuple(int(extent) for extent in part.shape) for part in values if hasattr(part, "shape"))


def _operation(entry: Any) -> Operation:
    return Operation(
        name=str(entry["name"]),
        native=str(entry["native"]),
        kind=entry["kind"],
        inputs=tuple(tuple(map(int, shape)) for shape in entry["inputs"]),
        outputs=tuple(tuple(map(int, shape)) for shape in entry["outputs"]),
        attributes=dict(entry["attributes"]),
        delegate=entry["delegate"],
    )
