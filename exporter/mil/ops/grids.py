"""Where resizing operations sample an axis, and linear interpolation at such points (MIL image_resizing)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from exporter.mil.kernel import RefusedError

Grid = Callable[[np.ndarray, np.ndarray, np.ndarray, int], Any]


def _strict(index: np.ndarray, start: np.ndarray, end: np.ndarray, count: int) -> Any:
    return start + index * ((end - start) / max(count - 1, 1))


def _align(index: np.ndarray, start: np.ndarray, end: np.ndarray, count: int) -> Any:
    return (start + end) / 2 + 0 * index if count == 1 else _strict(index, start, end, count)


def _default(index: np.ndarray, start: np.ndarray, end: np.ndarray, count: int) -> Any:
    return start + index * ((end - start + 1) / count)


def _offset(index: np.ndarray, start: np.ndarray, end: np.ndarray, count: int) -> Any:
    delta = np.maximum(1, end - start) / count
    return start + delta / 2 + index * delta


def _unalign(index: np.ndarray, start: np.ndarray, end: np.ndarray, count: int) -> Any:
    spacing = (end - start + 1) / count
    return start + index * spacing + spacing / 2 - 0.5


# The five sampling modes of resize_bilinear, for an interval [start, end] sampled at `count` points.
MODES: dict[str, Grid] = {
    "STRICT_ALIGN_CORNERS": _strict,
    "ALIGN_CORNERS": _align,
    "DEFAULT": _default,
    "OFFSET_CORNERS": _offset,
    "UNALIGN_CORNERS": _unalign,
}


def grid(mode: str, start: np.ndarray | float, end: np.ndarray | float, count: int) -> np.ndarray:
    """Return the sampling points [..., count] of intervals [start, end] of shape [...], in float64."""
    if mode not in MODES:
        raise RefusedError(f"sampling mode {mode!r} is not known; the spec has {', '.join(MODES)}")
    if count < 1:
        raise RefusedError(f"a target size of {count} is none")
    first = np.asarray(start, np.float64)[..., None]
    last = np.asarray(end, np.float64)[..., None]
    points: np.ndarray = MODES[mode](np.arange(count, dtype=np.float64), first, last, count)
    return points


def axis_grid(mode: str, size: int, count: int) -> np.ndarray:
    """Return `count` sampling points on an axis of `size` elements, kept inside the axis."""
    points: np.ndarray = np.clip(grid(mode, 0.0, size - 1.0, count), 0.0, size - 1.0)
    return points


def linear(x: np.ndarray, axis: int, points: np.ndarray) -> np.ndarray:
    """Interpolate x linearly along `axis` at points inside it."""
    low = np.floor(points).astype(np.int64)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    shape = [1] * x.ndim
    shape[axis] = len(points)
    share = (points - low).astype(x.dtype).reshape(shape)
    below, above = x.take(low, axis), x.take(high, axis)
    result: np.ndarray = below + share * (above - below)
    return result
