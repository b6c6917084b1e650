"""Reductions along axes (MIL reduction)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from exporter.mil.kernel import Env, Kernel, RefusedError, arithmetic, axes_of, axis_of, movement

Axes = tuple[int, ...]
Reducer = Callable[[Env, np.ndarray, Axes, bool], Any]


def _reduction(reduce: Reducer) -> Callable[..., Any]:
    def run(env: Env, x: np.ndarray, axes: np.ndarray | None = None, keep_dims: bool = False) -> Any:
        result = np.asarray(reduce(env, x, _positions(x, axes), bool(keep_dims)))
        if x.dtype.kind == "f":
            return result
        # Integers come back as the spec's result type, the input's; a mean or a root is rounded towards zero.
        whole = result.astype(x.dtype)
        if (whole != result).any():
            env.doubt("the result for whole numbers is not whole; here it is rounded towards zero")
        return whole

    return run


def _numpy(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(x: np.ndarray, axes: np.ndarray | None = None, keep_dims: bool = False) -> Any:
        return function(x, axis=_positions(x, axes), keepdims=bool(keep_dims))

    return run


def _in_range(reduce: Reducer, exact: Callable[..., Any]) -> Reducer:
    """Return a reduction whose integers may leave their range; `exact` is the same in float64."""

    def run(env: Env, x: np.ndarray, axes: Axes, keep: bool) -> Any:
        result = reduce(env, x, axes, keep)
        if x.dtype.kind == "f":
            return result
        env.reserve(x.shape, np.dtype(np.float64).itemsize)
        return env.whole(np.asarray(result), exact(x.astype(np.float64), axes, keepdims=keep))

    return run


def _positions(x: np.ndarray, axes: np.ndarray | None) -> Axes:
    return tuple(range(x.ndim)) if axes is None else axes_of(axes, x.ndim)


def _exact(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, axes, keepdims: np.sum(function(x), axes, keepdims=keepdims)


def _sum(env: Env, x: np.ndarray, axes: Axes, keep: bool) -> Any:
    return env.sum(x, axes, keep)


def _mean(env: Env, x: np.ndarray, axes: Axes, keep: bool) -> Any:
    return env.mean(x, axes, keep) if x.dtype.kind == "f" else np.mean(x, axes, keepdims=keep)


def _sum_square(env: Env, x: np.ndarray, axes: Axes, keep: bool) -> Any:
    return env.sum(np.square(x), axes, keep)


def _l1_norm(env: Env, x: np.ndarray, axes: Axes, keep: bool) -> Any:
    return env.sum(np.abs(x), axes, keep)


def _l2_norm(env: Env, x: np.ndarray, axes: Axes, keep: bool) -> Any:
    return np.sqrt(_sum_square(env, x, axes, keep))


def _log_sum(env: Env, x: np.ndarray, axes: Axes, keep: bool) -> Any:
    return np.log(env.sum(x, axes, keep))


def _log_sum_exp(env: Env, x: np.ndarray, axes: Axes, keep: bool) -> Any:
    top = np.amax(x, axes, keepdims=True)
    # A row of -inf only has no largest finite element; subtracting it would make NaN where the answer is -inf.
    top = np.where(np.isfinite(top), top, top.dtype.type(0))
    total = np.log(env.sum(np.exp(x - top), axes, True)) + top
    return total if keep else np.squeeze(total, axes)


def _prod(_env: Env, x: np.ndarray, axes: Axes, keep: bool) -> Any:
    return np.prod(x, axes, x.dtype, keepdims=keep)


def _arg(find: Callable[..., Any]) -> Callable[..., Any]:
    def run(env: Env, x: np.ndarray, axis: Any = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Any:
        if output_dtype not in ("int32", "uint16"):
            raise RefusedError(f"indices cannot be of type {output_dtype!r}; the spec knows int32 and uint16")
        place = axis_of(axis, x.ndim)
        index = find(x, place, keepdims=True)
        # "In case of ties, the identity of the return value is not guaranteed", the spec says.
        if ((x == np.take_along_axis(x, index, place)).sum(place) > 1).any():
            env.doubt("the extreme value stands more than once; here the first position is taken")
        return (index if keep_dims else index.squeeze(place)).astype(output_dtype)

    return run


REDUCTION: dict[str, Kernel] = {
    "reduce_sum": arithmetic(_reduction(_in_range(_sum, np.sum))),
    "reduce_mean": arithmetic(_reduction(_mean)),
    "reduce_sum_square": arithmetic(_reduction(_in_range(_sum_square, _exact(np.square)))),
    "reduce_l1_norm": arithmetic(_reduction(_in_range(_l1_norm, _exact(np.abs)))),
    "reduce_l2_norm": arithmetic(_reduction(_l2_norm)),
    "reduce_log_sum": arithmetic(_reduction(_log_sum)),
    "reduce_log_sum_exp": arithmetic(_reduction(_log_sum_exp)),
    "reduce_max": arithmetic(_numpy(np.amax)),
    "reduce_min": arithmetic(_numpy(np.amin)),
    "reduce_prod": arithmetic(_reduction(_in_range(_prod, np.prod))),
    "reduce_argmax": movement(_arg(np.argmax)),
    "reduce_argmin": movement(_arg(np.argmin)),
}
