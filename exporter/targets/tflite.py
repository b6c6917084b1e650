"""TFLite models through litert-torch, for LiteRT."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from exporter.core import kinds
from exporter.core.errors import ArtifactError, LoweringError
from exporter.core.extras import require, without_noise
from exporter.core.liveness import arena_bytes
from exporter.core.types import (
    Captured,
    Constant,
    DataFile,
    GraphForm,
    Lowered,
    MemoryPlan,
    Operation,
    Precision,
    stored_bytes,
)
from exporter.targets.coreml import NOISE as TORCHAO_NOISE
from exporter.targets.tflite_plan import Step, lifetimes, shape_of

_NOISE = (
    *TORCHAO_NOISE,
    r"Your model is converted in training mode",  # a captured graph has no mode; it was captured in eval mode
    r"^WARNING: All log messages before absl",
    r"^(Model name|Original model size|Quantized model size|Quantization Ratio|Total time): ",
    r"Created TensorFlow Lite XNNPACK delegate",
)

# builtin operator -> normal kind
_KINDS = {
    "FULLY_CONNECTED": kinds.LINEAR,
    "BATCH_MATMUL": kinds.MATMUL,
    "CONV_2D": kinds.CONVOLUTION,
    "DEPTHWISE_CONV_2D": kinds.CONVOLUTION,
    "TRANSPOSE_CONV": kinds.TRANSPOSED_CONVOLUTION,
    "ADD": kinds.ADD,
    "SUB": kinds.SUBTRACT,
    "MUL": kinds.MULTIPLY,
    "DIV": kinds.DIVIDE,
    "POW": kinds.POWER,
    "FLOOR_DIV": kinds.FLOOR_DIVIDE,
    "FLOOR_MOD": kinds.REMAINDER,
    "MINIMUM": kinds.MINIMUM,
    "MAXIMUM": kinds.MAXIMUM,
    "SQUARED_DIFFERENCE": kinds.SQUARE,
    "EQUAL": kinds.COMPARE,
    "NOT_EQUAL": kinds.COMPARE,
    "GREATER": kinds.COMPARE,
    "GREATER_EQUAL": kinds.COMPARE,
    "LESS": kinds.COMPARE,
    "LESS_EQUAL": kinds.COMPARE,
    "LOGICAL_AND": kinds.LOGICAL,
    "LOGICAL_OR": kinds.LOGICAL,
    "LOGICAL_NOT": kinds.LOGICAL,
    "SELECT": kinds.SELECT,
    "SELECT_V2": kinds.SELECT,
    "ABS": kinds.ABSOLUTE,
    "NEG": kinds.NEGATE,
    "EXP": kinds.EXP,
    "LOG": kinds.LOG,
    "SQUARE": kinds.SQUARE,
    "SQRT": kinds.SQRT,
    "RSQRT": kinds.RSQRT,
    "TANH": kinds.TANH,
    "LOGISTIC": kinds.SIGMOID,
    "SIN": kinds.SINE,
    "COS": kinds.COSINE,
    "RELU": kinds.RELU,
    "LEAKY_RELU": kinds.LEAKY_RELU,
    "GELU": kinds.GELU,
    "SOFTMAX": kinds.SOFTMAX,
    "L2_NORMALIZATION": kinds.L2_NORMALIZATION,
    "SUM": kinds.REDUCE_SUM,
    "MEAN": kinds.REDUCE_MEAN,
    "REDUCE_MAX": kinds.REDUCE_EXTREME,
    "REDUCE_MIN": kinds.REDUCE_EXTREME,
    "REDUCE_PROD": kinds.REDUCE_PRODUCT,
    "CUMSUM": kinds.CUMULATIVE_SUM,
    "EMBEDDING_LOOKUP": kinds.GATHER,
    "GATHER": kinds.GATHER,
    "GATHER_ND": kinds.GATHER,
    "BROADCAST_TO": kinds.MOVE,
    "CAST": kinds.MOVE,
    "CONCATENATION": kinds.MOVE,
    "DEQUANTIZE": kinds.MOVE,
    "EXPAND_DIMS": kinds.MOVE,
    "FILL": kinds.MOVE,
    "PACK": kinds.MOVE,
    "PAD": kinds.MOVE,
    "PADV2": kinds.MOVE,
    "RESHAPE": kinds.MOVE,
    "SLICE": kinds.MOVE,
    "SPLIT": kinds.MOVE,
    "SQUEEZE": kinds.MOVE,
    "STRIDED_SLICE": kinds.MOVE,
    "TILE": kinds.MOVE,
    "TRANSPOSE": kinds.MOVE,
    "UNPACK": kinds.MOVE,
    "SHAPE": kinds.SHAPE,
}
_PLAN = (
    "greedy-by-size arena over the tensors' lifetimes, 64-byte aligned, as LiteRT plans it for its own kernels, their"
    " scratch included; workspace of the XNNPACK delegate is not in it"
)
_FUSED = {1: kinds.RELU, 4: kinds.TANH}  # ActivationFunctionType of the schema
_ITEM_BYTES = {"FLOAT32": 4, "FLOAT16": 2, "INT32": 4, "INT64": 8, "INT8": 1, "UINT8": 1, "INT16": 2, "BOOL": 1}


class TFLiteTarget:
    """`.tflite` files with one signature whose names are the program's."""

    name = "tflite"
    extra = "tflite"
    packages: tuple[str, ...] = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    external_weights: Literal["inputs", "parameters"] = "inputs"

    def fp16_form(self, options: Mapping[str, Any]) -> GraphForm:
        """Only the weights are stored in 16 bits."""
        return "captured"

    def unverifiable(self, options: Mapping[str, Any]) -> str | None:
        """Return None: LiteRT runs whatever is lowered here."""
        return None

    def lower(self, captured: Captured, precision: Precision, options: Mapping[str, Any], folder: Path) -> Path:
        """Write model.tflite; fp16 stores the weights in 16 bits and computes in 32, TFLite's own convention."""
        with without_noise(*_NOISE):
            litert_torch = require("litert_torch", self.extra)
            litert_torch.config.show_progress = False
            path = folder / "model.tflite"
            try:
                model = litert_torch.convert(
                    captured.exported.module(), sample_kwargs=captured.exported.example_inputs[1]
                )
                model.export(str(path))
                if precision == "fp16":
                    _cast_weights(path)
            except Exception as error:  # the converter raises whatever its passes raise
                raise LoweringError(f"litert-torch refused {captured.model}/{captured.program}: {error}") from error
        return path

    def data_file(self, model_file: Path) -> DataFile | None:
        """Return None: weights that stay outside are inputs."""
        return None

    def read(self, model_file: Path) -> Lowered:
        """Read the operators of the only subgraph and its constants, and plan TFLite's arena over its tensors."""
        try:
            return _lowered(*_read(model_file))
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            raise ArtifactError(f"{model_file}: a TFLite model with parts that do not fit; export it again") from error


