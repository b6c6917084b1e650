"""Elementwise operations with one, two or three inputs (MIL elementwise_unary, elementwise_binary, select, cast)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from exporter.mil.kernel import Env, Kernel, RefusedError, arithmetic, movement
from exporter.mil.ops.special import erf
from exporter.mil.types import DTYPE_NAMES, NUMPY_TYPES


def _binary(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(env: Env, x: np.ndarray, y: np.ndarray) -> Any:
        env.broadcast(x, y)
        return function(x, y)

    return run


def _unary(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(x: np.ndarray) -> Any:
        return function(x)

    return run


def _no_zero(y: np.ndarray) -> None:
    if y.dtype.kind in "iu" and not y.all():
        raise RefusedError("an integer is divided by zero")


def real_div(env: Env, x: np.ndarray, y: np.ndarray) -> Any:
    """Divide; integers give an integer, rounded towards zero, because the spec's result type is that of the inputs."""
    env.broadcast(x, y)
    if x.dtype.kind == "f":
        return x / y
    _no_zero(y)
    return np.trunc(np.true_divide(x, y)).astype(x.dtype)


def floor_div(env: Env, x: np.ndarray, y: np.ndarray) -> Any:
    """Divide and round towards negative infinity."""
    env.broadcast(x, y)
    _no_zero(y)
    return np.floor_divide(x, y)


def mod(env: Env, x: np.ndarray, y: np.ndarray) -> Any:
    """Remainder with the sign of the divisor."""
    env.broadcast(x, y)
    _no_zero(y)
    return np.remainder(x, y)


def clip(x: np.ndarray, alpha: np.ndarray, beta: np.ndarray) -> Any:
    """min(max(x, alpha), beta)."""
    return np.minimum(np.maximum(x, alpha), beta)


def threshold(x: np.ndarray, alpha: np.ndarray) -> Any:
    """max(x, alpha)."""
    return np.maximum(x, alpha)


def inverse(env: Env, x: np.ndarray, epsilon: np.ndarray | float = 1e-4) -> Any:
    """1 / (x + epsilon)."""
    return x.dtype.type(1) / (x + _epsilon(env, x, epsilon))


def log(env: Env, x: np.ndarray, epsilon: np.ndarray | float = 1e-45) -> Any:
    """Natural logarithm of x + epsilon."""
    return np.log(x + _epsilon(env, x, epsilon))


def rsqrt(env: Env, x: np.ndarray, epsilon: np.ndarray | float = 1e-12) -> Any:
    """1 / sqrt(x + epsilon)."""
    return x.dtype.type(1) / np.sqrt(x + _epsilon(env, x, epsilon))


def _epsilon(env: Env, x: np.ndarray, epsilon: np.ndarray | float) -> Any:
    # The spec's default is rounded to the type of x, and in float16 both 1e-45 and 1e-12 are zero.
    return np.float16(epsilon).astype(x.dtype) if env.half and isinstance(epsilon, float) else x.dtype.type(epsilon)


def exp2(x: np.ndarray) -> Any:
    """2 to the power of x; integers give an integer, rounded towards zero."""
    return np.exp2(x) if x.dtype.kind == "f" else _to_integer(np.exp2(x.astype(np.float64)), x.dtype)


def select(env: Env, cond: np.ndarray, a: np.ndarray, b: np.ndarray) -> Any:
    """Take a where cond holds and b elsewhere."""
    env.broadcast(cond, a, b)
    return np.where(cond, a, b)


def cast(x: np.ndarray, dtype: str) -> Any:
    """Convert to `dtype`: floats round to nearest even or truncate to an integer and saturate, integers wrap."""
    target = NUMPY_TYPES.get(DTYPE_NAMES.get(dtype, dtype))
    if target is None or target.kind == "O":
        raise RefusedError(f"there is no cast to {dtype!r}")
    if x.dtype.kind == "f" and target.kind in "iu":
        return _to_integer(x, target)
    return x.astype(target)


def _to_integer(x: np.ndarray, target: np.dtype) -> np.ndarray:
    # numpy leaves a float beyond the integer's range to the processor; saturating (NaN to 0) is what ARM cores do.
    bounds = np.iinfo(target)
    if not x.size:
        return x.astype(target)
    low, high = float(x.min()), float(x.max())
    if low >= bounds.min and high < bounds.max:
        return x.astype(target)
    wide = np.nan_to_num(np.trunc(x.astype(np.float64)), nan=0.0, posinf=bounds.max, neginf=bounds.min)
    saturated: np.ndarray = np.clip(wide, bounds.min, bounds.max).astype(target)
    return saturated


ELEMENTWISE: dict[str, Kernel] = {
    "add": arithmetic(_binary(np.add)),
    "sub": arithmetic(_binary(np.subtract)),
    "mul": arithmetic(_binary(np.multiply)),
    "real_div": arithmetic(real_div),
    "floor_div": arithmetic(floor_div),
    "mod": arithmetic(mod),
    "pow": arithmetic(_binary(np.power)),
    "maximum": arithmetic(_binary(np.maximum)),
    "minimum": arithmetic(_binary(np.minimum)),
    "equal": movement(_binary(np.equal)),
    "not_equal": movement(_binary(np.not_equal)),
    "greater": movement(_binary(np.greater)),
    "greater_equal": movement(_binary(np.greater_equal)),
    "less": movement(_binary(np.less)),
    "less_equal": movement(_binary(np.less_equal)),
    "logical_and": movement(_binary(np.logical_and)),
    "logical_or": movement(_binary(np.logical_or)),
    "logical_xor": movement(_binary(np.logical_xor)),
    "logical_not": movement(_unary(np.logical_not)),
    "abs": arithmetic(_unary(np.abs)),
    "acos": arithmetic(_unary(np.arccos)),
    "asin": arithmetic(_unary(np.arcsin)),
    "atan": arithmetic(_unary(np.arctan)),
    "atanh": arithmetic(_unary(np.arctanh)),
    "ceil": arithmetic(_unary(np.ceil)),
    "clip": arithmetic(clip),
    "cos": arithmetic(_unary(np.cos)),
    "cosh": arithmetic(_unary(np.cosh)),
    "erf": arithmetic(_unary(erf)),
    "exp": arithmetic(_unary(np.exp)),
    "exp2": arithmetic(exp2),
    "floor": arithmetic(_unary(np.floor)),
    "inverse": arithmetic(inverse),
    "log": arithmetic(log),
    "round": arithmetic(_unary(np.rint)),
    "rsqrt": arithmetic(rsqrt),
    "sign": arithmetic(_unary(np.sign)),
    "sin": arithmetic(_unary(np.sin)),
    "sinh": arithmetic(_unary(np.sinh)),
    "sqrt": arithmetic(_unary(np.sqrt)),
    "square": arithmetic(_unary(np.square)),
    "tan": arithmetic(_unary(np.tan)),
    "tanh": arithmetic(_unary(np.tanh)),
    "threshold": arithmetic(threshold),
    "cast": movement(cast),
    "select": movement(select),
}
