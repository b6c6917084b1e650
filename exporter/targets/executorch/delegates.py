"""What the delegates of a .pte file do inside: XNNPACK's and Vulkan's graphs, and Core ML's package.

Each reader takes a prefix for the names of inner values, the delegate's bytes, the names of the call's arguments, and
a function that finds the bytes of named data (None where they are in another file); it returns the operations in order
and the constants that they read.
"""

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from exporter.core import kinds
from exporter.core.types import Constant, Operation, extents
from exporter.targets import coreml
from exporter.targets.aten import KINDS, in_order
from exporter.targets.executorch.file import DelegateReader, Inside, Named, cut, decompile, digest
from safeio.files import write_new, writing
from safeio.staging import ROOM, scratch

_TREE_BYTES = 1 << 20
_NO_VALUE = 2**32 - 1
_TRANSPOSED = 1  # XNN_FLAG_TRANSPOSE_WEIGHTS of a fully connected node, XNN_FLAG_TRANSPOSE_B of a batch product
_XNN_BYTES = {"xnn_datatype_fp16": 2, "xnn_datatype_bf16": 2, "xnn_datatype_qint8": 1, "xnn_datatype_quint8": 1}
_XNN_KINDS = {
    "XNNFullyConnected": kinds.LINEAR,
    "XNNBatchMatrixMultiply": kinds.MATMUL,
    "XNNConv2d": kinds.CONVOLUTION,
    "XNNDepthwiseConv2d": kinds.CONVOLUTION,
    "XNNConvTranspose2d": kinds.TRANSPOSED_CONVOLUTION,
    "XNNAdd": kinds.ADD,
    "XNNSubtract": kinds.SUBTRACT,
    "XNNMultiply": kinds.MULTIPLY,
    "XNNDiv": kinds.DIVIDE,
    "XNNMinimum": kinds.MINIMUM,
    "XNNMaximum": kinds.MAXIMUM,
    "XNNClamp": kinds.MAXIMUM,
    "XNNAbs": kinds.ABSOLUTE,
    "XNNNegate": kinds.NEGATE,
    "XNNFloor": kinds.ROUND,
    "XNNCeiling": kinds.ROUND,
    "XNNSquare": kinds.SQUARE,
    "XNNSquareRoot": kinds.SQRT,
    "XNNReciprocalSquareRoot": kinds.RSQRT,
    "XNNExp": kinds.EXP,
    "XNNLog": kinds.LOG,
    "XNNSin": kinds.SINE,
    "XNNCos": kinds.COSINE,
    "XNNTanh": kinds.TANH,
    "XNNSigmoid": kinds.SIGMOID,
    "XNNGelu": kinds.GELU,
    "XNNLeakyReLU": kinds.LEAKY_RELU,
    "XNNSoftmax": kinds.SOFTMAX,
    "XNNGlobalAvgPooling2d": kinds.REDUCE_MEAN,
    **dict.fromkeys(
        (
            *("XNNStaticTranspose", "XNNStaticReshape", "XNNStaticSlice", "XNNStaticConstantPad", "XNNConvert"),
            *("XNNCopy", "XNNConcatenate2", "XNNConcatenate3", "XNNConcatenate4", "XNNConcatenate5"),
        ),
        kinds.MOVE,
    ),
}
_CONVOLUTIONS = {"XNNConv2d", "XNNDepthwiseConv2d", "XNNConvTranspose2d"}
_INPUT_KEYS = (
    *("input_id", "input1_id", "input2_id", "input3_id", "input4_id", "input5_id", "query_id", "key_id", "value_id"),
    *("scale_id", "mask_id", "filter_id", "bias_id"),
)