def _lowered(utils: Any, model: Any, graph: Any) -> Lowered:
    schema = require("ai_edge_litert.schema_py_generated", "tflite")
    type_names = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    types = [type_names[tensor.type] for tensor in graph.tensors]
    constants: dict[int, Constant] = {}
    sizes: dict[int, int] = {}
    unknown = None
    for index, tensor in enumerate(graph.tensors):
        data = model.buffers[tensor.buffer].data
        if data is not None and len(data):
            content = bytes(data)
            sha256, place = hashlib.sha256(content).hexdigest(), f"buffer {tensor.buffer}"
            constants[index] = Constant(_name(index), shape_of(tensor), len(content), sha256, place)
        elif types[index] not in _ITEM_BYTES:
            unknown = f"tensor type {types[index]} has no known size"
        else:
            sizes[index] = math.prod(shape_of(tensor)) * _ITEM_BYTES[types[index]]
    constant_bytes = stored_bytes(constants.values())
    steps = _steps(utils, model, graph)
    return Lowered(
        operations=tuple(
            _operation(native, number, operator, graph, types)
            for number, ((native, _, _), operator) in enumerate(zip(steps, graph.operators, strict=True))
        ),
        constants=tuple(constants.values()),
        inputs=tuple(_inputs(model, graph)),
        memory_plan=MemoryPlan(constant_bytes, None, "", unknown)
        if unknown
        else MemoryPlan(constant_bytes, arena_bytes(lifetimes(steps, graph, sizes)), _PLAN),
    )


