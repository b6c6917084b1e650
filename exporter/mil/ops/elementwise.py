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


def _wrapping(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a binary operation whose integers may leave their range."""

    def run(env: Env, x: np.ndarray, y: np.ndarray) -> Any:
        env.broadcast(x, y)
        result = function(x, y)
        if x.dtype.kind == "f":
            return result
        env.reserve(result.shape, np.dtype(np.float64).itemsize)
        return env.whole(result, function(x.astype(np.float64), y))

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
    exact = np.true_divide(x, y)
    if ((exact < 0) & (exact % 1 != 0)).any():
        env.doubt("a negative quotient of whole numbers is not whole; here it is rounded towards zero")
    return np.trunc(exact).astype(x.dtype)


def floor_div(env: Env, x: np.ndarray, y: np.ndarray) -> Any:
    """Divide and round towards negative infinity."""
    env.broadcast(x, y)
    _no_zero(y)
    return np.floor_divide(x, y)


def mod(env: Env, x: np.ndarray, y: np.ndarray) -> Any:
    """Remainder with the sign of the divisor, as coremltools' constant folding has it.

    The spec says `x % y` and no more, Apple's tests have no negative number, and of Core ML itself it was reported that
    the sign is that of the dividend, as in C (kasper0406/stablehlo-coreml, pull request 70).
    """
    env.broadcast(x, y)
    _no_zero(y)
    result = np.remainder(x, y)
    if (((x < 0) | (y < 0)) & (result != 0)).any():
        env.doubt("an operand is negative; here the remainder has the sign of the divisor, in C that of the dividend")
    return result


def power(env: Env, x: np.ndarray, y: np.ndarray) -> Any:
    """x to the power of y; of 2 to the power of 0 it was reported that Core ML gives 0 (coremltools issue 2628)."""
    if not y.all():
        env.doubt("an exponent is zero; here the power is 1")
    run: Any = _wrapping(np.power)(env, x, y)
    return run


def round_(env: Env, x: np.ndarray) -> Any:
    """The nearest whole number, of two the even one.

    That was measured of Core ML's CPU (kasper0406/stablehlo-coreml, pull request 71); other processors may choose the
    other one (webmachinelearning/webnn issue 817).
    """
    if (np.abs(x % 1) == 0.5).any():
        env.doubt("a number is halfway between two whole ones; here it goes to the even one")
    return np.rint(x)


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
    shifted = x + _epsilon(env, x, epsilon)
    if ((np.abs(shifted) < np.finfo(x.dtype).smallest_normal) & (shifted != 0)).any():
        env.doubt("a number is below the normal ones, which some processors take for zero; here it is not")
    return np.log(shifted)


def rsqrt(env: Env, x: np.ndarray, epsilon: np.ndarray | float = 1e-12) -> Any:
    """1 / sqrt(x + epsilon)."""
    return x.dtype.type(1) / np.sqrt(x + _epsilon(env, x, epsilon))


def _epsilon(env: Env, x: np.ndarray, epsilon: np.ndarray | float) -> Any:
    # The spec's default is rounded to the type of x, and in float16 both 1e-45 and 1e-12 are zero.
    return np.float16(epsilon).astype(x.dtype) if env.half and isinstance(epsilon, float) else x.dtype.type(epsilon)


def square(env: Env, x: np.ndarray) -> Any:
    """x * x."""
    result = np.square(x)
    return result if x.dtype.kind == "f" else env.whole(result, np.square(x.astype(np.float64)))


def exp2(x: np.ndarray) -> Any:
    """2 to the power of x; integers give an integer, rounded towards zero."""
    return np.exp2(x) if x.dtype.kind == "f" else _to_integer(np.exp2(x.astype(np.float64)), x.dtype)


def select(env: Env, cond: np.ndarray, a: np.ndarray, b: np.ndarray) -> Any:
    """Take a where cond holds and b elsewhere."""
    env.broadcast(cond, a, b)
    return np.where(cond, a, b)


def cast(env: Env, x: np.ndarray, dtype: str) -> Any:
    """Convert to `dtype`: floats round to nearest even or truncate to an integer and saturate, integers wrap."""
    target = NUMPY_TYPES.get(DTYPE_NAMES.get(dtype, dtype))
    if target is None or target.kind == "O":
        raise RefusedError(f"there is no cast to {dtype!r}")
    if target.kind in "iu" and x.size and not _holds(target, x):
        env.doubt("a value is out of the range of the type; here floats saturate, NaN is 0 and integers wrap around")
    return converted(x, target)


def converted(x: np.ndarray, target: np.dtype) -> np.ndarray:
    """Return x in the type `target`, as `cast` says."""
    return _to_integer(x, target) if x.dtype.kind == "f" and target.kind in "iu" else x.astype(target)


def _holds(target: np.dtype, x: np.ndarray) -> bool:
    bounds = np.iinfo(target)
    low, high = x.min(), x.max()
    return bool(int(low) >= bounds.min and int(high) <= bounds.max) if np.isfinite(low) and np.isfinite(high) else False


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
    "add": arithmetic(_wrapping(np.add)),
    "sub": arithmetic(_wrapping(np.subtract)),
    "mul": arithmetic(_wrapping(np.multiply)),
    "real_div": arithmetic(real_div),
    "floor_div": arithmetic(floor_div),
    "mod": arithmetic(mod),
    "pow": arithmetic(power),
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
    "round": arithmetic(round_),
    "rsqrt": arithmetic(rsqrt),
    "sign": arithmetic(_unary(np.sign)),
    "sin": arithmetic(_unary(np.sin)),
    "sinh": arithmetic(_unary(np.sinh)),
    "sqrt": arithmetic(_unary(np.sqrt)),
    "square": arithmetic(square),
    "tan": arithmetic(_unary(np.tan)),
    "tanh": arithmetic(_unary(np.tanh)),
    "threshold": arithmetic(threshold),
    "cast": movement(cast),
    "select": movement(select),
}
