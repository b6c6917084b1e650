"""Tables go into files from where they lie: what is written is whole, and nothing of it was copied on the way."""

import numpy as np
import pytest
import tiny_models
import torch

from exporter.core.types import About
from models import checkpoint
from models.zoo import load_spec

TABLES = [np.arange(count, dtype=np.float32) for count in (300, 7, 301)]  # large, small, large and of no round size
LARGE = 1_000


def test_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx
    import onnx_ir as ir

    from exporter.targets.onnx import writing

    monkeypatch.setattr(writing, "_LARGE", LARGE)
    names = [f"t{at}" for at in range(3)]
    nodes = [onnx.helper.make_node("Identity", [name], [f"o{name}"]) for name in names]
    held = dict(zip(names, TABLES, strict=True))
    outputs = [onnx.helper.make_tensor_value_info(f"o{name}", 1, [len(table)]) for name, table in held.items()]
    tensors = [onnx.numpy_helper.from_array(table, name) for name, table in held.items()]
    graph = onnx.helper.make_graph(nodes, "g", [], outputs, tensors)
    model = ir.from_proto(onnx.helper.make_model(graph))
    for name, table in held.items():
        model.graph.initializers[name].const_value = ir.Tensor(table, name=name)
    large = writing.take_out(model)
    assert set(large) == {"t0", "t2"}
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    pieces = list(writing.pieces(proto, large))
    assert [any(np.shares_memory(np.frombuffer(p, np.uint8), t) for p in pieces) for t in TABLES] == [True, False, True]
    read = onnx.load_from_string(b"".join(pieces))
    onnx.checker.check_model(read, full_check=True)
    assert not read.graph.input
    found = {one.name: onnx.numpy_helper.to_array(one) for one in read.graph.initializer}
    assert all((found[name] == table).all() for name, table in held.items())
    assert [node.op_type for node in read.graph.node] == ["Identity"] * 3
    assert read.opset_import == proto.opset_import


def test_tflite(monkeypatch: pytest.MonkeyPatch) -> None:
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils as utils

    from exporter.targets.tflite import writing

    monkeypatch.setattr(writing, "_LARGE", LARGE)
    model = schema.ModelT()
    model.subgraphs = [schema.SubGraphT()]
    model.subgraphs[0].tensors, model.subgraphs[0].operators = [], []
    model.buffers = [schema.BufferT()]  # the first is empty in every file
    for at, table in enumerate(TABLES, start=1):
        model.buffers.append(schema.BufferT())
        model.buffers[at].data = np.frombuffer(table.tobytes(), np.uint8)
        model.subgraphs[0].tensors.append(schema.TensorT())
        model.subgraphs[0].tensors[-1].buffer = at
    content = bytes(utils.convert_object_to_bytearray(model))
    pieces = writing.described(content, About("what it is"))
    whole = np.frombuffer(content, np.uint8)
    assert sum(np.shares_memory(np.frombuffer(piece, np.uint8), whole) for piece in pieces if len(piece)) == 2
    written = b"".join(pieces)
    read = schema.Model.GetRootAs(written, 0)
    assert read.Description() == b"what it is"
    start = np.frombuffer(written, np.uint8).ctypes.data
    for at, table in enumerate(TABLES, start=1):
        data = read.Buffers(at).DataAsNumpy()
        assert (data.view(np.float32) == table).all()
        assert len(data) < LARGE or (data.ctypes.data - start) % 16 == 0


def test_a_model_stands_on_the_weights_of_its_checkpoint(tmp_path) -> None:
    saved = checkpoint.read(tiny_models.write("scn", tmp_path / "checkpoint"))
    model = checkpoint.build(saved, load_spec("scn"))
    assert model.items.weight.data_ptr() == saved.state["items.weight"].data_ptr()
    assert isinstance(model.items.weight, torch.nn.Parameter)