def _steps(utils: Any, model: Any, graph: Any) -> list[Step]:
    """Return the operators in order: name, inputs and outputs."""
    return [
        (str(utils.opcode_to_name(model, one.opcodeIndex)), [int(i) for i in one.inputs], [int(i) for i in one.outputs])
        for one in graph.operators
    ]


def _operation(native: str, number: int, operator: Any, graph: Any, types: Sequence[str]) -> Operation:
    read = [int(index) for index in operator.inputs if index >= 0]
    written = [int(index) for index in operator.outputs]
    inputs = [shape_of(graph.tensors[index]) for index in read]
    outputs = [shape_of(graph.tensors[index]) for index in written]
    options = operator.builtinOptions
    kind = _KINDS.get(native)
    attributes: dict[str, Any] = {}
    if native == "BATCH_MATMUL":
        attributes = {"transpose_x": bool(options.adjX), "transpose_y": bool(options.adjY)}
    elif native == "EMBEDDING_LOOKUP":
        inputs.reverse()  # TFLite has the ids first
        read.reverse()
    elif native in {"CONV_2D", "DEPTHWISE_CONV_2D"}:
        image, kernel = inputs[0], inputs[1]  # [B, H, W, C] and [C_out, kh, kw, C_in] or [1, kh, kw, C_out]
        groups = image[3] if native == "DEPTHWISE_CONV_2D" else 1
        channels = kernel[3] if groups > 1 else kernel[0]
        inputs[0] = image[0], image[3], image[1], image[2]
        inputs[1] = channels, image[3] // groups, kernel[1], kernel[2]
        outputs[0] = outputs[0][0], outputs[0][3], outputs[0][1], outputs[0][2]
        attributes = {"groups": groups}
    fused = getattr(options, "fusedActivationFunction", 0)
    if fused:  # a value without a formula leaves the operation uncounted
        attributes["activation"] = _FUSED.get(fused, f"fused activation {fused}")
    if kind in (kinds.GATHER, kinds.MOVE) and written and types[written[0]] in _ITEM_BYTES:
        attributes["dtype_bytes"] = _ITEM_BYTES[types[written[0]]]
    return Operation(
        name=f"{native.lower()}_{number}",
        native=native,
        kind=kind,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        attributes=attributes,
        reads=tuple(map(_name, read)),
        writes=tuple(map(_name, written)),
    )


def _inputs(model: Any, graph: Any) -> Iterator[tuple[str | None, str]]:
    """Yield the signature's name of each input, and its tensor."""
    names = {int(entry.tensorIndex): _text(entry.name) for one in model.signatureDefs or () for entry in one.inputs}
    for index in map(int, graph.inputs):
        yield names.get(index), _name(index)


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _name(index: int) -> str:
    return f"t{index}"


def _cast_weights(path: Path) -> None:
    quantizer_module = require("ai_edge_quantizer.quantizer", "tflite")
    qtyping = require("ai_edge_quantizer.qtyping", "tflite")
    manager = require("ai_edge_quantizer.algorithm_manager", "tflite")
    quantizer = quantizer_module.Quantizer(str(path))
    quantizer.update_quantization_recipe(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        ),
        algorithm_key=manager.AlgorithmName.FLOAT_CASTING,
    )
    result = quantizer.quantize()
    path.unlink()
    result.export_model(str(path))


def _read(model_file: Path) -> tuple[Any, Any, Any]:
    utils = require("ai_edge_litert.tools.flatbuffer_utils", "tflite")
    try:
        model = utils.read_model(str(model_file))
        (graph,) = model.subgraphs
    except Exception as error:  # the flatbuffer reader has no error class of its own
        raise ArtifactError(f"{model_file}: not a readable TFLite model with one subgraph; export it again") from error
    return utils, model, graph
