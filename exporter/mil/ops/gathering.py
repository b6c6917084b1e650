"""Gather and scatter (MIL scatter_gather).

The spec leaves an index out of range undefined unless `validate_indices` is set; here it always ends the run with an
error. Negative indices count from the end up to iOS 16; from iOS 17 on the spec calls them out of range.
"""

import math
from typing import Any

import numpy as np

from exporter.mil.kernel import Env, Kernel, RefusedError, arithmetic, axis_of, movement


def _checked(env: Env, indices: np.ndarray, size: int, validate: bool) -> np.ndarray:
    if indices.size:
        low, high = int(indices.min()), int(indices.max())
        least = -size if env.opset < 17 else 0
        if low < least or high >= size:
            rule = "validate_indices asks for an error" if validate else "Core ML leaves undefined what happens"
            raise RefusedError(f"index {low if low < least else high} is out of range [{least}, {size}); {rule}")
    return indices


def gather(
    env: Env,
    x: np.ndarray,
    indices: np.ndarray,
    axis: Any = 0,
    batch_dims: Any = 0,
    validate_indices: bool = False,
) -> Any:
    """Take slices of x along `axis`: x.shape[:axis] + indices.shape[batch_dims:] + x.shape[axis + 1:]."""
    place, batch = axis_of(axis, x.ndim), int(batch_dims)
    _checked(env, indices, x.shape[place], validate_indices)
    if not 0 <= batch <= min(place, indices.ndim):
        raise RefusedError(f"batch_dims {batch} does not fit axis {place} and indices of rank {indices.ndim}")
    shape = x.shape[:place] + indices.shape[batch:] + x.shape[place + 1 :]
    if not batch:
        env.reserve(shape, x.itemsize)
        return np.take(x, indices, place)
    if x.shape[:batch] != indices.shape[:batch]:
        raise RefusedError(f"x {list(x.shape)} and indices {list(indices.shape)} differ in their first {batch} axes")
    env.reserve(shape, x.itemsize)
    rows = math.prod(x.shape[:batch])
    # Fold everything into [batch, before, axis, after] and take with one index per batch row.
    folded = x.reshape(rows, math.prod(x.shape[batch:place]), x.shape[place], math.prod(x.shape[place + 1 :]))
    picked = folded[np.arange(rows)[:, None], :, indices.reshape(rows, math.prod(indices.shape[batch:]))]
    return picked.swapaxes(1, 2).reshape(shape)


def gather_along_axis(
    env: Env, x: np.ndarray, indices: np.ndarray, axis: Any = 0, validate_indices: bool = False
) -> Any:
    """Take x[..., indices[...], ...] along `axis`; x and indices agree in all other axes."""
    place = axis_of(axis, x.ndim)
    _agree(x, indices, place)
    return np.take_along_axis(
        x, _checked(env, indices, x.shape[place], validate_indices).astype(np.int64, copy=False), place
    )


def gather_nd(env: Env, x: np.ndarray, indices: np.ndarray, batch_dims: Any = 0, validate_indices: bool = False) -> Any:
    """Take x[indices[i]] where the last axis of `indices` holds coordinates into x, after `batch_dims` shared axes."""
    batch = int(batch_dims)
    if not 0 <= batch < indices.ndim or x.shape[:batch] != indices.shape[:batch]:
        raise RefusedError(f"batch_dims {batch} does not fit x {list(x.shape)} and indices {list(indices.shape)}")
    grid = tuple(
        np.arange(size).reshape(-1, *(1,) * (indices.ndim - 2 - axis)) for axis, size in enumerate(x.shape[:batch])
    )
    where = _coordinates(env, x, indices, batch, validate_indices)
    env.reserve(indices.shape[:-1] + x.shape[batch + len(where) :], x.itemsize)
    return x[(*grid, *where)]


def _coordinates(
    env: Env, x: np.ndarray, indices: np.ndarray, batch: int, validate_indices: bool
) -> tuple[np.ndarray, ...]:
    depth = indices.shape[-1] if indices.ndim else 0
    if not 1 <= depth <= x.ndim - batch:
        raise RefusedError(f"the last axis of indices has {depth} coordinates; x has {x.ndim - batch} axes to index")
    return tuple(_checked(env, indices[..., axis], x.shape[batch + axis], validate_indices) for axis in range(depth))


def scatter(
    env: Env,
    data: np.ndarray,
    indices: np.ndarray,
    updates: np.ndarray,
    axis: Any = 0,
    mode: str = "add",
    validate_indices: bool = False,
) -> Any:
    """Combine updates, data.shape[:axis] + indices.shape + data.shape[axis+1:], into data[..., indices, ...]."""
    place = axis_of(axis, data.ndim)
    where = (*(slice(None),) * place, _checked(env, indices, data.shape[place], validate_indices))
    return _combine(data, where, updates, mode, data.shape[:place] + indices.shape + data.shape[place + 1 :])


def scatter_along_axis(
    env: Env,
    data: np.ndarray,
    indices: np.ndarray,
    updates: np.ndarray,
    axis: Any = 0,
    mode: str = "add",
    validate_indices: bool = False,
) -> Any:
    """Combine each update into data at the position that `indices`, of the same shape, gives along `axis`."""
    place = axis_of(axis, data.ndim)
    _agree(data, indices, place)
    grid = np.ogrid[tuple(slice(size) for size in indices.shape)]
    where = (*grid[:place], _checked(env, indices, data.shape[place], validate_indices), *grid[place + 1 :])
    return _combine(data, where, updates, mode, indices.shape)


def scatter_nd(
    env: Env,
    data: np.ndarray,
    indices: np.ndarray,
    updates: np.ndarray,
    mode: str = "add",
    validate_indices: bool = False,
) -> Any:
    """Combine updates into data[indices[i]] where the last axis of `indices` holds coordinates into data."""
    where = _coordinates(env, data, indices, 0, validate_indices)
    return _combine(data, where, updates, mode, indices.shape[:-1] + data.shape[len(where) :])


def _agree(x: np.ndarray, indices: np.ndarray, place: int) -> None:
    if x.ndim != indices.ndim or any(
        a != b for axis, (a, b) in enumerate(zip(x.shape, indices.shape, strict=True)) if axis != place
    ):
        raise RefusedError(f"shapes {list(x.shape)} and {list(indices.shape)} differ in more than axis {place}")


# ufunc.at repeats the operation for repeated indices, which plain indexed assignment does not.
_MODES = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


def _combine(data: np.ndarray, where: Any, updates: np.ndarray, mode: str, shape: tuple[int, ...]) -> np.ndarray:
    if updates.shape != shape:
        raise RefusedError(f"updates have shape {list(updates.shape)}, not {list(shape)}")
    result = data.copy()
    if mode == "update":
        result[where] = updates
    elif mode == "div":
        if data.dtype.kind != "f" and not updates.all():
            raise RefusedError("an integer is divided by zero")
        (np.divide if data.dtype.kind == "f" else np.floor_divide).at(result, where, updates)
    elif mode in _MODES:
        _MODES[mode].at(result, where, updates)
    else:
        raise RefusedError(f"scatter mode {mode!r} is not known; the spec has update, div, {', '.join(_MODES)}")
    return result


GATHERING: dict[str, Kernel] = {
    "gather": movement(gather),
    "gather_along_axis": movement(gather_along_axis),
    "gather_nd": movement(gather_nd),
    "scatter": arithmetic(scatter),
    "scatter_along_axis": arithmetic(scatter_along_axis),
    "scatter_nd": arithmetic(scatter_nd),
}