def xnnpack(prefix: str, payload: memoryview, arguments: list[str], named: Named) -> Inside:
    """Read an XNNPACK graph: a header, a flatbuffer of its schema.fbs, and constants behind it or as named data."""
    graph, inside = _graph(payload, b"XH00", "backends/xnnpack/serialization/schema.fbs")
    tensors: dict[int, Mapping[str, Any]] = {}
    names: dict[int, str] = {}
    constants = []
    for value in graph["xvalues"]:
        tensor = value["xvalue_union"]
        tensor = tensor.get("tensor_value", tensor)
        key, external = tensor["id_out"], tensor["external_id"]
        outer = external != _NO_VALUE and tensor["flags"] != 0
        tensors[key], names[key] = tensor, arguments[external] if outer else f"{prefix}.{key}"
        if tensor["constant_buffer_idx"]:
            place = graph["constant_data"][tensor["constant_buffer_idx"]]
            constants.append(_constant(prefix, names[key], _dims(tensor), inside, place, place["size"], named))
    operations = []
    for number, node in enumerate(graph["xnodes"]):
        native, fields = node["xnode_union_type"].lstrip("_"), node["xnode_union"]
        inputs = [fields[key] for key in _INPUT_KEYS if fields.get(key, _NO_VALUE) != _NO_VALUE]
        if native.startswith("XNNConcatenate"):
            inputs = inputs[: int(native[-1])]
        output = fields["output_id"]
        shapes = [_dims(tensors[key]) for key in inputs]
        operations.append(
            Operation(
                name=f"{prefix}.{native}_{number}",
                native=native,
                kind=_XNN_KINDS.get(native),
                inputs=_xnn_shapes(native, fields, shapes),
                outputs=(
                    _channels_first(_dims(tensors[output])) if native in _CONVOLUTIONS else _dims(tensors[output]),
                ),
                attributes=_xnn_attributes(native, node, fields, tensors[output]),
                delegate="XnnpackBackend",
                reads=tuple(names[key] for key in inputs),
                writes=(names[output],),
            )
        )
    return operations, constants


def _graph(payload: memoryview, magic: bytes, schema: str) -> tuple[dict[str, Any], memoryview]:
    """Return the flatbuffer behind a delegate's header, and the bytes in which its constants lie."""
    start, size, constants_at = struct.unpack_from("<III", payload, 10)
    if bytes(payload[4:8]) != magic:
        raise ValueError(f"no header {magic!r}")
    return decompile(schema, bytes(cut(payload, start, size))), payload[constants_at:]


def _constant(
    prefix: str,
    name: str,
    shape: tuple[int, ...],
    inside: memoryview,
    place: Mapping[str, Any],
    size: int,
    named: Named,
) -> Constant:
    """Return a constant that lies behind the delegate's graph, or under a key in the program or its data file."""
    key = place.get("named_key")
    content = named(key) if key else cut(inside, place["offset"], size)
    sha256 = None if content is None else digest(cut(content, 0, size))
    return Constant(name, shape, size, sha256, key or f"{prefix} at {place['offset']}")


def _dims(tensor: Mapping[str, Any]) -> tuple[int, ...]:
    return extents(tensor.get("dims") or ())


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    batch, *space, channels = shape
    return (batch, channels, *space)


