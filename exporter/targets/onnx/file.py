"""What an .onnx file says of itself: the operations of its main graph with their shapes, its constants, and a plan."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from exporter.core import kinds
from exporter.core.extras import require
from exporter.core.liveness import lifetimes_of, memory_plan, planned_bytes
from exporter.core.types import (
    MOST_PARTS,
    Constant,
    DataFile,
    Lowered,
    MemoryPlan,
    Operation,
    Shape,
    extents,
    stored_bytes,
)

USERS = "users"
"""What the first axis of inputs and outputs is called where a call takes any number of users; figures are of one."""
PACKAGE = "weights.safetensors"
"""The file with external weights: their package itself."""
_SHAPE_ELEMENTS = 1024  # no shape and no list of axes has more

_TWOS = frozenset(hashlib.sha256(bytes.fromhex(two)).hexdigest() for two in ("00000040", "0040"))
"""The number 2 in 32 and in 16 bits: what is raised to it is squared."""
_UNKNOWN: tuple[Shape, None] = (0,), None  # a size of 0 is a size that is not known: it is listed, not counted
_PLAN = (
    "the smallest of several arenas over the lifetimes of the graph's values in node order, 64-byte aligned;"
    " ONNX Runtime fuses and plans for itself"
)

_KINDS = {
    "MatMul": kinds.MATMUL,
    "Gemm": kinds.LINEAR,
    "Conv": kinds.CONVOLUTION,
    "ConvTranspose": kinds.TRANSPOSED_CONVOLUTION,
    "Add": kinds.ADD,
    "Sub": kinds.SUBTRACT,
    "Mul": kinds.MULTIPLY,
    "Div": kinds.DIVIDE,
    "Pow": kinds.POWER,
    "Mod": kinds.REMAINDER,
    "Min": kinds.MINIMUM,
    "Max": kinds.MAXIMUM,
    "Clip": kinds.MAXIMUM,
    "Equal": kinds.COMPARE,
    "Greater": kinds.COMPARE,
    "GreaterOrEqual": kinds.COMPARE,
    "Less": kinds.COMPARE,
    "LessOrEqual": kinds.COMPARE,
    "And": kinds.LOGICAL,
    "Or": kinds.LOGICAL,
    "Not": kinds.LOGICAL,
    "Where": kinds.SELECT,
    "Abs": kinds.ABSOLUTE,
    "Floor": kinds.ROUND,
    "Ceil": kinds.ROUND,
    "Round": kinds.ROUND,
    "Neg": kinds.NEGATE,
    "Exp": kinds.EXP,
    "Log": kinds.LOG,
    "Sqrt": kinds.SQRT,
    "Reciprocal": kinds.RECIPROCAL,
    "Tanh": kinds.TANH,
    "Sigmoid": kinds.SIGMOID,
    "Erf": kinds.ERF,
    "Sin": kinds.SINE,
    "Cos": kinds.COSINE,
    "Relu": kinds.RELU,
    "LeakyRelu": kinds.LEAKY_RELU,
    "Gelu": kinds.GELU,
    "Softplus": kinds.SOFTPLUS,
    "Softmax": kinds.SOFTMAX,
    "Attention": kinds.ATTENTION,
    "LayerNormalization": kinds.LAYER_NORMALIZATION,
    "RMSNormalization": kinds.RMS_NORMALIZATION,
    "GRU": kinds.GRU,
    "LSTM": kinds.LSTM,
    "ReduceSum": kinds.REDUCE_SUM,
    "ReduceMean": kinds.REDUCE_MEAN,
    "ReduceMax": kinds.REDUCE_EXTREME,
    "ReduceMin": kinds.REDUCE_EXTREME,
    "ReduceProd": kinds.REDUCE_PRODUCT,
    "ReduceL2": kinds.REDUCE_L2,
    "CumSum": kinds.CUMULATIVE_SUM,
    "Gather": kinds.GATHER,
    "GatherElements": kinds.GATHER,
    "GatherND": kinds.GATHER,
    "Cast": kinds.MOVE,
    "Concat": kinds.MOVE,
    "Expand": kinds.MOVE,
    "Flatten": kinds.MOVE,
    "Identity": kinds.MOVE,
    "Pad": kinds.MOVE,
    "Reshape": kinds.MOVE,
    "Slice": kinds.MOVE,
    "Split": kinds.MOVE,
    "Squeeze": kinds.MOVE,
    "Tile": kinds.MOVE,
    "Transpose": kinds.MOVE,
    "Trilu": kinds.MOVE,
    "Unsqueeze": kinds.MOVE,
    "ConstantOfShape": kinds.MOVE,
    "Shape": kinds.SHAPE,
}


def read(model_file: Path) -> Lowered:
    """Read the main graph, with shapes from ONNX's own shape inference, and plan an arena over its values."""
    onnx = require("onnx", "onnx")
    # External weights stay where they are: their sizes are in the model, and their names are not to be followed.
    model = onnx.load(model_file, load_external_data=False)
    constants = tuple(_constants(model.graph))
    data = _data_file(model.graph)
    graph = _with_shapes(model).graph
    values = {name: (shape, size) for name, shape, size in _values(graph)}
    held = {constant.name for constant in constants}
    twos = {constant.name for constant in constants if constant.sha256 in _TWOS}
    given = [value.name for value in graph.input if value.name not in held]
    lifetimes = lifetimes_of(
        steps=[(node.input, node.output) for node in graph.node],
        given=given,
        results=[value.name for value in graph.output],
        sizes={name: size for name, (_, size) in values.items() if name not in held and size is not None},
    )
    unknown = [name for node in graph.node for name in node.output if name and values.get(name, ((), None))[1] is None]
    constant_bytes = stored_bytes(constants)
    return Lowered(
        operations=tuple(_operation(node, values, twos) for node in graph.node if node.op_type != "Constant"),
        constants=constants,
        inputs=tuple((name, name) for name in given),
        memory_plan=memory_plan(constant_bytes, lifetimes, planned_bytes, _PLAN)
        if not unknown
        else MemoryPlan(constant_bytes, None, "", f"the size of {unknown[0]!r} is not known before a run"),
        data=data,
    )


