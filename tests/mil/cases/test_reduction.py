"""Reductions over every choice of axes, with and without keeping them."""

import numpy as np
import pytest
from mil_judging import Case, expand, floats, ints

AXES = [[0], [1], [2], [-1], [0, 2], [-2, -1], [0, 1, 2], None]


def _over(function):
    def judge(axes, keep):
        def run(x):
            dims = tuple(range(x.ndim)) if axes is None else tuple(axes)
            return function(x, dims, keep)

        return run

    return judge


def _product(x, dims, keep):
    for axis in sorted((axis % x.ndim for axis in dims), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _sum(x, dims, keep):
    return x.sum(dims, keepdim=keep, dtype=x.dtype)


OPERATIONS = {
    "reduce_sum": _over(_sum),
    "reduce_mean": _over(lambda x, dims, keep: x.double().mean(dims, keepdim=keep).to(x.dtype)),
    "reduce_max": _over(lambda x, dims, keep: x.amax(dims, keepdim=keep)),
    "reduce_min": _over(lambda x, dims, keep: x.amin(dims, keepdim=keep)),
    "reduce_prod": _over(_product),
    "reduce_sum_square": _over(lambda x, dims, keep: _sum(x * x, dims, keep)),
    "reduce_l1_norm": _over(lambda x, dims, keep: _sum(x.abs(), dims, keep)),
    "reduce_l2_norm": _over(lambda x, dims, keep: _sum(x * x, dims, keep).double().sqrt().to(x.dtype)),
    "reduce_log_sum": _over(lambda x, dims, keep: _sum(x, dims, keep).double().log().to(x.dtype)),
    "reduce_log_sum_exp": _over(lambda x, dims, keep: x.double().logsumexp(dims, keepdim=keep).to(x.dtype)),
}


def _cases():
    for op, judge in OPERATIONS.items():
        x = floats(2, 3, 4, low=0.2, high=2)
        for axes in AXES:
            for keep in (False, True):
                constants = {"keep_dims": keep} if axes is None else {"axes": np.int32(axes), "keep_dims": keep}
                name = f"{op}-{'all' if axes is None else ','.join(map(str, axes))}-{keep}"
                yield Case(name, op, {"x": x}, constants, judge(axes, keep), tolerance=2e-5)
        yield Case(f"{op}-default", op, {"x": x}, torch=judge(None, False), tolerance=2e-5)
        yield Case(f"{op}-int", op, {"x": ints(3, 4, low=1, high=5)}, {"axes": np.int32([1])}, judge([1], False))
    x = np.float32([[1, -np.inf, 3], [-np.inf, -np.inf, -np.inf]])
    judge = OPERATIONS["reduce_log_sum_exp"]([1], False)
    yield Case(
        "reduce_log_sum_exp-masked",
        "reduce_log_sum_exp",
        {"x": x},
        {"axes": np.int32([1])},
        judge,
        differs="the folder subtracts -inf from -inf and gets NaN; the logarithm of a sum of zeros is -inf",
        trust="torch",
    )
    for op, name in (("reduce_argmax", "argmax"), ("reduce_argmin", "argmin")):
        for axis in (-1, 0, 1, 2):
            for keep in (False, True):
                constants = {"axis": np.int32(axis), "keep_dims": keep}
                judge = _arg(name, axis, keep)
                yield Case(f"{op}-{axis}-{keep}", op, {"x": floats(2, 3, 4)}, constants, judge)
        yield Case(f"{op}-ties", op, {"x": np.int32([[3, 1, 3, 1]])}, torch=_arg(name, -1, False))
        narrow = {"axis": np.int32(1), "output_dtype": "uint16"}
        yield Case(
            f"{op}-uint16", op, {"x": floats(2, 300)}, narrow, _arg(name, 1, False, np.uint16), since=17, folds=False
        )


def _arg(name, axis, keep, dtype=np.int32):
    return lambda x: getattr(x, name)(axis, keepdim=keep).numpy().astype(dtype)


CASES = list(_cases())


@pytest.mark.parametrize(("case", "opset", "half"), expand(CASES))
def test_reduction(judge, case, opset, half):
    judge(CASES, case, opset, half)
