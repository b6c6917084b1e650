"""Where only a Mac could settle what Core ML gives, a run says so; for values that leave no choice it does not."""

import uuid
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from mil_judging import save

from exporter import mil

F, N = np.float32, np.int32
UNSCALED = {
    "padding_mode": "border",
    "padding_value": F(0),
    "coordinates_mode": "unnormalized",
    "align_corners": True,
}
# operation -> the inputs that are fed: values that leave no choice, then values that do; and its constants.
BY_VALUES: dict[str, tuple[str, Mapping[str, tuple[Any, Any]], Mapping[str, Any]]] = {
    "mod of floats": ("mod", {"x": (F([7, 6.5]), F([7, -6.5]))}, {"y": F(3)}),
    "mod of integers": ("mod", {"x": (N([-6, 7]), N([-7, 6]))}, {"y": N(3)}),
    "mod by a negative number": ("mod", {"x": (F([6]), F([7]))}, {"y": F(-3)}),
    "pow": ("pow", {"x": (F([2, -2]), F([2, 2])), "y": (F([3, 2]), F([3, 0]))}, {}),
    "round": ("round", {"x": (F([0.4, -2.6]), F([0.4, -2.5]))}, {}),
    "quantize": ("quantize", {"input": (F([1, 3]), F([1, 3.5]))}, {"scale": F(1), "output_dtype": "int8"}),
    "real_div of integers": ("real_div", {"x": (N([7, -6]), N([7, -7]))}, {"y": N(2)}),
    "log": ("log", {"x": (F([1, 2]), F([1, 0]))}, {}),
    "cast of floats": ("cast", {"x": (F([-2.5, 2e9]), F([-2.5, 3e9]))}, {"dtype": "int32"}),
    "cast of NaN": ("cast", {"x": (F([0]), F([np.nan]))}, {"dtype": "int32"}),
    "cast of integers": ("cast", {"x": (N([-128, 127]), N([-128, 128]))}, {"dtype": "int8"}),
    "add": ("add", {"x": (N([2**31 - 2]), N([2**31 - 1]))}, {"y": N(1)}),
    "sub": ("sub", {"x": (N([-(2**31) + 1]), N([-(2**31)]))}, {"y": N(1)}),
    "mul": ("mul", {"x": (N([46340]), N([46341])), "y": (N([46340]), N([46341]))}, {}),
    "square": ("square", {"x": (N([46340]), N([46341]))}, {}),
    "cumsum": ("cumsum", {"x": (N([2**30, 2**30 - 1]), N([2**30, 2**30]))}, {"axis": 0}),
    "reduce_sum": ("reduce_sum", {"x": (N([2**30, 2**30 - 1]), N([2**30, 2**30]))}, {"axes": [0]}),
    "reduce_prod": ("reduce_prod", {"x": (N([2**15, 2**15]), N([2**16, 2**15]))}, {"axes": [0]}),
    "reduce_sum_square": ("reduce_sum_square", {"x": (N([2**15, 9]), N([2**15, 2**15]))}, {"axes": [0]}),
    "reduce_mean": ("reduce_mean", {"x": (N([3, 5]), N([3, 6]))}, {"axes": [0]}),
    "reduce_argmax": ("reduce_argmax", {"x": (F([2, 1, 1]), F([1, 2, 2]))}, {"axis": 0}),
    "reduce_argmin": ("reduce_argmin", {"x": (F([1, 2, 2]), F([2, 1, 1]))}, {"axis": 0}),
    "argsort": ("argsort", {"x": (F([3, 1, 2]), F([3, 1, 3]))}, {"axis": 0}),
    "topk, the last and the next": ("topk", {"x": (F([3, 2, 1, 1]), F([3, 2, 2, 1]))}, {"k": N(2), "axis": 0}),
    "one_hot": ("one_hot", {"indices": (N([0, 2]), N([0, 3]))}, {"one_hot_vector_size": N(3)}),
    "resample": (
        "resample",
        {"coordinates": (F([[[[1, 1.4]]]]), F([[[[1, 1.5]]]]))},
        {"x": np.arange(9, dtype=F).reshape(1, 1, 3, 3), "sampling_mode": "nearest", **UNSCALED},
    ),
    "non_maximum_suppression": (
        "non_maximum_suppression",
        {"scores": (F([[[0.9, 0.8]]]), F([[[0.9, 0.9]]]))},
        {"boxes": F([[[0, 5], [0, 5], [1, 1], [1, 1]]]), "iou_threshold": F(0.5), "max_boxes": N(2)},
    ),
}
# operation -> constants that leave no choice, and constants that do, for an input of the given shape.
BY_PARAMETERS: dict[str, tuple[str, tuple[int, ...], Mapping[str, Any], Mapping[str, Any]]] = {
    "topk, not sorted": ("topk", (5,), {"k": N(2), "sort": True}, {"k": N(2), "sort": False}),
    "avg_pool, padded and overhanging": (
        *("avg_pool", (1, 1, 4)),
        {"kernel_sizes": [3], "strides": [2], "pad_type": "valid", "ceil_mode": True},
        {"kernel_sizes": [3], "strides": [2], "pad_type": "custom", "pad": [1, 1], "ceil_mode": True},
    ),
    "max_pool, beyond": (
        *("max_pool", (1, 1, 4)),
        {"kernel_sizes": [2], "strides": [3], "pad_type": "valid", "ceil_mode": True},
        {"kernel_sizes": [1], "strides": [5], "pad_type": "valid", "ceil_mode": True},
    ),
    "conv_transpose, an odd cut": (
        *("conv_transpose", (1, 1, 4)),
        {"weight": np.ones((1, 1, 4), F), "strides": [2], "pad_type": "same"},
        {"weight": np.ones((1, 1, 3), F), "strides": [2], "pad_type": "same"},
    ),
}


