"""ExecuTorch programs (.pte): XNNPACK or portable kernels, or a delegate that only a phone has."""

import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from exporter.core import kinds
from exporter.core.errors import ArtifactError, LoweringError
from exporter.core.extras import require, without_noise
from exporter.core.types import Captured, DataFile, ExternalWeights, MemoryPlan, Operation, Precision
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
LAYOUT_FILE = "layout.json"
DATA_FILE = "weights.ptd"

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
    external_weights: Literal["inputs", "parameters"] = "parameters"

    def wants_half(self, options: Mapping[str, Any]) -> bool:
        """The Core ML delegate has a precision of its own; every other one takes the graph as it is."""
        return bool(options["delegate"] != "coreml")

    def unverifiable(self, options: Mapping[str, Any]) -> str | None:
        """Return why nothing here can run a delegate that only the device has."""
        return _UNVERIFIABLE.get(options["delegate"])

    def lower(self, captured: Captured, precision: Precision, options: Mapping[str, Any], folder: Path) -> Path:
        """Write model.pte and operations.json; with external weights also weights.ptd, and layout.json to find them."""
        with without_noise(*_NOISE):
            exir = require("executorch.exir", self.extra)
            external = captured.external if captured.external and captured.external.tensors else None
            try:
                exported, stand_ins = (captured.exported, {}) if external is None else _stand_ins(captured, external)
                edge = exir.to_edge_transform_and_lower(
                    exported, partitioner=_partitioners(options["delegate"], precision)
                )
                operations = [vars(operation) for operation in _operations(edge.exported_program().graph_module)]
                program = edge.to_executorch(_backend_config(edge, tuple(stand_ins)))
            except Exception as error:  # the partitioners raise whatever their passes raise
                raise LoweringError(f"ExecuTorch refused {captured.model}/{captured.program}: {error}") from error
            path = folder / "model.pte"
            path.write_bytes(program.buffer)
            if external is not None:
                _write_data(folder, program, stand_ins, external)
        (folder / OPERATIONS_FILE).write_text(json.dumps(operations))
        return path

    def data_file(self, model_file: Path) -> DataFile | None:
        """Read layout.json, where there is one."""
        path = model_file.with_name(LAYOUT_FILE)
        if not path.exists():
            return None
        try:
            layout = json.loads(path.read_text())
            return DataFile(DATA_FILE, {name: (int(at), str(dtype)) for name, (at, dtype) in layout.items()})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ArtifactError(f"{path}: not readable as places of weights; export the artifact again") from error

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
        if self.data_file(model_file) is not None:
            constants += model_file.with_name(DATA_FILE).stat().st_size
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


def _stand_ins(captured: Captured, external: ExternalWeights) -> tuple[Any, dict[str, Any]]:
    """Return the program with random numbers in place of its external weights, tagged as such, and those numbers.

    What is lowered holds nothing of the weights themselves, and each tensor can be told from all others by its bytes:
    XNNPACK names constants after their content, so that two equal ones would become one.
    """
    import torch
    from executorch.exir.passes.external_constants_pass import delegate_external_constants_pass_unlifted

    module = captured.exported.module()
    random = torch.Generator().manual_seed(0)
    found = {}
    with torch.no_grad():
        for path, parameter in module.named_parameters():
            name = path.rpartition(".")[2]
            if name in external.tensors:
                parameter.copy_(torch.randn(parameter.shape, generator=random))
                found[name] = parameter.detach().numpy().copy()
    delegate_external_constants_pass_unlifted(module, lambda node: _tag(node.target, tuple(found)))
    return torch.export.export(module, args=(), kwargs=captured.exported.example_inputs[1]), found


def _tag(target: object, names: Sequence[str]) -> str | None:
    """Return the data file of a constant, or None for one that stays in the program."""
    return Path(DATA_FILE).stem if str(target).rpartition(".")[2] in names else None


def _backend_config(edge: Any, names: Sequence[str]) -> Any:
    exir = require("executorch.exir", "executorch")
    parameters = edge.exported_program().graph_signature.inputs_to_parameters
    return exir.ExecutorchBackendConfig(
        external_constants=lambda node: _tag(parameters.get(node.target), names) if names else None
    )


def _write_data(folder: Path, program: Any, stand_ins: Mapping[str, Any], external: ExternalWeights) -> None:
    """Write weights.ptd with the weights themselves, and layout.json; raises LoweringError where one is not in it."""
    from exporter.core import package  # it needs numpy, which the command line does not want when it starts

    program.write_tensor_data_to_file(str(folder))
    data = (folder / DATA_FILE).read_bytes()
    places: dict[str, tuple[int, str]] = {}
    for name, numbers in stand_ins.items():
        for dtype in ("float32", "float16"):
            content = numbers.astype(dtype).tobytes()
            if data.count(content) == 1:
                places[name] = data.index(content), dtype
    missing = [name for name in external.tensors if name not in places]
    if missing:
        raise LoweringError(f"ExecuTorch did not put the weights {missing[0]} into its data file as they are")
    (folder / DATA_FILE).write_bytes(package.patch(data, DataFile(DATA_FILE, places), external.tensors))
    (folder / LAYOUT_FILE).write_text(json.dumps(places))


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
