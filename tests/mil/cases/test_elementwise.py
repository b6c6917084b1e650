"""Elementwise operations: unary, binary with broadcasting, select, cast, clip."""

import numpy as np
import pytest
from mil_judging import Case, bools, expand, floats, ints

UNARY = {
    "abs": (floats(3, 4), lambda torch: torch.abs),
    "acos": (floats(3, 4, low=-1, high=1), lambda torch: torch.acos),
    "asin": (floats(3, 4, low=-1, high=1), lambda torch: torch.asin),
    "atan": (floats(3, 4, low=-9, high=9), lambda torch: torch.atan),
    "atanh": (floats(3, 4, low=-0.95, high=0.95), lambda torch: torch.atanh),
    "ceil": (np.append(floats(11, low=-3, high=3), np.float32([-0.5, 2.0])), lambda torch: torch.ceil),
    "cos": (floats(3, 4, low=-20, high=20), lambda torch: torch.cos),
    "cosh": (floats(3, 4), lambda torch: torch.cosh),
    "erf": (np.append(floats(200, low=-5, high=5), np.float32([0, 0.46875, -4, 9])), lambda torch: torch.erf),
    "exp": (floats(3, 4), lambda torch: torch.exp),
    "exp2": (floats(3, 4), lambda torch: torch.exp2),
    "floor": (np.append(floats(11, low=-3, high=3), np.float32([-0.5, 2.0])), lambda torch: torch.floor),
    "round": (np.append(floats(11, low=-3, high=3), np.float32([0.5, 1.5, -0.5, 2.5])), lambda torch: torch.round),
    "sign": (np.append(floats(11), np.float32([0.0])), lambda torch: torch.sign),
    "sin": (floats(3, 4, low=-20, high=20), lambda torch: torch.sin),
    "sinh": (floats(3, 4), lambda torch: torch.sinh),
    "sqrt": (floats(3, 4, low=0, high=9), lambda torch: torch.sqrt),
    "square": (floats(3, 4), lambda torch: torch.square),
    "tan": (floats(3, 4, low=-1.4, high=1.4), lambda torch: torch.tan),
    "tanh": (floats(3, 4, low=-4, high=4), lambda torch: torch.tanh),
}
INTEGER_UNARY = {"abs": np.abs, "sign": np.sign, "square": np.square}

# Broadcasts of every kind: equal, scalar, leading, trailing, in the middle, both sides, empty.
SHAPES = [
    ((3, 4), (3, 4)),
    ((3, 4), ()),
    ((2, 3, 4), (4,)),
    ((2, 1, 4), (1, 3, 1)),
    ((1,), (5, 1)),
    ((), ()),
    ((0, 3), (3,)),
]
BINARY = {
    "add": lambda torch: torch.add,
    "sub": lambda torch: torch.sub,
    "mul": lambda torch: torch.mul,
    "real_div": lambda torch: torch.true_divide,
    "floor_div": lambda torch: torch.floor_divide,
    "mod": lambda torch: torch.remainder,
    "maximum": lambda torch: torch.maximum,
    "minimum": lambda torch: torch.minimum,
    "equal": lambda torch: torch.eq,
    "not_equal": lambda torch: torch.ne,
    "greater": lambda torch: torch.gt,
    "greater_equal": lambda torch: torch.ge,
    "less": lambda torch: torch.lt,
    "less_equal": lambda torch: torch.le,
}
LOGICAL = {"logical_and": "logical_and", "logical_or": "logical_or", "logical_xor": "logical_xor"}


def _torch(pick):
    def run(*tensors):
        import torch

        return pick(torch)(*tensors)

    return run


def _nonzero(values):
    return np.where(np.abs(values) < 0.25, values.dtype.type(1), values)


def _cases():
    for op, (x, pick) in UNARY.items():
        yield Case(op, op, {"x": x}, torch=_torch(pick))
        yield Case(f"{op}-scalar", op, {"x": x.reshape(-1)[0].reshape(())}, torch=_torch(pick))
        yield Case(
            f"{op}-rank5", op, {"x": np.broadcast_to(x.reshape(-1)[:2], (1, 2, 1, 3, 2)).copy()}, torch=_torch(pick)
        )
    for op, function in INTEGER_UNARY.items():
        yield Case(f"{op}-int", op, {"x": ints(3, 4)}, torch=lambda x, f=function: f(x.numpy()))
    for op, pick in BINARY.items():
        for number, (left, right) in enumerate(SHAPES):
            x, y = floats(*left, seed=1), _nonzero(floats(*right, seed=2))
            yield Case(f"{op}-{number}", op, {"x": x, "y": y}, torch=_torch(pick))
        x, y = ints(4, 5, seed=1), ints(4, 5, seed=2)
        y[y == 0] = 3
        if op != "real_div":
            yield Case(f"{op}-int", op, {"x": x, "y": y}, torch=_torch(pick))
    for op, name in LOGICAL.items():
        for number, (left, right) in enumerate(SHAPES[:5]):
            data = {"x": bools(*left, seed=1), "y": bools(*right, seed=2)}
            yield Case(f"{op}-{number}", op, data, torch=_torch(lambda torch, n=name: getattr(torch, n)))
    yield Case("logical_not", "logical_not", {"x": bools(3, 4)}, torch=_torch(lambda torch: torch.logical_not))
    yield Case(
        "real_div-int",
        "real_div",
        {"x": ints(4, 5, seed=1), "y": np.int32([-2, 3, 4, -5, 6])},
        torch=lambda x, y: (x / y).to(x.dtype),
    )
    for number, (left, right) in enumerate(SHAPES):
        data = {"x": floats(*left, low=0.1, high=3, seed=1), "y": floats(*right, low=-3, high=3, seed=2)}
        yield Case(f"pow-{number}", "pow", data, torch=_torch(lambda torch: torch.pow))
    data = {"x": floats(9, low=-3, high=3), "y": np.float32(2)}
    yield Case("pow-negative-base", "pow", data, torch=_torch(lambda torch: torch.pow))
    yield Case(
        "pow-int", "pow", {"x": ints(3, 4), "y": ints(3, 4, low=0, high=4)}, torch=_torch(lambda torch: torch.pow)
    )
    extremes = np.float32([np.nan, 1, np.inf, -np.inf, -0.0])
    for op in ("maximum", "minimum"):
        data = {"x": extremes, "y": extremes[::-1].copy()}
        yield Case(f"{op}-extremes", op, data, torch=_torch(lambda torch, n=op: getattr(torch, n)))
    yield from _with_parameters()
    yield from _casts()