@pytest.fixture
def load(coremltools, packages) -> Callable[..., mil.Program]:
    """Build a program from a function of its inputs, with none of the converter's passes, and load it."""

    def run(inputs: Mapping[str, np.ndarray], body: Callable[..., Any], opset: int = 17) -> mil.Program:
        from coremltools.converters.mil.mil import Builder, Function, Program, types

        placeholders = {
            name: Builder.placeholder(shape=array.shape, dtype=types.numpy_type_to_builtin_type(array.dtype))
            for name, array in inputs.items()
        }
        target = getattr(coremltools.target, f"iOS{opset}")
        program = Program()
        with Function(placeholders, opset_version=target) as function:
            results = body(Builder, **function.inputs)
            function.set_outputs(list(results) if isinstance(results, list | tuple) else [results])
        program.add_function("main", function)
        return mil.load(save(program, packages / f"{uuid.uuid4().hex}.mlpackage", opset))

    return run


@pytest.mark.parametrize("case", BY_VALUES)
def test_it_is_said_for_the_values_that_leave_a_choice(case, load):
    op, fed, constants = BY_VALUES[case]
    settled, doubtful = ({name: values[which] for name, values in fed.items()} for which in (0, 1))
    program = load(settled, lambda mb, **inputs: getattr(mb, op)(**inputs, **constants, name="there"))
    assert program.execute(settled).unsettled == ()
    (line,) = program.execute(doubtful).unsettled
    assert line.startswith(f"operation 'there' ({op}): ")
    assert "here" in line
    with pytest.warns(mil.UnsettledWarning, match="unsettled: operation 'there'"):
        program.run(doubtful)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program.run(settled)


