"""Slices (MIL slice_by_index, slice_by_size, slice_update)."""

from typing import Any

import numpy as np

from exporter.mil.kernel import Kernel, RefusedError, integers, movement

Mask = np.ndarray | None


def _slices(
    x: np.ndarray,
    begin: np.ndarray,
    end: np.ndarray,
    stride: np.ndarray | None,
    begin_mask: Mask,
    end_mask: Mask,
    squeeze_mask: Mask,
) -> tuple[slice | int, ...]:
    rank = x.ndim
    first, last = integers(begin), integers(end)
    step = [1] * rank if stride is None else integers(stride)
    masks = [
        [False] * rank if mask is None else mask.reshape(-1).tolist() for mask in (begin_mask, end_mask, squeeze_mask)
    ]
    if any(len(values) != rank for values in (first, last, step, *masks)):
        raise RefusedError(f"begin, end, stride and masks must have {rank} elements each")
    if 0 in step:
        raise RefusedError("a stride is zero")
    open_begin, open_end, single = masks
    return tuple(
        (0 if open_begin[i] else first[i])
        if single[i]
        else slice(None if open_begin[i] else first[i], None if open_end[i] else last[i], step[i])
        for i in range(rank)
    )


def slice_by_index(
    x: np.ndarray,
    begin: np.ndarray,
    end: np.ndarray,
    stride: np.ndarray | None = None,
    begin_mask: Mask = None,
    end_mask: Mask = None,
    squeeze_mask: Mask = None,
) -> Any:
    """x[begin:end:stride] per axis as in Python; a masked begin or end is open, a squeezed axis takes x[begin]."""
    return x[_slices(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)]


def slice_by_size(x: np.ndarray, begin: np.ndarray, size: np.ndarray) -> Any:
    """Take `size` elements from `begin` on per axis; -1 takes the rest."""
    first, sizes = integers(begin), integers(size)
    if len(first) != x.ndim or len(sizes) != x.ndim:
        raise RefusedError(f"begin and size must have {x.ndim} elements each")
    slices = []
    for start, count, length in zip(first, sizes, x.shape, strict=True):
        start = start + length if start < 0 else start
        stop = length if count == -1 else start + count
        if not 0 <= start <= stop <= length:
            raise RefusedError(f"slice [{start}, {stop}) leaves an axis of {length} elements")
        slices.append(slice(start, stop))
    return x[tuple(slices)]


def slice_update(
    x: np.ndarray,
    update: np.ndarray,
    begin: np.ndarray,
    end: np.ndarray,
    stride: np.ndarray | None = None,
    begin_mask: Mask = None,
    end_mask: Mask = None,
    squeeze_mask: Mask = None,
) -> Any:
    """Return a copy of x whose slice, named as in slice_by_index, is replaced by `update` of the slice's shape."""
    slices = _slices(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    result = x.copy()
    target = result[slices]
    if target.shape != update.shape:
        raise RefusedError(f"the slice has shape {list(target.shape)} but the update {list(update.shape)}")
    result[slices] = update
    return result


SLICING: dict[str, Kernel] = {
    "slice_by_index": movement(slice_by_index),
    "slice_by_size": movement(slice_by_size),
    "slice_update": movement(slice_update),
}