def _xnn_shapes(native: str, fields: Mapping[str, Any], shapes: list[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """Return input shapes as the normal kind wants them: XNNPACK has channels last, filters [C_out, kh, kw, C_in]."""
    if native == "XNNFullyConnected" and fields["flags"] & _TRANSPOSED:
        shapes[1] = shapes[1][::-1]
    elif native in _CONVOLUTIONS:
        shapes[0] = _channels_first(shapes[0])
        if native == "XNNDepthwiseConv2d":  # [1, kh, kw, C_out]
            shapes[1] = shapes[1][3], fields["group_input_channels"], shapes[1][1], shapes[1][2]
        elif native == "XNNConvTranspose2d":  # the kind wants [C_in, C_out / groups, ...]
            shapes[1] = shapes[0][1], fields["group_output_channels"], shapes[1][1], shapes[1][2]
        else:
            shapes[1] = _channels_first(shapes[1])
    return tuple(shapes)


def _xnn_attributes(
    native: str, node: Mapping[str, Any], fields: Mapping[str, Any], output: Mapping[str, Any]
) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    if native in _CONVOLUTIONS:
        attributes["groups"] = fields["groups"]
    if native == "XNNBatchMatrixMultiply" and fields["flags"] & _TRANSPOSED:
        attributes["transpose_y"] = True
    if _XNN_KINDS.get(native) == kinds.MOVE:
        attributes["dtype_bytes"] = _XNN_BYTES.get(output["datatype"], 4)
    if node.get("output_min_max") and native != "XNNClamp":
        attributes["activation"] = kinds.RELU  # a clamp of what it computes: one comparison an element, at least
    return attributes


def vulkan(prefix: str, payload: memoryview, arguments: list[str], named: Named) -> Inside:
    """Read a Vulkan graph: a header, a flatbuffer of its schema.fbs, and constants behind it or as named data."""
    graph, inside = _graph(payload, b"VH00", "backends/vulkan/serialization/schema.fbs")
    values = [value["value"] for value in graph["values"]]
    kinds_of = [value["value_type"] for value in graph["values"]]
    names = {key: f"{prefix}.{key}" for key in range(len(values))}
    names |= dict(zip((*graph["input_ids"], *graph["output_ids"]), arguments, strict=True))
    constants = []
    for key, value in enumerate(values):
        if kinds_of[key] in {"VkTensor", "TensorRef"} and value["constant_id"] >= 0:
            place = graph["constants"][value["constant_id"]]
            constants.append(_constant(prefix, names[key], _dims(value), inside, place, place["length"], named))
    operations = []
    for number, call in enumerate(graph["chain"]):
        tensors = [_vulkan_tensors(argument, values, kinds_of) for argument in call["args"]]
        inputs, outputs = [key for group in tensors[:-1] for key in group], tensors[-1]
        if call["name"] == "et_vk.prepack.default":  # done once, when the program is loaded
            names[outputs[0]] = names[inputs[0]]
            continue
        name = call["name"].split(".")[1]
        operations.append(
            Operation(
                name=f"{prefix}.{name}_{number}",
                native=call["name"],
                kind=KINDS.get(name),
                inputs=in_order(name, [_dims(values[key]) for key in inputs]),
                outputs=tuple(_dims(values[key]) for key in outputs),
                delegate="VulkanBackend",
                reads=tuple(names[key] for key in inputs),
                writes=tuple(names[key] for key in outputs),
            )
        )
    return operations, constants


def _vulkan_tensors(argument: int, values: list[Mapping[str, Any]], kinds_of: list[str]) -> list[int]:
    if kinds_of[argument] == "ValueList":
        return [item for item in values[argument]["items"] if kinds_of[item] == "VkTensor"]
    return [argument] if kinds_of[argument] == "VkTensor" else []


def core_ml(prefix: str, payload: memoryview, arguments: list[str], _named: Named) -> Inside:
    """Read a Core ML delegate: files one after the other, then a JSON tree of them, written backwards."""
    text = bytes(payload[-_TREE_BYTES:]).rstrip(b"\0").decode("latin-1")[::-1]
    nodes = json.JSONDecoder().raw_decode(text)[0]["nodes"]
    with scratch("coreml") as folder:
        root = folder / "root"
        with writing(folder, ROOM):
            _unpack(_Tree(nodes, payload), len(nodes) - 1, root)
        metadata = json.loads((root / "metadata.json").read_text(encoding="utf-8"))
        inside = coreml.lowered(root / "model.mlpackage")
    names = dict(zip((*metadata["inputNames"], *metadata["outputNames"]), arguments, strict=True))
    operations = [
        replace(
            operation,
            name=f"{prefix}.{operation.name}",
            delegate="CoreMLBackend",
            reads=tuple(names.get(value, f"{prefix}.{value}") for value in operation.reads),
            writes=tuple(names.get(value, f"{prefix}.{value}") for value in operation.writes),
        )
        for operation in inside.operations
    ]
    constants = [replace(one, name=f"{prefix}.{one.name}", place=f"{prefix}.{one.place}") for one in inside.constants]
    return operations, constants


@dataclass
class _Tree:
    """Files one after the other in `payload`; `seen` are the nodes that were written, `left` the bytes not yet used."""

    nodes: list[Mapping[str, Any]]
    payload: memoryview
    seen: set[int] = field(default_factory=set)
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = len(self.payload)


def _unpack(tree: _Tree, index: int, place: Path) -> None:
    """Write a file or folder of a tree at `place`.

    Raises ValueError for a circle, files with bytes in common, and a name that is not plain.
    """
    if index in tree.seen:
        raise ValueError("the tree of files is no tree")
    tree.seen.add(index)
    node = tree.nodes[index]
    if node["kind"] == 0:
        region = node["dataRegion"]
        tree.left -= region["size"]
        if tree.left < 0:
            raise ValueError("the tree has files with bytes in common")
        write_new(place, bytes(cut(tree.payload, region["offset"], region["size"])))
        return
    place.mkdir()
    for name, child in node["children"].items():
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
            raise ValueError(f"{name!r} is no plain file name")
        _unpack(tree, int(child), place / name)


READERS: dict[str, DelegateReader] = {
    "XnnpackBackend": xnnpack,
    "VulkanBackend": vulkan,
    "CoreMLBackend": core_ml,
}
