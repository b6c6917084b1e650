"""What a .tflite file says of itself: the operators of its only subgraph, its constants, and a plan of its arena.

The flatbuffer is read table by table as it stands in the file. The vendor's reader makes objects of all tables first,
of one that is named a million times a million.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from exporter.core import kinds
from exporter.core.extras import require
from exporter.core.liveness import arena_bytes, memory_plan
from exporter.core.types import (
    MOST_PARTS,
    Constant,
    Lowered,
    MemoryPlan,
    Operation,
    Place,
    Setting,
    extents,
    stored_bytes,
)
from exporter.targets.tflite.plan import Graph, lifetimes

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
    "FLOOR": kinds.ROUND,
    "CEIL": kinds.ROUND,
    "ROUND": kinds.ROUND,
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


def read(model_file: Path) -> Lowered:
    """Read a model with one subgraph; raises ValueError and what flatbuffers raises for damaged ones."""
    schema = require("ai_edge_litert.schema_py_generated", "tflite")
    content = model_file.read_bytes()
    if not schema.Model.ModelBufferHasIdentifier(content, 0):
        raise ValueError("no TFLite model")
    model = schema.Model.GetRootAs(content, 0)
    if model.SubgraphsLength() != 1:
        raise ValueError("not one subgraph")
    subgraph = model.Subgraphs(0)
    tensors = _tables(subgraph.TensorsLength(), subgraph.Tensors)
    operators = _tables(subgraph.OperatorsLength(), subgraph.Operators)
    names = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    types = [names[tensor.Type()] for tensor in tensors]
    graph = Graph(
        steps=[
            (native, _indices(operator.InputsAsNumpy()), _indices(operator.OutputsAsNumpy()))
            for native, operator in zip(_natives(schema, model, operators), operators, strict=True)
        ],
        shapes=[extents(_indices(tensor.ShapeAsNumpy())) for tensor in tensors],
        inputs=_indices(subgraph.InputsAsNumpy()),
        outputs=_indices(subgraph.OutputsAsNumpy()),
    )
    stored = _stored(model, content, [tensor.Buffer() for tensor in tensors])
    constants = tuple(
        Constant(_name(index), graph.shapes[index], size, sha256, place)
        for index, (size, sha256, place) in stored.items()
    )
    return Lowered(
        operations=tuple(
            _operation(schema, number, operator, graph, types) for number, operator in enumerate(operators)
        ),
        constants=constants,
        inputs=tuple(_inputs(model, graph)),
        memory_plan=_plan(graph, types, stored, stored_bytes(constants)),
        places=(
            *_places("input", graph.inputs, _signature(model, "Inputs"), tensors),
            *_places("output", graph.outputs, _signature(model, "Outputs"), tensors),
        ),
    )


def _tables(count: int, table: Callable[[int], Any]) -> list[Any]:
    """Return the tables of a vector; raises ValueError where it names more than a program for a device has."""
    if count > MOST_PARTS:
        raise ValueError(f"{count:,} tensors or operators, more than a program for a device has")
    return [table(index) for index in range(count)]


def _indices(numbers: Any) -> list[int]:
    """Return a vector of numbers, which is 0 where the file has none."""
    return [] if isinstance(numbers, int) else [int(number) for number in numbers.tolist()]


def _natives(schema: Any, model: Any, operators: Iterable[Any]) -> Iterator[str]:
    """Yield the name of each operator; the newer of two fields for its code holds the larger number."""
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    codes = _tables(model.OperatorCodesLength(), model.OperatorCodes)
    for operator in operators:
        code = codes[operator.OpcodeIndex()]
        yield names[max(code.DeprecatedBuiltinCode(), code.BuiltinCode())]


def _stored(model: Any, content: bytes, buffers: Sequence[int]) -> dict[int, tuple[int, str, str]]:
    """Return bytes, SHA-256 and place of the tensors whose numbers are in the file, by index."""
    known: dict[int, tuple[int, str, str] | None] = {}
    for number in set(buffers):
        buffer = model.Buffers(number) if number < model.BuffersLength() else None
        if buffer is None:
            raise ValueError(f"no buffer {number}")
        start, size = buffer.Offset(), buffer.Size()
        if start and start + size > len(content):
            raise ValueError(f"buffer {number} lies outside of the file")
        data = buffer.DataAsNumpy() if not start else memoryview(content)[start : start + size]
        held = b"" if isinstance(data, int) else bytes(data)
        known[number] = (len(held), hashlib.sha256(held).hexdigest(), f"buffer {number}") if held else None
    return {index: place for index, number in enumerate(buffers) if (place := known[number]) is not None}


def _plan(graph: Graph, types: Sequence[str], stored: Iterable[int], constant_bytes: int) -> MemoryPlan:
    """Return the plan of all tensors that are no constants; null and the reason where one has no known size."""
    held = set(stored)
    active = [index for index in range(len(types)) if index not in held]
    unknown = next((types[index] for index in active if types[index] not in _ITEM_BYTES), None)
    if unknown is not None:
        return MemoryPlan(constant_bytes, None, "", f"tensor type {unknown} has no known size")
    sizes = {index: math.prod(graph.shapes[index]) * _ITEM_BYTES[types[index]] for index in active}
    return memory_plan(constant_bytes, lifetimes(graph, sizes), arena_bytes, _PLAN)


def _operation(schema: Any, number: int, operator: Any, graph: Graph, types: Sequence[str]) -> Operation:
    native, inputs_given, written = graph.steps[number]
    read = [index for index in inputs_given if index >= 0]
    inputs = [graph.shapes[index] for index in read]
    outputs = [graph.shapes[index] for index in written]
    options = schema.BuiltinOptionsCreator(operator.BuiltinOptionsType(), operator.BuiltinOptions())
    kind = _KINDS.get(native)
    attributes: dict[str, Setting] = {}
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


def _inputs(model: Any, graph: Graph) -> Iterator[tuple[str | None, str]]:
    """Yield the signature's name of each input, and its tensor."""
    names = dict(_signature(model, "Inputs"))
    for index in graph.inputs:
        yield names.get(index), _name(index)


def _signature(model: Any, side: Literal["Inputs", "Outputs"]) -> list[tuple[int, str]]:
    """Return tensor and name of each input or output in the order of the signatures."""
    return [
        (entry.TensorIndex(), (entry.Name() or b"").decode())
        for signature in _tables(model.SignatureDefsLength(), model.SignatureDefs)
        for entry in _tables(getattr(signature, f"{side}Length")(), getattr(signature, side))
    ]


def _places(
    side: Literal["input", "output"], indices: Sequence[int], signature: Sequence[tuple[int, str]], tensors: list[Any]
) -> Iterator[Place]:
    """Yield the inputs or outputs of the subgraph in its order, which is not always that of the signature."""
    listed = {index: (position, name) for position, (index, name) in enumerate(signature)}
    for position, index in enumerate(indices):
        listed_at, name = listed.get(index, (None, None))
        yield Place(side, name, position, (tensors[index].Name() or b"").decode(), listed_at)


def _name(index: int) -> str:
    return f"t{index}"