def _with_shapes(model: Any) -> Any:
    """Return a model with the shapes of its values, as far as they follow without running any of it.

    ONNX's inference would unfold the functions that a file defines, however often they call each other, and make the
    numbers that a shape may come from (`data_prop`), however many: neither is asked for. It copies the model, so that
    large constants are left out of it.
    """
    onnx = require("onnx", "onnx")
    if not model.graph.node:  # an empty file is an empty message
        raise ValueError("no nodes")
    _refuse_expansion(model)
    del model.functions[:]
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) > _SHAPE_ELEMENTS:
            for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
                tensor.ClearField(field)
            tensor.data_location = onnx.TensorProto.EXTERNAL
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim[:1]:
            if dim.dim_param == USERS:
                dim.dim_value = 1
    return onnx.shape_inference.infer_shapes(model)


def _refuse_expansion(model: Any) -> None:
    """Raise ValueError where a model, with the body of each function in place of its calls, has too many operations.

    Its runtime would put them there; functions that call each other multiply.
    """
    bodies = {(one.domain, one.name): one.node for one in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size_of(nodes: Iterable[Any], within: frozenset[tuple[str, str]]) -> int:
        total = 0
        for node in nodes:
            total += 1
            for attribute in node.attribute:
                total += sum(size_of(graph.node, within) for graph in (attribute.g, *attribute.graphs))
            name = node.domain, node.op_type
            if name in within:
                raise ValueError(f"the function {node.op_type!r} calls itself")
            if name in bodies:
                if name not in sizes:
                    sizes[name] = size_of(bodies[name], within | {name})
                total += sizes[name]
        return total

    if size_of(model.graph.node, frozenset()) > MOST_PARTS:
        raise ValueError(f"more than {MOST_PARTS:,} operations with its functions unfolded")


def _data_file(graph: Any) -> DataFile | None:
    """Return where the initializers with external data lie."""
    onnx = require("onnx", "onnx")
    tensors = {}
    for tensor in graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            place = {entry.key: entry.value for entry in tensor.external_data}
            tensors[tensor.name] = int(place["offset"]), "float32"
    return DataFile(PACKAGE, tensors) if tensors else None


def _operation(node: Any, values: Mapping[str, tuple[Shape, int | None]], twos: set[str]) -> Operation:
    outputs = [values.get(name, _UNKNOWN) for name in node.output if name]
    known = node.domain in {"", "ai.onnx"} and all(size is not None for _, size in outputs)
    kind = _KINDS.get(node.op_type) if known else None
    numbers = {a.name: a.i for a in node.attribute if a.type == a.INT}
    attributes: dict[str, int] = {}
    inputs = [values.get(name, _UNKNOWN)[0] for name in node.input if name]
    if node.op_type == "Gemm":
        if not numbers.get("transB"):  # LINEAR expects [N, K]
            inputs[1] = inputs[1][::-1]
        if numbers.get("transA"):
            inputs[0] = inputs[0][::-1]
    elif node.op_type in {"Conv", "ConvTranspose"}:
        attributes["groups"] = numbers.get("group", 1)
    elif kind in (kinds.GRU, kinds.LSTM):  # without lengths and first states, which are no biases
        inputs = [values.get(name, _UNKNOWN)[0] for name in node.input[:4] if name]
    elif kind == kinds.POWER and node.input[1] in twos:
        kind = kinds.SQUARE
    elif kind == kinds.SOFTMAX:
        attributes["axis"] = numbers.get("axis", -1)
    elif kind in (kinds.GATHER, kinds.MOVE) and outputs and outputs[0][1]:
        attributes["dtype_bytes"] = outputs[0][1] // math.prod(outputs[0][0])
    return Operation(
        name=node.name or node.output[0],
        native=node.op_type,
        kind=kind,
        inputs=tuple(inputs),
        outputs=tuple(shape for shape, _ in outputs),
        attributes=attributes,
        reads=tuple(name for name in node.input if name),
        writes=tuple(name for name in node.output if name),
    )


def _constants(graph: Any) -> Iterator[Constant]:
    """Yield initializers and the values of Constant nodes; external data has no bytes here."""
    onnx = require("onnx", "onnx")
    tensors = [(tensor.name, tensor) for tensor in graph.initializer]
    for node in graph.node:
        if node.op_type == "Constant":
            tensors += [(node.output[0], attribute.t) for attribute in node.attribute if attribute.name == "value"]
    for name, tensor in tensors:
        shape = extents(tensor.dims)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield Constant(name, shape, math.prod(shape) * _item_bytes(tensor.data_type), None, name)
        else:
            array = onnx.numpy_helper.to_array(tensor)
            if array.dtype.hasobject:
                raise ValueError(f"the constant {name!r} holds text")
            content = array.tobytes()
            yield Constant(name, shape, len(content), hashlib.sha256(content).hexdigest(), name)


def _item_bytes(data_type: int) -> int:
    """Return the bytes of an element; raises LookupError for a type that ONNX does not know."""
    return int(require("onnx", "onnx").helper.tensor_dtype_to_np_dtype(data_type).itemsize)


def _values(graph: Any) -> Iterator[tuple[str, Shape, int | None]]:
    """Yield (name, shape, bytes) of every value; bytes are None, and a symbolic extent 0, where it is not known."""
    for tensor in graph.initializer:
        shape = extents(tensor.dims)
        yield tensor.name, shape, math.prod(shape) * _item_bytes(tensor.data_type)
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        known = kind.elem_type and kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim)
        shape = extents(dim.dim_value for dim in kind.shape.dim)
        yield value.name, shape, math.prod(shape) * _item_bytes(kind.elem_type) if known else None
