"""Programs that contradict themselves or the spec are refused, at load where that can be seen, with what was wrong."""

import numpy as np
import pytest

from exporter import mil
from exporter.core.errors import ProgramError, UnsupportedOperationError


def _program(coremltools, edit):
    """A tiny program y = relu(x) as a Model message, changed by `edit`."""
    proto = coremltools.proto
    model = proto.Model_pb2.Model(specificationVersion=8)
    program = model.mlProgram
    program.version = 1
    function = program.functions["main"]
    function.opset = "CoreML7"
    tensor = proto.MIL_pb2.ValueType()
    tensor.tensorType.dataType = proto.MIL_pb2.FLOAT32
    tensor.tensorType.rank = 1
    tensor.tensorType.dimensions.add().constant.size = 3
    function.inputs.add(name="x", type=tensor)
    block = function.block_specializations["CoreML7"]
    operation = block.operations.add(type="relu")
    operation.inputs["x"].arguments.add(name="x")
    operation.outputs.add(name="y", type=tensor)
    block.outputs.append("y")
    edit(model, function, block, operation)
    return model.SerializeToString()


def test_the_tiny_program_runs(coremltools, write_package):
    program = mil.load(write_package(_program(coremltools, lambda *_: None)))
    y = program.run({"x": np.array([-1, 0, 2], np.float32)})["y"]
    assert y.tolist() == [0, 0, 2]
    y[0] = 5  # results belong to the caller


def _unknown(model, function, block, operation):
    operation.type = "teleport"


def _undefined(model, function, block, operation):
    operation.inputs["x"].arguments[0].name = "nowhere"


def _twice(model, function, block, operation):
    block.operations.add().CopyFrom(operation)


def _extra(model, function, block, operation):
    operation.inputs["z"].arguments.add(name="x")


def _lacking(model, function, block, operation):
    del operation.inputs["x"]


def _returned(model, function, block, operation):
    block.outputs.append("z")


def _opset(model, function, block, operation):
    function.opset = "CoreML99"


def _version(model, function, block, operation):
    model.mlProgram.version = 7


def _no_main(model, function, block, operation):
    model.mlProgram.functions["other"].CopyFrom(function)
    del model.mlProgram.functions["main"]


def _rank(model, function, block, operation):
    function.inputs[0].type.tensorType.rank = 5


def _foreign_type(model, function, block, operation):
    function.inputs[0].type.tensorType.dataType = 13


def _varying(model, function, block, operation):
    operation.type = "constexpr_cast"
    operation.inputs["source_val"].arguments.add(name="x")
    operation.inputs["output_dtype"].arguments.add().value.CopyFrom(_text("fp32"))
    del operation.inputs["x"]


def _text(value):
    from coremltools.proto.MIL_pb2 import STRING, Value

    text = Value()
    text.type.tensorType.dataType = STRING
    text.immediateValue.tensor.strings.values.append(value)
    return text


def _huge_dimension(model, function, block, operation):
    function.inputs[0].type.tensorType.dimensions[0].constant.size = 1 << 63


@pytest.mark.parametrize(
    ("edit", "error", "says"),
    [
        (_unknown, UnsupportedOperationError, "teleport"),
        (_extra, UnsupportedOperationError, "'z'"),
        (_undefined, ProgramError, "nowhere"),
        (_twice, ProgramError, "two operations"),
        (_lacking, ProgramError, "lacks its input 'x'"),
        (_returned, ProgramError, "'z'"),
        (_opset, ProgramError, "CoreML99"),
        (_version, ProgramError, "MIL version 7"),
        (_no_main, ProgramError, "no function 'main'"),
        (_rank, ProgramError, "rank 5"),
        (_foreign_type, ProgramError, "bfloat16"),
        (_huge_dimension, ProgramError, "beyond any device"),
        (_varying, ProgramError, "'x', which is not constant"),
    ],
)
def test_malformed_programs_are_refused_at_load(coremltools, write_package, edit, error, says):
    with pytest.raises(error, match=says):
        mil.load(write_package(_program(coremltools, edit)))


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, "missing"),
        ({"x": np.zeros(3, np.float32), "z": np.zeros(3)}, "no input 'z'"),
        ({"x": np.zeros(4, np.float32)}, r"shape \[4\]"),
        ({"x": np.zeros((1, 3), np.float32)}, r"shape \[1, 3\]"),
        ({"x": np.zeros(3, np.float64)}, "float64"),
        ({"x": np.zeros(3, np.int32)}, "int32"),
        ({"x": np.array(["a", "b", "c"])}, "astype"),
    ],
)
def test_wrong_inputs_are_named(coremltools, write_package, inputs, says):
    program = mil.load(write_package(_program(coremltools, lambda *_: None)))
    with pytest.raises(ProgramError, match=says):
        program.run(inputs)


def _wrong_shape(model, function, block, operation):
    operation.outputs[0].type.tensorType.dimensions[0].constant.size = 4


def _wrong_type(model, function, block, operation):
    operation.outputs[0].type.tensorType.dataType = 23


@pytest.mark.parametrize("edit", [_wrong_shape, _wrong_type])
def test_results_that_contradict_their_declared_types_end_the_run(coremltools, write_package, edit):
    program = mil.load(write_package(_program(coremltools, edit)))
    with pytest.raises(ProgramError, match="declares"):
        program.run({"x": np.zeros(3, np.float32)})


def test_the_first_infinity_and_nan_are_named(coremltools, write_package):
    def edit(model, function, block, operation):
        operation.type = "exp"
        second = block.operations.add(type="sub")
        second.inputs["x"].arguments.add(name="y")
        second.inputs["y"].arguments.add(name="y")
        second.outputs.add(name="z", type=operation.outputs[0].type)
        third = block.operations.add(type="abs")
        third.inputs["x"].arguments.add(name="z")
        third.outputs.add(name="w", type=operation.outputs[0].type)
        block.outputs[0] = "w"

    program = mil.load(write_package(_program(coremltools, edit)))
    done = program.execute({"x": np.array([0, 1, 1000], np.float32)}, intermediates=True)
    assert done.first_infinity is not None and done.first_infinity.value == "y"
    assert done.first_nan is not None and done.first_nan.value == "z" and done.first_nan.type == "sub"
    assert set(done.intermediates) == {"y", "z", "w"}
    with pytest.warns(mil.NonFiniteWarning) as caught:
        program.run({"x": np.array([0, 1, 1000], np.float32)})
    assert [str(warning.message).split("first ")[1].split(",")[0] for warning in caught] == ["infinity", "NaN"]
