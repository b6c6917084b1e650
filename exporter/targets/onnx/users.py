"""A first axis for any number of users: the sizes behind it are settled when a program is lowered, not in each call."""

from typing import Any

from exporter.core.extras import LOWER, require
from exporter.targets.onnx.file import USERS

_STATES = {"GRU": (5,), "LSTM": (5, 6)}
"""Which inputs of a cell are its first states; left out, they are zero."""


def settle_sizes(model: Any) -> None:
    """Replace what an onnx_ir model computes from its inputs' shapes by constants, as far as that is known.

    A shape with one size that is not known has -1 there, and 0 for one that stays where it was; a first state of zeros
    is left out. Its runtime plans better then, and a reader that follows no numbers knows all sizes.
    """
    passes = require("onnx_ir.passes.common", LOWER)
    ir = require("onnx_ir", LOWER)
    passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    graph = model.graph
    for node in graph:
        for at in _STATES.get(node.op_type, ()):
            if at < len(node.inputs) and _is_zero(node.inputs[at]):
                node.replace_input_with(at, None)
        if node.op_type != "Reshape" or node.inputs[1].const_value is not None:
            continue
        sizes = _settled(node.inputs[0].shape, node.outputs[0].shape)
        if sizes is not None:
            shape = ir.tensor(sizes, dtype=ir.DataType.INT64, name=f"{node.outputs[0].name}_shape")
            kind = ir.TensorType(ir.DataType.INT64)
            graph.register_initializer(
                value := ir.Value(name=shape.name, const_value=shape, shape=shape.shape, type=kind)
            )
            node.replace_input_with(1, value)
            node.attributes.pop("allowzero", None)  # 0 is a size that stays
    passes.RemoveUnusedNodesPass()(model)


def name_axis(graph: Any) -> None:
    """Call the first axis of a GraphProto's inputs and outputs what its readers know it by."""
    for value in (*graph.input, *graph.output):
        axis = value.type.tensor_type.shape.dim[0]
        if axis.HasField("dim_param"):
            axis.dim_param = USERS


def _settled(before: Any, after: Any) -> list[int] | None:
    """Return the sizes of a Reshape from one shape to another; None where more than one cannot be told."""
    if before is None or after is None:
        return None
    sizes = []
    for at, size in enumerate(after):
        if isinstance(size, int):
            sizes.append(size)
        else:
            stays = at < len(before) and size.value is not None and before[at] == size
            sizes.append(0 if stays else -1)
    return sizes if sizes.count(-1) <= 1 and all(type(size) is not int or size for size in after) else None


def _is_zero(value: Any) -> bool:
    """Say whether a value is zeros, filled or cut out."""
    while value is not None and value.const_value is None:
        maker = value.producer()
        if maker is None or maker.op_type not in {"Expand", "Slice", "Identity"}:
            return False
        value = maker.inputs[0]
    return value is not None and not value.const_value.numpy().any()