@pytest.mark.parametrize("case", BY_PARAMETERS)
def test_it_is_said_for_the_parameters_that_leave_a_choice(case, load):
    op, shape, *parameters = BY_PARAMETERS[case]
    x = np.arange(np.prod(shape), dtype=F).reshape(shape)
    settled, doubtful = (
        load({"x": x}, lambda mb, x, constants=constants: getattr(mb, op)(x=x, **constants, name="there")).execute(
            {"x": x}
        )
        for constants in parameters
    )
    assert (settled.unsettled, len(doubtful.unsettled)) == ((), 1)
    assert f"'there' ({op}): " in doubtful.unsettled[0]


@pytest.mark.parametrize("operation", ["random_bernoulli", "random_normal", "random_uniform"])
def test_random_numbers_are_never_core_mls(operation, load):
    program = load({"x": F([1])}, lambda mb, x: mb.add(x=x, y=getattr(mb, operation)(shape=[1], seed=N(3))))
    assert "not those that Core ML draws" in program.execute({"x": F([1])}).unsettled[0]


def test_a_normalised_box_beyond_the_image_is_disputed_before_ios_17(load):
    x = np.arange(9, dtype=F).reshape(1, 1, 3, 3)
    boxes = [F([0, *box]).reshape(1, 1, 5, 1, 1) for box in ((0, 0, 1, 1), (0.5, 0.5, 1.5, 1))]
    options = {"target_height": N(2), "target_width": N(2), "normalized_coordinates": True}
    program = load({"x": x, "roi": boxes[0]}, lambda mb, x, roi: mb.crop_resize(x=x, roi=roi, **options), 16)
    assert [len(program.execute({"x": x, "roi": box}).unsettled) for box in boxes] == [0, 1]


def test_what_a_loop_does_again_is_said_once_and_what_a_branch_leaves_out_is_not_said(load, coremltools):
    def body(mb, n):
        def step(value):
            pred = mb.squeeze(x=mb.less(x=value, y=N(0)), axes=[0])
            rest = mb.cond(
                pred=pred,
                _true_fn=lambda: mb.mod(x=value, y=N(5), name="inner"),
                _false_fn=lambda: mb.mod(x=value, y=N(7), name="other"),
            )
            return mb.add(x=value, y=mb.add(x=mb.mul(x=rest, y=N(0)), y=N(1)))

        def more(value):
            return mb.squeeze(x=mb.less(x=value, y=N(9)), axes=[0])

        return mb.while_loop(_cond=more, _body=step, loop_vars=(n,))

    program = load({"n": N([-4])}, body)
    assert [line.split(":")[0] for line in program.execute({"n": N([-4])}).unsettled] == ["operation 'inner' (mod)"]
    assert program.execute({"n": N([0])}).unsettled == ()


# What Core ML gave for 0..48 in 7 x 7, and for 0..6 in a row: coremltools pull request 2844.
def test_windows_that_overhang_count_the_whole_kernel_as_measured_of_core_ml(load):
    x = np.arange(49, dtype=F).reshape(1, 1, 7, 7)
    options = {"kernel_sizes": [2, 2], "strides": [3, 3], "pad_type": "valid", "ceil_mode": True}
    measured = [[4, 7, 4.75], [25, 28, 15.25], [21.25, 22.75, 12]]
    torchs = [[4, 7, 9.5], [25, 28, 30.5], [42.5, 45.5, 48]]
    for exclude, expected in ((False, measured), (True, torchs)):
        program = load(
            {"x": x}, lambda mb, x, e=exclude: mb.avg_pool(x=x, exclude_padding_from_average=e, **options, name="y")
        )
        done = program.execute({"x": x})
        assert (done.outputs["y"][0, 0].tolist(), done.unsettled) == (expected, ())
    row = np.arange(7, dtype=F).reshape(1, 1, 7)
    program = load({"x": row}, lambda mb, x: mb.avg_pool(x=x, **{**options, "kernel_sizes": [2], "strides": [3]}))
    assert next(iter(program.run({"x": row}).values()))[0, 0].tolist() == [0.5, 3.5, 3.0]