def _with_parameters():
    x = floats(3, 4, low=-3, high=3)
    yield Case(
        "clip", "clip", {"x": x}, {"alpha": np.float32(-1.25), "beta": np.float32(0.75)}, lambda x: x.clamp(-1.25, 0.75)
    )
    yield Case("threshold", "threshold", {"x": x}, {"alpha": np.float32(0.5)}, lambda x: x.clamp(min=0.5))
    yield Case("threshold-int", "threshold", {"x": ints(3, 4)}, {"alpha": np.int32(-2)}, lambda x: x.clamp(min=-2))
    positive = floats(3, 4, low=0.01, high=9)
    for name, op, formula in (
        ("inverse", "inverse", lambda x, e: 1 / (x + e)),
        ("log", "log", lambda x, e: (x + e).log()),
        ("rsqrt", "rsqrt", lambda x, e: (x + e).rsqrt()),
    ):
        default = {"inverse": 1e-4, "log": 1e-45, "rsqrt": 1e-12}[name]
        yield Case(
            f"{name}-default", op, {"x": positive}, torch=lambda x, f=formula, e=default: f(x, e), tolerance=2e-5
        )
        constants = {"epsilon": np.float32(0.25)}
        yield Case(name, op, {"x": positive}, constants, lambda x, f=formula: f(x, 0.25), tolerance=2e-5)
    for number, shapes in enumerate([((3, 4),) * 3, ((1, 4), (3, 4), ()), ((), (2, 2), (2, 1)), ((2, 1), (2, 0), ())]):
        data = {"cond": bools(*shapes[0]), "a": floats(*shapes[1], seed=1), "b": floats(*shapes[2], seed=2)}
        yield Case(f"select-{number}", "select", data, torch=_torch(lambda torch: torch.where))
    data = {"cond": bools(5), "a": ints(5, seed=1), "b": ints(5, seed=2)}
    yield Case("select-int", "select", data, torch=_torch(lambda torch: torch.where))
    data = {"cond": bools(5), "a": bools(5, seed=1), "b": bools(5, seed=2)}
    yield Case("select-bool", "select", data, torch=_torch(lambda torch: torch.where))


def _casts():
    import torch

    types = {"fp32": torch.float32, "int32": torch.int32, "bool": torch.bool}
    sources = {"fp32": np.float32([-2.7, -0.5, 0, 0.5, 2.7, 1e6]), "int32": ints(6), "bool": bools(6)}
    for source, x in sources.items():
        for target, dtype in types.items():
            yield Case(
                f"cast-{source}-{target}", "cast", {"x": x}, {"dtype": target}, lambda x, d=dtype: x.to(d), half=False
            )
        yield Case(
            f"cast-{source}-fp16", "cast", {"x": x}, {"dtype": "fp16"}, lambda x: x.to(torch.float16), half=False
        )
    small = {"int8": np.int8, "uint8": np.uint8, "int16": np.int16, "uint16": np.uint16}
    for name, dtype in small.items():
        wide = np.int32([0, 1, 100, 127])
        yield Case(
            f"cast-int32-{name}", "cast", {"x": wide}, {"dtype": name}, lambda x, d=dtype: x.numpy().astype(d), since=17
        )
        yield Case(
            f"cast-{name}-fp32", "cast", {"x": wide.astype(dtype)}, {"dtype": "fp32"}, lambda x: x.float(), since=17
        )
        yield Case(
            f"cast-{name}-bool", "cast", {"x": wide.astype(dtype)}, {"dtype": "bool"}, lambda x: x.bool(), since=17
        )
    yield Case(
        "cast-wraps",
        "cast",
        {"x": np.int32([-1, 300, 65536])},
        {"dtype": "uint8"},
        lambda x: x.to(torch.uint8),
        since=17,
    )


CASES = list(_cases())


@pytest.mark.parametrize(("case", "opset", "half"), expand(CASES))
def test_elementwise(judge, case, opset, half):
    judge(CASES, case, opset, half)
