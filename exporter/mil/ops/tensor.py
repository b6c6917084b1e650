"""Operations that join, split, fill, sort and mask tensors (MIL tensor_operation)."""

import math
from typing import Any

import numpy as np

from exporter.mil.kernel import Env, Kernel, RefusedError, arithmetic, axis_of, integers, movement


def band_part(x: np.ndarray, lower: Any = -1, upper: Any = -1) -> Any:
    """Keep `lower` diagonals below and `upper` above the main one of the last two axes; negative keeps all."""
    if x.ndim < 2:
        raise RefusedError(f"band_part wants rank 2 or more, not {x.ndim}")
    distance = np.arange(x.shape[-2])[:, None] - np.arange(x.shape[-1])
    keep = np.ones(distance.shape, bool)
    if int(lower) >= 0:
        keep &= distance <= int(lower)
    if int(upper) >= 0:
        keep &= -distance <= int(upper)
    return np.where(keep, x, x.dtype.type(0))


def concat(env: Env, values: list[np.ndarray], axis: Any, interleave: bool = False) -> Any:
    """Join along `axis`, one after the other or taking turns; scalars join to a vector."""
    env.reserve([sum(value.size for value in values)], values[0].itemsize)
    if values[0].ndim == 0:
        return np.stack(values)
    place = axis_of(axis, values[0].ndim)
    if not interleave:
        return np.concatenate(values, place)
    shape = list(values[0].shape)
    shape[place] *= len(values)
    return np.stack(values, place + 1).reshape(shape)


def stack(env: Env, values: list[np.ndarray], axis: Any) -> Any:
    """Join tensors of one shape along a new axis."""
    env.reserve([sum(value.size for value in values)], values[0].itemsize)
    return np.stack(values, int(axis))


def split(x: np.ndarray, axis: Any, num_splits: Any = None, split_sizes: np.ndarray | None = None) -> Any:
    """Cut along `axis` into `num_splits` equal parts or into parts of `split_sizes`."""
    place = axis_of(axis, x.ndim)
    if split_sizes is not None:
        sizes = integers(split_sizes)
        if sum(sizes) != x.shape[place] or min(sizes, default=0) < 0:
            raise RefusedError(f"parts of {sizes} do not add up to {x.shape[place]}")
        return tuple(np.split(x, np.cumsum(sizes[:-1], dtype=np.int64), place))
    if num_splits is None or int(num_splits) < 1 or x.shape[place] % int(num_splits):
        raise RefusedError(f"an axis of {x.shape[place]} cannot be cut into {num_splits} equal parts")
    return tuple(np.split(x, int(num_splits), place))


def cumsum(env: Env, x: np.ndarray, axis: Any = 0, exclusive: bool = False, reverse: bool = False) -> Any:
    """Running sum along `axis`; `exclusive` starts at zero, `reverse` starts at the far end."""
    place = axis_of(axis, x.ndim)
    source = np.flip(x, place) if reverse else x
    total = np.cumsum(source, place, x.dtype)
    if x.dtype.kind != "f":
        env.reserve(x.shape, np.dtype(np.float64).itemsize)
        env.whole(total, np.cumsum(source, place, np.float64))
    if exclusive:
        shape = list(x.shape)
        shape[place] = min(1, shape[place])
        total = np.concatenate([np.zeros(shape, x.dtype), total.take(np.arange(x.shape[place] - 1), place)], place)
    return np.flip(total, place) if reverse else total


def fill(env: Env, shape: np.ndarray, value: Any = 0.0) -> Any:
    """A tensor of `shape` filled with `value`."""
    sizes = integers(shape)
    filler = np.float32(value) if isinstance(value, float) else np.asarray(value)
    env.reserve(sizes, filler.itemsize)
    return np.full(sizes, filler)


def fill_like(ref_tensor: np.ndarray, value: Any = 0.0) -> Any:
    """A tensor of the reference's shape filled with `value`."""
    return np.full(ref_tensor.shape, np.float32(value) if isinstance(value, float) else np.asarray(value))


def shape(x: np.ndarray) -> Any:
    """The shape of x as int32."""
    return np.array(x.shape, np.int32)


def range_1d(env: Env, start: np.ndarray, end: np.ndarray, step: np.ndarray) -> Any:
    """start, start + step, ... up to but without end."""
    first, last, stride = start.item(), end.item(), step.item()
    if stride == 0 or not all(math.isfinite(value) for value in (first, last, stride)):
        raise RefusedError(f"a range from {first} to {last} in steps of {stride} has no length")
    count = max(0, math.ceil((last - first) / stride))
    env.reserve([count], start.itemsize)
    return (first + np.arange(count) * stride).astype(start.dtype)


def tile(env: Env, x: np.ndarray, reps: np.ndarray) -> Any:
    """Repeat x `reps[i]` times along axis i."""
    counts = integers(reps)
    if len(counts) != x.ndim or min(counts, default=1) < 1:
        raise RefusedError(f"reps {counts} are not one positive number for each of {x.ndim} axes")
    env.reserve([size * count for size, count in zip(x.shape, counts, strict=True)], x.itemsize)
    return np.tile(x, counts)


def identity(x: Any) -> Any:
    """x itself."""
    return x


TENSOR: dict[str, Kernel] = {
    "band_part": movement(band_part),
    "concat": movement(concat, "values"),
    "stack": movement(stack, "values"),
    "split": movement(split),
    "cumsum": arithmetic(cumsum),
    "fill": movement(fill),
    "fill_like": movement(fill_like),
    "shape": movement(shape),
    "range_1d": movement(range_1d),
    "tile": movement(tile),
    "identity": movement(identity),
}
