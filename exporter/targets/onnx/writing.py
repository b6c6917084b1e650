"""Writing an .onnx file whose tables are never in memory a second time.

A table goes from torch's memory into the file: the message around it is made without it, and its bytes stand where
protobuf's wire format has those of an initializer (https://protobuf.dev/programming-guides/encoding/).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from exporter.core.extras import LOWER, require

_LARGE = 1 << 20  # bytes, from which on a tensor is worth it
_DELIMITED = 2  # wire type of a field that begins with its length
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # fields of ModelProto, GraphProto and TensorProto


def take_out(model: Any) -> dict[str, Any]:
    """Turn the large initializers of an onnx_ir model into inputs; return them by name, as its tensors."""
    ir = require("onnx_ir", LOWER)
    graph = model.graph
    large = {name: value.const_value for name, value in graph.initializers.items() if _is_large(value.const_value)}
    for name, tensor in large.items():
        value = graph.initializers.pop(name)
        value.shape, value.type = tensor.shape, ir.TensorType(tensor.dtype)
        graph.inputs.append(value)
    return large


def pieces(model: Any, large: Mapping[str, Any]) -> Iterator[bytes | memoryview]:
    """Yield the file of a ModelProto, in which `large` are initializers again and no inputs."""
    onnx = require("onnx", LOWER)
    around = onnx.ModelProto()
    around.CopyFrom(model)
    around.ClearField("graph")
    graph = model.graph
    inputs = [value for value in graph.input if value.name not in large]
    del graph.input[:]
    graph.input.extend(inputs)
    rest = graph.SerializeToString(deterministic=True)
    tables = []
    for name, tensor in large.items():
        about = onnx.TensorProto(name=name, dims=tensor.shape.numpy(), data_type=tensor.dtype)
        head = about.SerializeToString(deterministic=True) + _begun(_RAW_DATA, tensor.nbytes)
        tables.append((_begun(_INITIALIZER, len(head) + tensor.nbytes) + head, tensor))
    yield around.SerializeToString(deterministic=True)
    yield _begun(_GRAPH, len(rest) + sum(len(head) + tensor.nbytes for head, tensor in tables))
    yield rest
    for head, tensor in tables:
        yield head
        yield memoryview(require("numpy", LOWER).ascontiguousarray(tensor.numpy())).cast("B")


def _is_large(tensor: Any) -> bool:
    ir = require("onnx_ir", LOWER)
    return tensor is not None and tensor.dtype == ir.DataType.FLOAT and tensor.nbytes >= _LARGE


def _begun(field: int, length: int) -> bytes:
    """Return the beginning of a field of so many bytes: its number and wire type, and its length, as varints."""
    return _varint(field << 3 | _DELIMITED) + _varint(length)


def _varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])
